"""The read-out, initial values and the MLP of the models."""

from flax import linen as nn
import jax
from jax import numpy as jnp


class Linear(nn.Module):
  """x K + scale * b, with D inputs and D outputs.

  Parameters: `kernel` K, D x D, and `bias` b, D, which starts at zero.

  Attributes:
    width: D.
    start: the initializer of K.
    scale: factor of b. A step of Adam does not depend on it, so scale * b
      changes `scale` times as fast.
  """

  width: int
  start: nn.initializers.Initializer
  scale: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """The outputs; x has D entries in its last axis."""
    K_DxD = self.param("kernel", self.start, (self.width, self.width))
    b_D = self.param("bias", nn.initializers.zeros, (self.width,))
    return x @ K_DxD + jnp.broadcast_to(self.scale * b_D, x.shape)


def mlp(x, name: str, bias_scale: float, passes: bool) -> jax.Array:
  """relu(x K_1 + c b_1) K_2 + c b_2, in the scope of the calling module.

  K_1 starts Gaussian with variance 1 / D, K_2 at zero, or at K_1^T. With K_1^T
  the MLP passes on a part of x: relu(x K_1) K_1^T is x / 2 on average over K_1.

  Args:
    x: with D entries in its last axis.
    name: of the parameters, `{name}_in` and `{name}_out`.
    bias_scale: c.
    passes: whether K_2 starts at K_1^T.
  """
  D = x.shape[-1]
  gauss = nn.initializers.normal(D**-0.5)
  first = Linear(D, gauss, bias_scale, name=f"{name}_in")
  hidden = nn.relu(first(x))

  def start(key, shape, dtype=None):
    del key
    if not passes:
      return jnp.zeros(shape, dtype)
    return first.get_variable("params", "kernel").T

  return Linear(D, start, bias_scale, name=f"{name}_out")(hidden)


def read_out(h_TxD, maps, W_DxS) -> jax.Array:
  """The logits [h, att h, ..] W of the stream and its copies, T x S.

  The rows of W are applied first, att (h W), which is faster.

  Args:
    h_TxD: the stream.
    maps: H attention maps T x T.
    W_DxS: (1 + H) D rows.
  """
  W_CxDxS = W_DxS.reshape(1 + len(maps), h_TxD.shape[1], -1)
  own_TxS, *copied = jnp.einsum("td,cds->cts", h_TxD, W_CxDxS)
  return own_TxS + sum(
    att @ values_TxS for att, values_TxS in zip(maps, copied, strict=True)
  )


def orthonormal_rows(x_RxD: jax.Array) -> jax.Array:
  """Orthonormal rows; the first r span what the first r rows of x span.

  By Gram-Schmidt, for R <= D. `jnp.linalg.qr` of jaxlib 0.10.2 can hang for a
  batch of 256 or more on a CPU with two cores: its calls occupy the threads
  that they wait for.
  """

  def add(r, rows_RxD):
    row_D = x_RxD[r]
    for _ in range(2):  # rounding leaves a rest after the first time
      row_D -= (rows_RxD @ row_D) @ rows_RxD
    return rows_RxD.at[r].set(row_D / jnp.linalg.norm(row_D))

  return jax.lax.fori_loop(0, len(x_RxD), add, jnp.zeros_like(x_RxD))


def orthonormal(key, shape: tuple[int, ...]) -> jax.Array:
  """A start: rows of the last axis orthonormal, in uniform directions."""
  rows = jnp.vectorize(orthonormal_rows, signature="(r,d)->(r,d)")
  return rows(jax.random.normal(key, shape))


def orthonormal_to(key, E_SxD, T: int) -> jax.Array:
  """T random rows that are orthonormal and orthogonal to the rows of E."""
  S, D = E_SxD.shape
  others_TxD = jax.random.normal(key, (T, D), E_SxD.dtype)
  return orthonormal_rows(jnp.concatenate([E_SxD, others_TxD]))[S:]


def start_A(beta0, sink, key, shape, E_SxD, P_TxD, V_HxDxD) -> jax.Array:
  """The start of the A of a layer, given V of the layer before it, if any."""
  del key
  A_HxDxD = jnp.zeros(shape)
  if sink:
    A_HxDxD += sink * jnp.outer(P_TxD[-1], P_TxD[-1])[None]
  if beta0 and V_HxDxD is not None:
    A_HxDxD += beta0 * (E_SxD.T @ E_SxD)[None] @ V_HxDxD
  return A_HxDxD


def start_W(key, beta0, E_SxD, V_HxDxD) -> jax.Array:
  """The start of W, given V of the last layer."""
  del key
  if not beta0:
    return jnp.zeros(E_SxD.T.shape)
  return beta0 * (V_HxDxD[0].T - jnp.eye(V_HxDxD.shape[-1])) @ E_SxD.T


def check_start(model):
  """Raises ValueError if the fields of a `models.Standard` do not fit."""
  heads, sinks, least = tuple(model.heads), model.sinks, model.S + model.T
  if model.orthonormal and model.width < least:
    raise ValueError(
      f"orthonormal embeddings need a width of at least {least}, got "
      f"{model.width}"
    )
  if len(sinks) not in (0, len(heads)):
    raise ValueError(f"sinks {sinks} must have one entry per layer")
  if model.beta0 and not (model.orthonormal and heads == (1, 1)):
    raise ValueError("beta0 needs heads (1, 1) and orthonormal embeddings")


def add_matching(A_HxDxD, beta0, S: int, heads) -> jax.Array:
  """The start of A2 of `models.Disentangled` with `beta0`, for two layers."""
  copies = 1 + heads[0]
  width = A_HxDxD.shape[-1] // copies
  A = A_HxDxD.reshape(-1, copies, width, copies, width)
  for copy in range(1, copies):
    query = 0 if copy == 1 else copy
    block = (slice(None), query, slice(S), copy, slice(S))
    A = A.at[block].add(beta0 * jnp.eye(S))
  return A.reshape(A_HxDxD.shape)


def add_copying(W_DxS, beta0, heads) -> jax.Array:
  """The start of W of `models.Disentangled` with `beta0`, for two layers."""
  if not beta0:
    return W_DxS
  S = W_DxS.shape[1]
  W = W_DxS.reshape(1 + heads[1], 1 + heads[0], -1, S)
  return W.at[1:, 0, :S].add(beta0 * jnp.eye(S)[None]).reshape(W_DxS.shape)
