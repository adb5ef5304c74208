"""The model of the theory, with a matrix for each of its two layers."""

from typing import Any

from flax import linen as nn
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import blocks
from icl_causal import sampling


class Reduced(nn.Module):
  """The model of the theory: A1 between positions, A2 between tokens.

  f = X^T softmax(softmax(mask(A1)) X A2^T x_T), where X is T x S, the one-hot
  tokens, and x_T its last row. Layer 1 copies parents to their children, layer
  2 attends to the copies that match the query, and f is the mean of the tokens,
  weighted by attention. There is no final softmax, so entries of f may be 0 and
  the loss needs its epsilon. A1 starts at zero, A2 as in Algorithm 1.

  With H = `heads` > 0 there is an A1 and an A2 for each parent slot, and the
  query is what the last row of layer 1 copies, the target's parents:
  f = X^T softmax(sum_h C_h A2_h^T c_h), with C_h = softmax(mask(A1_h)) X and
  c_h its last row (ours, after section 6.2).

  Parameters: `A1` (T, T), `A2` (S, S); with heads (H, T, T), (H, S, S).

  Attributes:
    S: states.
    T: positions.
    beta0: A2 starts at beta0 times the identity.
    heads: of layer 1; 0 for the single-parent form.
    every: whether to predict at every position.
  """

  S: int
  T: int
  beta0: float = 0.0
  heads: int = 0
  every: bool = False

  @nn.compact
  def __call__(self, x_T: jax.Array) -> tuple[jax.Array, dict]:
    """(f_S, out) for one prompt, or (f_TxS, out); `out` has no logits."""
    sampling.check_tokens(x_T, self.S, self.T, sampling.OTHER_LENGTHS)
    token_TxS = jax.nn.one_hot(x_T, self.S, dtype=jnp.result_type(float))
    slots = (self.heads,) if self.heads else ()
    A1 = self.param("A1", nn.initializers.zeros, (*slots, self.T, self.T))
    A2 = self.param("A2", self._start_A2, (*slots, self.S, self.S))
    mask_TxT = jnp.where(jnp.tri(self.T, dtype=bool), 0, -jnp.inf)
    if not self.heads:
      maps = [jax.nn.softmax(A1 + mask_TxT)]
      slots = [(maps[0], token_TxS if self.every else token_TxS[-1], A2)]
    else:
      maps = [jax.nn.softmax(A1_TxT + mask_TxT) for A1_TxT in A1]
      slots = [
        (copy_TxT, (copy_TxT if self.every else copy_TxT[-1]) @ token_TxS, A)
        for copy_TxT, A in zip(maps, A2, strict=True)
      ]
    # Each slot has the maps, the queries, of shape S or T x S, and its A2.
    scores = [
      copy_TxT @ (token_TxS @ (queries @ A).T) for copy_TxT, queries, A in slots
    ]
    scores = sum(scores[1:], scores[0])
    match = jax.nn.softmax(scores.T + mask_TxT if self.every else scores)
    out = {"attention_1": jnp.stack(maps), "attention_2": match[None]}
    return match @ token_TxS, out

  read_out = "linear"

  @property
  def first_layer_heads(self) -> int:
    """Heads of layer 1."""
    return self.heads or 1

  @property
  def map_entries(self) -> int:
    """Entries of the layer-1 maps per prompt; 0, prompts share one map."""
    return 0

  @property
  def start_scale(self) -> float:
    """The factor of `analysis.gradient.start_gradient` for this start."""
    return self.beta0

  def position_blocks(self, A1) -> np.ndarray:
    """The block of A1 between positions, H x T x T."""
    return np.asarray(A1).reshape(-1, self.T, self.T)

  def parameter_blocks(self, params: Any) -> list[blocks.ParameterBlock]:
    """The parameters as matrices; the model masks A1 above the diagonal."""
    A1, A2 = (
      np.asarray(params[name]).reshape(-1, *params[name].shape[-2:])
      for name in ("A1", "A2")
    )
    return [
      *blocks.per_head("A1", A1, [("position", self.T)]),
      *blocks.per_head("A2", A2, [("token", self.S)]),
    ]

  def _start_A2(self, key, shape):
    del key
    return jnp.broadcast_to(self.beta0 * jnp.eye(self.S), shape)
