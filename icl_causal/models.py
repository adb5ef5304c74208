"""Transformers that read a prompt and predict the law of the next token.

A model maps tokens to `(f_S, out)`: f_S is the predicted law of s_{T+1}, and
`out` names what led to it: `logits_S` where there are any, and for each layer l
the map `attention_l`, of shape heads x T x T. Of the last layer only the last
position is read, so its map is that row alone, heads x T. Models are written
for one prompt; the caller vmaps.
"""

from collections.abc import Sequence
from typing import Literal

from flax import linen as nn
import jax
from jax import numpy as jnp
import numpy as np

# A block of the residual stream is the one-hot input, mixed over positions by
# a product of attention maps: a matrix Q x T, or None for the identity.
Mix = jax.Array | None


class Reduced(nn.Module):
  """The model of the theory: A1 over positions, A2 over tokens, nothing else.

  f = X^T softmax(softmax(mask(A1)) X A2^T x_T), where X is T x S, the one-hot
  tokens, and x_T the last of them. The mask is causal and includes the
  diagonal. Layer 1 copies tokens to where they are the parents of, layer 2
  attends to the copies that match the query, and f is the mean of the tokens
  attended to: a law without a softmax, whose entries may be 0, so that a loss
  needs its epsilon. A1 starts at zero, A2 at `matching` times the identity,
  the beta_0 of Algorithm 1.

  With `heads` there is an A1 and an A2 for each slot of several parents, and
  the query is what the last row of layer 1 copied, the target's parents:
  f = X^T softmax(sum_h C_h A2_h^T c_h), with C_h = softmax(mask(A1_h)) X and
  c_h its last row (ours, after section 6.2).

  Parameters: `A1` (T, T), `A2` (S, S); with heads (H, T, T), (H, S, S).

  Attributes:
    S: states.
    T: positions.
    matching: the multiple of the identity that A2 starts from.
    heads: of layer 1, or 0 for the form of a single parent.
  """

  S: int
  T: int
  matching: float = 0.0
  heads: int = 0

  @nn.compact
  def __call__(self, x_T: jax.Array) -> tuple[jax.Array, dict]:
    """(f_S, out) for the tokens of one prompt; `out` has no logits."""
    _check_tokens(x_T, self.T)
    token_TxS = jax.nn.one_hot(x_T, self.S, dtype=jnp.result_type(float))
    slots = (self.heads,) if self.heads else ()
    A1 = self.param("A1", nn.initializers.zeros, (*slots, self.T, self.T))
    A2 = self.param("A2", self._start_A2, (*slots, self.S, self.S))
    mask_TxT = jnp.where(jnp.tri(self.T, dtype=bool), 0, -jnp.inf)
    if not self.heads:
      maps = [jax.nn.softmax(A1 + mask_TxT)]
      scores_T = maps[0] @ (token_TxS @ (token_TxS[-1] @ A2))
    else:
      maps = [jax.nn.softmax(A1_TxT + mask_TxT) for A1_TxT in A1]
      scores_T = sum(
        copy_TxT @ (token_TxS @ (copy_TxT[-1] @ token_TxS @ A2_SxS))
        for copy_TxT, A2_SxS in zip(maps, A2, strict=True)
      )
    match_T = jax.nn.softmax(jnp.asarray(scores_T))
    out = {"attention_1": jnp.stack(maps), "attention_2": match_T[None]}
    return match_T @ token_TxS, out

  def _start_A2(self, key, shape):
    del key
    return jnp.broadcast_to(self.matching * jnp.eye(self.S), shape)


