"""A disentangled transformer that knows distances, not positions."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from flax import linen as nn
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import blocks
from icl_causal import layers
from icl_causal import sampling

ReadOut = Literal["softmax", "mixture"]
READ_OUTS: tuple[ReadOut, ...] = get_args(ReadOut)


class Relative(nn.Module):
  """The disentangled transformer with relative positions (ours).

  After Shaw, Uszkoreit and Vaswani (2018). The stream starts as the one-hot
  tokens, without positions, and a copy has what a head attends to: the mean of
  the stream, and the attention at each distance,

    maps = softmax(mask(h A h^T + (h U)_{i, i-j})),
    h_i <- [h_i, sum_j maps_ij h_j, maps_{i, i}, maps_{i, i-1}, ..].

  The last layer has no attention by distance. No parameter depends on T, so
  the same parameters apply to prompts of any length: `model.clone(T=2 * T)`.

  There are two read-outs. `softmax` is that of the other models: the last layer
  copies the mean of the stream, h <- [h, map_1 h, ..], and f = softmax(h W).
  `mixture` averages laws in place of logits, as a Bayes predictor does,

    f_i = sum_h softmax(h_i G)_h sum_j (map_h)_ij softmax(h_j W_h).

  It is the mixture of softmaxes of Yang et al. (2018), with attention.

  Parameters: `A1` (H_1, d_0, d_0), `U1` (H_1, d_0, reach), `A2`, `U2`, ..,
  with d_0 = S + period and d_l = d_{l-1} + H_l (d_{l-1} + reach). With D the
  width before the last layer, `W` is ((1 + H_L) D, S); or, of a mixture,
  (H_L, D, S), with `G` (D, H_L) if the last layer has several heads.

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
    strict: whether the layers before the last attend to earlier positions only;
      the first position attends to itself. The stream has the own token anyway.
    read_out: `softmax` or `mixture`. In place of logits, a mixture has the
      weights of the heads of the last layer in `out`, `gate`: T x H_L with
      `every`, H_L without.
  """

  S: int
  T: int
  heads: tuple[int, ...]
  reach: int
  noise: float = 0.0
  every: bool = False
  period: int = 0
  strict: bool = False
  read_out: ReadOut = "softmax"

  def __post_init__(self):
    self.heads = tuple(self.heads)  # a module with a list has no hash
    if self.read_out not in READ_OUTS:
      raise ValueError(
        f"read_out must be one of {READ_OUTS}, got {self.read_out!r}"
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x_T: jax.Array) -> tuple[jax.Array, dict]:
    """(f_S, out) for the tokens of one prompt, or (f_TxS, out)."""
    sampling.check_tokens(x_T, self.S, self.T)
    causal_TxT = jnp.where(jnp.tri(self.T, dtype=bool), 0, -jnp.inf)
    itself_T = jnp.where(jnp.arange(self.T) > 0, -jnp.inf, 0)
    h_TxD = self._start(x_T)
    gauss, out, maps = nn.initializers.normal(self.noise), {}, []
    for layer, num_heads in enumerate(self.heads, start=1):
      h_TxD = self._with_copies(h_TxD, maps)
      D = h_TxD.shape[1]
      is_last = layer == len(self.heads)
      mask_TxT = causal_TxT
      if self.strict and not is_last:
        mask_TxT += jnp.diag(itself_T)
      A_HxDxD = self.param(f"A{layer}", gauss, (num_heads, D, D))
      U_HxDxR = self.param(f"U{layer}", gauss, (num_heads, D, self.reach))
      maps = [
        jax.nn.softmax(
          h_TxD @ A @ h_TxD.T + score_by_distance(h_TxD @ U) + mask_TxT
        )
        for A, U in zip(A_HxDxD, U_HxDxR, strict=True)
      ]
      out[f"attention_{layer}"] = jnp.stack(maps)
    if self.read_out == "mixture":
      f_TxS, out["gate"] = self._mixture(h_TxD, maps)
    else:
      width = (1 + len(maps)) * h_TxD.shape[1]
      W_DxS = self.param("W", nn.initializers.zeros, (width, self.S))
      out["logits_TxS"] = layers.read_out(h_TxD, maps, W_DxS)
      f_TxS = jax.nn.softmax(out["logits_TxS"])
    if self.every:
      return f_TxS, out
    last = f"attention_{len(self.heads)}"
    out[last] = out[last][:, -1]
    if "gate" in out:
      out["gate"] = out["gate"][-1]
    if "logits_TxS" in out:
      out["logits_S"] = out.pop("logits_TxS")[-1]
    return f_TxS[-1], out

  def streams(self, x_T: jax.Array, out: Mapping) -> list[jax.Array]:
    """The stream that each layer reads: T x d_0, .., T x d_{L-1}.

    Args:
      x_T: tokens.
      out: of the model for these tokens.
    """
    streams = [self._start(x_T)]
    for layer in range(1, len(self.heads)):
      maps = list(out[f"attention_{layer}"])
      streams.append(self._with_copies(streams[-1], maps))
    return streams

  def _start(self, x_T) -> jax.Array:
    """The tokens, and the place in an example if there is a period."""
    h_TxD = jax.nn.one_hot(x_T, self.S, dtype=jnp.result_type(float))
    if not self.period:
      return h_TxD
    place_T = jnp.arange(self.T) % self.period
    place_TxP = jax.nn.one_hot(place_T, self.period, dtype=h_TxD.dtype)
    return jnp.concatenate([h_TxD, place_TxP], axis=1)

  def _with_copies(self, h_TxD, maps) -> jax.Array:
    """The stream with what each head attends to."""
    copies = [
      part
      for att in maps
      for part in (att @ h_TxD, attention_by_distance(att, self.reach))
    ]
    return jnp.concatenate([h_TxD, *copies], axis=1)

  def _mixture(self, h_TxD, maps) -> tuple[jax.Array, jax.Array]:
    """The average law of the attended positions, and the weights of heads."""
    H, D = len(maps), h_TxD.shape[1]
    W_HxDxS = self.param("W", nn.initializers.zeros, (H, D, self.S))
    f_HxTxS = jnp.stack(maps) @ jax.nn.softmax(h_TxD @ W_HxDxS)
    gate_TxH = jnp.ones((self.T, 1))
    if H > 1:
      G_DxH = self.param("G", nn.initializers.zeros, (D, H))
      gate_TxH = jax.nn.softmax(h_TxD @ G_DxH)
    return jnp.einsum("th,hts->ts", gate_TxH, f_HxTxS), gate_TxH

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
    if self.read_out == "mixture":
      of_heads = np.asarray(params["W"])
      for head, W in enumerate(of_heads, start=1):
        title = "W" + f", head {head}" * (len(of_heads) > 1)
        matrices.append(blocks.read_out(title, W, rows))
      if "G" in params:
        gate = [("head", len(of_heads))]
        G = np.asarray(params["G"])
        matrices.append(blocks.ParameterBlock("G", G, rows, gate))
      return matrices
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
