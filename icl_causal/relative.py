"""A disentangled transformer that knows distances, not positions."""

from flax import linen as nn
import jax
from jax import numpy as jnp

from icl_causal import blocks
from icl_causal import sampling


class Relative(nn.Module):
  """The disentangled transformer with relative positions in every layer (ours).

  The stream starts as the one-hot tokens, without positions. Layer l has
  d_l = (1 + H_l) d_{l-1} entries, as in `models.Disentangled`, with d_0 = S,
  and attn(h; A, w) = softmax(mask(h A h^T + w_{i-j})) h. No parameter depends
  on T, so the same parameters apply to prompts of any length:
  `model.clone(T=2 * T)`.

  Parameters: `A1` (H_1, d_0, d_0), `w1` (H_1, reach), `A2`, `w2`, .., `W`
  (d_L, S).

  Attributes:
    S: states.
    T: positions.
    heads: of each layer.
    reach: number of distances 0, 1, .. with a score of their own; larger
      distances have the score of the last one.
    noise: initial standard deviation of A and w.
    every: whether to predict at every position.
  """

  S: int
  T: int
  heads: tuple[int, ...]
  reach: int
  noise: float = 0.0
  every: bool = False
  read_out = "softmax"

  def __post_init__(self):
    self.heads = tuple(self.heads)  # a module with a list has no hash
    super().__post_init__()

  @nn.compact
  def __call__(self, x_T: jax.Array) -> tuple[jax.Array, dict]:
    """(f_S, out) for the tokens of one prompt, or (f_TxS, out)."""
    sampling.check_tokens(x_T, self.S, self.T)
    distance_TxT = jnp.arange(self.T)[:, None] - jnp.arange(self.T)[None]
    mask_TxT = jnp.where(distance_TxT >= 0, 0, -jnp.inf)
    distance_TxT = jnp.clip(distance_TxT, 0, self.reach - 1)
    h_TxD = jax.nn.one_hot(x_T, self.S, dtype=jnp.result_type(float))
    gauss, out = nn.initializers.normal(self.noise), {}
    for layer, num_heads in enumerate(self.heads, start=1):
      shape = (num_heads, h_TxD.shape[1], h_TxD.shape[1])
      A_HxDxD = self.param(f"A{layer}", gauss, shape)
      w_HxN = self.param(f"w{layer}", gauss, (num_heads, self.reach))
      rows = slice(None)
      if layer == len(self.heads) and not self.every:
        rows = slice(-1, None)
      maps_HxTxT = jax.nn.softmax(
        h_TxD[rows] @ A_HxDxD @ h_TxD.T
        + w_HxN[:, distance_TxT[rows]]
        + mask_TxT[None, rows]
      )
      copies = [att @ h_TxD for att in maps_HxTxT]
      h_TxD = jnp.concatenate([h_TxD[rows], *copies], axis=1)
      out[f"attention_{layer}"] = maps_HxTxT
    W_DxS = self.param("W", nn.initializers.zeros, (h_TxD.shape[1], self.S))
    if self.every:
      out["logits_TxS"] = h_TxD @ W_DxS
      return jax.nn.softmax(out["logits_TxS"]), out
    out[f"attention_{len(self.heads)}"] = maps_HxTxT[:, 0]
    out["logits_S"] = h_TxD[0] @ W_DxS
    return jax.nn.softmax(out["logits_S"]), out

  @property
  def first_layer_heads(self) -> int:
    """Heads of layer 1."""
    return self.heads[0]

  @property
  def map_entries(self) -> int:
    """Entries of the layer-1 maps per prompt."""
    return self.heads[0] * self.T**2

  def parameter_blocks(self, params) -> list[blocks.ParameterBlock]:
    """The parameters as matrices; w as one row per head."""
    matrices = []
    for layer, num_heads in enumerate(self.heads, start=1):
      stream = blocks.of_tokens(self.S, self.heads[: layer - 1])
      matrices += blocks.per_head(f"A{layer}", params[f"A{layer}"], stream)
      matrices.append(
        blocks.ParameterBlock(
          f"w{layer}",
          params[f"w{layer}"],
          [("head", num_heads)],
          [("distance", self.reach)],
        )
      )
    stream = blocks.of_tokens(self.S, self.heads)
    return [*matrices, blocks.read_out("W", params["W"], stream)]