class Disentangled(nn.Module):
  """The disentangled transformer: the residual stream is concatenated.

  x_i = [e_{s_i} ; e_i], of width d_0 = S + T. A layer with H heads computes
  h^(l) = [h^(l-1), attn(h^(l-1); A_1), .., attn(h^(l-1); A_H)], where
  attn(h; A) = softmax(mask(h A h^T)) h, so that d_l = (1 + H) d_{l-1}. The
  mask is causal and includes the diagonal. f = softmax(W^T h^(L)_T).

  Only the mixes of the blocks are computed: neither the one-hots nor, in the
  last layer, any position but the last is multiplied out.

  Parameters: `A1` (H_1, d_0, d_0), `A2` (H_2, d_1, d_1), .., `W` (d_L, S).

  Attributes:
    S: states.
    T: positions.
    heads: of each layer.
    noise: standard deviation of the entries of every A at the start; the
      paper's single-parent experiments have 0.
    matching: for two layers, the multiple of the identity that some blocks
      start from: A2's from the query's token to the token that the first head
      of layer 1 copies, and from what any other head copies there to what it
      copies elsewhere; and W's from each token that layer 2 copies. It breaks
      the sign symmetry of the zero start, from which layer 1 may learn to
      attend to all but the parent, and with several heads their symmetry. Ours,
      after the start beta_0 I of Algorithm 1.
  """

  S: int
  T: int
  heads: tuple[int, ...]
  noise: float = 0.0
  matching: float = 0.0

  @nn.compact
  def __call__(self, x_T: jax.Array) -> tuple[jax.Array, dict]:
    """(f_S, out) for the tokens of one prompt."""
    _check_tokens(x_T, self.T)
    token_TxS = jax.nn.one_hot(x_T, self.S, dtype=jnp.result_type(float))
    mask_TxT = jnp.where(jnp.tri(self.T, dtype=bool), 0, -jnp.inf)
    mixes: list = [None]
    out = {}
    for layer, num_heads in enumerate(self.heads, start=1):
      width = len(mixes) * (self.S + self.T)
      shape = (num_heads, width, width)
      A_HxDxD = self.param(f"A{layer}", self._start_A, shape, layer)
      queries, mask = mixes, mask_TxT
      if layer == len(self.heads):
        queries, mask = [_last(mix, self.T) for mix in mixes], mask[-1]
      maps = [
        jax.nn.softmax(_scores(A, queries, mixes, x_T, token_TxS) + mask)
        for A in A_HxDxD
      ]
      copies = [_compose(att, mix) for att in maps for mix in mixes]
      mixes = [*queries, *copies]
      out[f"attention_{layer}"] = jnp.stack(maps)
    h_D = jnp.concatenate([h for mix in mixes for h in (mix @ token_TxS, mix)])
    W_DxS = self.param("W", self._start_W, (h_D.size, self.S))
    out["logits_S"] = h_D @ W_DxS
    return jax.nn.softmax(out["logits_S"]), out

  def _start_A(self, key, shape, layer: int):
    A_HxDxD = self.noise * jax.random.normal(key, shape)
    if layer == 1 or not self.matching:
      return A_HxDxD
    if len(self.heads) != 2:
      raise ValueError(
        f"the matching start is for two layers, got {len(self.heads)}"
      )
    blocks = (1 + self.heads[0], self.S + self.T)
    A = A_HxDxD.reshape(-1, *blocks, *blocks)
    for copy in range(1, blocks[0]):
      query = 0 if copy == 1 else copy
      block = (slice(None), query, slice(self.S), copy, slice(self.S))
      A = A.at[block].add(self.matching * jnp.eye(self.S))
    return A.reshape(shape)

  def _start_W(self, key, shape):
    del key
    W_DxS = jnp.zeros(shape)
    if not self.matching:
      return W_DxS
    blocks = (1 + self.heads[1], 1 + self.heads[0], self.S + self.T)
    eye = self.matching * jnp.eye(self.S)[None]
    W = W_DxS.reshape(*blocks, self.S)
    return W.at[1:, 0, : self.S].add(eye).reshape(shape)


