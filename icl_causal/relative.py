"""A disentangled transformer that knows distances, not positions."""

from typing import Any

from flax import linen as nn
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import blocks
from icl_causal import layers
from icl_causal import sampling


class Relative(nn.Module):
  """The disentangled transformer with relative positions (ours).

  After Shaw, Uszkoreit and Vaswani (2018). The stream starts as the one-hot
  tokens, without positions, and a copy has what a head attends to: the mean of
  the stream, and the attention at each distance,

    maps = softmax(mask(h A h^T + (h U)_{i, i-j})),
    h_i <- [h_i, sum_j maps_ij h_j, maps_{i, i}, maps_{i, i-1}, ..].

  The last layer copies the mean alone. No parameter depends on T, so the same
  parameters apply to prompts of any length: `model.clone(T=2 * T)`.

  Parameters: `A1` (H_1, d_0, d_0), `U1` (H_1, d_0, reach), `A2`, `U2`, .., `W`
  (d_L, S), with d_0 = S + period and d_l = d_{l-1} + H_l (d_{l-1} + reach).

  Attributes:
    S: states.
    T: positions.
    heads: of each layer.
    reach: number of distinct distances 0, 1, .., at least 2; the last stands
      for all larger ones.
    noise: initial standard deviation of A and U.
    every: whether to predict at every position.
    period: if not 0, the stream starts with the one-hot position modulo this
      number, too: the place in an example, for examples of one length.
  """

  S: int
  T: int
  heads: tuple[int, ...]
  reach: int
  noise: float = 0.0
  every: bool = False
  period: int = 0
  read_out = "softmax"

  def __post_init__(self):
    self.heads = tuple(self.heads)  # a module with a list has no hash
    super().__post_init__()

  @nn.compact
  def __call__(self, x_T: jax.Array) -> tuple[jax.Array, dict]:
    """(f_S, out) for the tokens of one prompt, or (f_TxS, out)."""
    sampling.check_tokens(x_T, self.S, self.T)
    mask_TxT = jnp.where(jnp.tri(self.T, dtype=bool), 0, -jnp.inf)
    h_TxD = jax.nn.one_hot(x_T, self.S, dtype=jnp.result_type(float))
    if self.period:
      place_T = jnp.arange(self.T) % self.period
      place_TxP = jax.nn.one_hot(place_T, self.period, dtype=h_TxD.dtype)
      h_TxD = jnp.concatenate([h_TxD, place_TxP], axis=1)
    gauss, out, maps = nn.initializers.normal(self.noise), {}, []
    for layer, num_heads in enumerate(self.heads, start=1):
      copies = [
        part
        for att in maps
        for part in (att @ h_TxD, attention_by_distance(att, self.reach))
      ]
      h_TxD = jnp.concatenate([h_TxD, *copies], axis=1)
      D = h_TxD.shape[1]
      A_HxDxD = self.param(f"A{layer}", gauss, (num_heads, D, D))
      U_HxDxR = self.param(f"U{layer}", gauss, (num_heads, D, self.reach))
      maps = [
        jax.nn.softmax(
          h_TxD @ A @ h_TxD.T + score_by_distance(h_TxD @ U) + mask_TxT
        )
        for A, U in zip(A_HxDxD, U_HxDxR, strict=True)
      ]
      out[f"attention_{layer}"] = jnp.stack(maps)
    width = (1 + len(maps)) * h_TxD.shape[1]
    W_DxS = self.param("W", nn.initializers.zeros, (width, self.S))
    logits_TxS = layers.read_out(h_TxD, maps, W_DxS)
    if self.every:
      out["logits_TxS"] = logits_TxS
      return jax.nn.softmax(logits_TxS), out
    last = f"attention_{len(self.heads)}"
    out |= {last: out[last][:, -1], "logits_S": logits_TxS[-1]}
    return jax.nn.softmax(out["logits_S"]), out

  @property
  def first_layer_heads(self) -> int:
    """Heads of layer 1."""
    return self.heads[0]

  @property
  def map_entries(self) -> int:
    """Entries of the layer-1 maps per prompt."""
    return self.heads[0] * self.T**2

  def parameter_blocks(self, params: Any) -> list[blocks.ParameterBlock]:
    """The parameters as matrices with the blocks of the residual stream."""
    matrices = []
    for layer in range(1, len(self.heads) + 1):
      rows = self._stream(self.heads[: layer - 1])
      for name, columns in (("A", rows), ("U", [("distance", self.reach)])):
        of_heads = np.asarray(params[f"{name}{layer}"])
        for head, matrix in enumerate(of_heads, start=1):
          title = f"{name}{layer}" + (f", head {head}" * (len(of_heads) > 1))
          matrices.append(blocks.ParameterBlock(title, matrix, rows, columns))
    rows = self._stream(self.heads[:-1])
    copies = [
      (f"{name} {len(self.heads)}.{head}", size)
      for head in range(1, self.heads[-1] + 1)
      for name, size in rows
    ]
    return [*matrices, blocks.read_out("W", params["W"], [*rows, *copies])]

  def _stream(self, heads: tuple[int, ...]) -> blocks.Blocks:
    """The blocks of the stream after layers with these heads."""
    stream = [("token", self.S), ("place", self.period)][
      : 1 + bool(self.period)
    ]
    for layer, num_heads in enumerate(heads, start=1):
      before = list(stream)
      for head in range(1, num_heads + 1):
        stream += [(f"{name} {layer}.{head}", size) for name, size in before]
        stream.append((f"distance {layer}.{head}", self.reach))
    return stream


def score_by_distance(u_TxR: jax.Array) -> jax.Array:
  """The matrix with u[i, min(i - j, R - 1)] at (i, j) for j <= i, T x T.

  Reads a padded matrix with rows of another length: faster than gathering.
  Entries j > i have no meaning.
  """
  T, R = u_TxR.shape
  if R > T:
    u_TxR, R = u_TxR[:, :T], T
  far_TxF = jnp.broadcast_to(u_TxR[:, -1:], (T, T - R))
  rows_TxT = jnp.concatenate([far_TxF, u_TxR[:, ::-1]], axis=1)
  return jnp.pad(rows_TxT, ((0, 0), (1, 0))).reshape(T + 1, T)[1:]


def attention_by_distance(att_TxT: jax.Array, reach: int) -> jax.Array:
  """The attention at distances 0, .., reach - 2, and at larger ones, T x R.

  Args:
    att_TxT: causal attention, 0 for j > i.
    reach: R.
  """
  T = len(att_TxT)
  shifted = jnp.pad(att_TxT, ((1, 0), (0, 0))).reshape(T, T + 1)
  at_TxT = jnp.pad(shifted[:, 1:][:, ::-1], ((0, 0), (0, max(reach - T, 0))))
  far_Tx1 = at_TxT[:, reach - 1 :].sum(axis=1, keepdims=True)
  return jnp.concatenate([at_TxT[:, : reach - 1], far_Tx1], axis=1)