class Standard(nn.Module):
  """The standard transformer: the residual stream is added to.

  h_i = E_{s_i} + P_i, of width D. A layer with H heads adds
  sum_h softmax(mask(n A_h n^T)) n V_h, where n is h itself. The mask is causal
  and includes the diagonal, and f = softmax(W^T h_T). By default that is all:
  the attention-only transformer, without scaling, norm, bias or MLP.

  Parameters: `E` (S, D), `P` (T, D), `A1` (H_1, D, D), `V1` (H_1, D, D), ..,
  `W` (D, S). Every A and W starts at zero, the others are Gaussian with
  variance 1 / D. With an MLP, `mlp1_in`, `mlp1_out`, ..: the first is Gaussian
  likewise, the second and both biases start at zero. With norms, `norm1`, ..,
  `norm_out`, and `mlp1_norm`, .. where there is a residual MLP.

  Attributes:
    S: states.
    T: positions.
    heads: of each layer.
    width: D; the paper's is S + T.
    mlp: `none`; `of_attention`: what a layer adds goes through an MLP first, a
      hidden layer of D ReLUs, as in the paper's code for figure 8; or
      `residual`: the MLP reads the stream and adds to it, the usual form.
    norm: whether n = LayerNorm(h), for the attention, a residual MLP and W.
    scaled: whether scores are divided by sqrt(D).
    orthonormal: whether E and P start as S + T orthonormal rows, in a uniformly
      random direction, so that no token or position starts with a share in
      another. Needs a width of S + T or more.
  """

  S: int
  T: int
  heads: tuple[int, ...]
  width: int
  mlp: Literal["none", "of_attention", "residual"] = "none"
  norm: bool = False
  scaled: bool = False
  orthonormal: bool = False

  @nn.compact
  def __call__(self, x_T: jax.Array) -> tuple[jax.Array, dict]:
    """(f_S, out) for the tokens of one prompt."""
    _check_tokens(x_T, self.T)
    D = self.width
    zeros, gauss = nn.initializers.zeros, nn.initializers.normal(D**-0.5)
    if self.orthonormal:
      E_SxD = self.param("E", nn.initializers.orthogonal(), (self.S, D))
      P_TxD = self.param("P", _orthonormal_to, E_SxD, self.T)
    else:
      E_SxD = self.param("E", gauss, (self.S, D))
      P_TxD = self.param("P", gauss, (self.T, D))
    h = jax.nn.one_hot(x_T, self.S, dtype=E_SxD.dtype) @ E_SxD + P_TxD
    mask = jnp.where(jnp.tri(self.T, dtype=bool), 0, -jnp.inf)
    scale = D**-0.5 if self.scaled else 1.0
    out = {}
    for layer, num_heads in enumerate(self.heads, start=1):
      A_HxDxD = self.param(f"A{layer}", zeros, (num_heads, D, D))
      V_HxDxD = self.param(f"V{layer}", gauss, (num_heads, D, D))
      queries = keys_TxD = self._normed(h, f"norm{layer}")
      if layer == len(self.heads):
        queries, h, mask = keys_TxD[-1], h[-1], mask[-1]
      maps = [
        jax.nn.softmax(scale * (queries @ A_DxD @ keys_TxD.T) + mask)
        for A_DxD in A_HxDxD
      ]
      copies = [
        att @ keys_TxD @ V_DxD for att, V_DxD in zip(maps, V_HxDxD, strict=True)
      ]
      change = sum(copies[1:], copies[0])
      if self.mlp == "of_attention":
        change = self._mlp(change, f"mlp{layer}")
      h = h + change
      if self.mlp == "residual":
        h = h + self._mlp(self._normed(h, f"mlp{layer}_norm"), f"mlp{layer}")
      out[f"attention_{layer}"] = jnp.stack(maps)
    W_DxS = self.param("W", zeros, (D, self.S))
    out["logits_S"] = self._normed(h, "norm_out") @ W_DxS
    return jax.nn.softmax(out["logits_S"]), out

  def _normed(self, h, name: str):
    return nn.LayerNorm(name=name)(h) if self.norm else h

  def _mlp(self, h, name: str):
    gauss = nn.initializers.normal(self.width**-0.5)
    hidden = nn.Dense(self.width, kernel_init=gauss, name=f"{name}_in")(h)
    zeros = nn.initializers.zeros
    return nn.Dense(self.width, kernel_init=zeros, name=f"{name}_out")(
      nn.relu(hidden)
    )


def _orthonormal_to(key, E_SxD, T: int):
  """T rows, orthonormal to one another and to those of E, else random."""
  S, D = E_SxD.shape
  if S + T > D:
    raise ValueError(
      f"a width of {D} has no room for {S} + {T} orthonormal embeddings"
    )
  others_TxD = jax.random.normal(key, (T, D), E_SxD.dtype)
  Q_DxR, R_RxR = jnp.linalg.qr(jnp.concatenate([E_SxD, others_TxD]).T)
  return (Q_DxR * jnp.sign(jnp.diagonal(R_RxR))[None])[:, S:].T


def _check_tokens(x_T, T: int):
  if x_T.shape != (T,):
    raise ValueError(f"expected {T} tokens, got shape {x_T.shape}")


def _scores(A_DxD, queries: Sequence[Mix], keys: Sequence[Mix], x_T, token_TxS):
  """h_Q A h_T^T, where the blocks of h_Q and h_T are given as mixes.

  Query mixes are Q x T, or of shape T for a single query, as is the result.
  """
  T, S = token_TxS.shape
  ends = np.cumsum([S, T] * len(keys))[:-1]
  projected = []
  for mix, A in zip(queries, jnp.split(A_DxD, len(queries)), strict=True):
    if mix is None:  # rows are fetched from small parts, not large rows parted
      parts = [a[:S][x_T] + a[S:] for a in jnp.split(A, ends, axis=1)]
    else:
      parts = jnp.split((mix @ token_TxS) @ A[:S] + mix @ A[S:], ends, -1)
    projected.append(parts)
  q = [sum(parts[1:], parts[0]) for parts in zip(*projected, strict=True)]
  scores = []
  for mix, q_token, q_position in zip(keys, q[::2], q[1::2], strict=True):
    score = q_token @ token_TxS.T + q_position
    scores.append(score if mix is None else score @ mix.T)
  return sum(scores[1:], scores[0])


def _compose(att: jax.Array, mix: Mix) -> jax.Array:
  return att if mix is None else att @ mix


def _last(mix: Mix, T: int) -> jax.Array:
  return jnp.eye(T)[-1] if mix is None else mix[-1]
