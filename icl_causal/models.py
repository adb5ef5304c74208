"""Transformers that read a prompt and predict the law of the next token.

A model maps tokens to `(f_S, out)`. f_S is the predicted law of s_{T+1}; `out`
has `logits_S`, if the model has logits, and for each layer l the attention maps
`attention_l`, heads x T x T. The last layer is computed at the last position
only, so its maps are heads x T. With `every`, it is computed at each position:
its maps are heads x T x T, and row t of f_TxS and of `logits_TxS` predicts the
token after position t. Models take one prompt; the caller vmaps. In all
formulas, mask is the causal mask, which includes the diagonal.

Pass parameters to a compiled function as an argument. On a CPU, jaxlib 0.10.2
miscompiles attention whose parameters are a constant of equal entries, such as
a start of zeros that the function closes over: the numbers are wrong.
"""

import functools
from typing import Any, Literal, get_args

from flax import linen as nn
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import blocks
from icl_causal import layers
from icl_causal import mixes
from icl_causal import sampling
from icl_causal.reduced import Reduced as Reduced
from icl_causal.relative import READ_OUTS as READ_OUTS
from icl_causal.relative import Relative as Relative

Mlp = Literal["none", "of_attention", "residual"]
MLPS: tuple[Mlp, ...] = get_args(Mlp)


class _Layered(nn.Module):
  """Shared by models with several layers of heads and a softmax read-out."""

  S: int
  T: int
  heads: tuple[int, ...]
  read_out = "softmax"

  def __post_init__(self):
    self.heads = tuple(self.heads)  # a module with a list has no hash
    super().__post_init__()

  @property
  def first_layer_heads(self) -> int:
    """Heads of layer 1."""
    return self.heads[0]

  @property
  def map_entries(self) -> int:
    """Entries of the layer-1 maps per prompt."""
    return self.heads[0] * self.T**2


class Disentangled(_Layered):
  """The disentangled transformer: the residual stream is concatenated.

  x_i = [e_{s_i} ; e_i], of width d_0 = S + T. A layer with H heads computes
  h^(l) = [h^(l-1), attn(h^(l-1); A_1), .., attn(h^(l-1); A_H)], where
  attn(h; A) = softmax(mask(h A h^T)) h, so that d_l = (1 + H) d_{l-1}.
  f = softmax(W^T h^(L)_T). The stream is stored as `mixes`.

  Parameters: `A1` (H_1, d_0, d_0), `A2` (H_2, d_1, d_1), .., `W` (d_L, S).

  Attributes:
    S: states.
    T: positions.
    heads: of each layer.
    noise: initial standard deviation of A; the paper's for one parent is 0.
    beta0: for two layers, some blocks start at beta0 times the identity: in A2
      the block from the query's token to the token that head 1 of layer 1
      copies, and for any other head the block from the token that it copies at
      the query to the token that it copies elsewhere; in W the blocks of the
      tokens that layer 2 copies. This breaks the sign symmetry of the zero
      start, from which layer 1 may learn to attend to all positions but the
      parent, and the symmetry between heads. Ours, after Algorithm 1.
    every: whether to predict at every position.
  """

  noise: float = 0.0
  beta0: float = 0.0
  every: bool = False

  @nn.compact
  def __call__(self, x_T: jax.Array) -> tuple[jax.Array, dict]:
    """(f_S, out) for the tokens of one prompt, or (f_TxS, out)."""
    sampling.check_tokens(x_T, self.S, self.T, sampling.OTHER_LENGTHS)
    token_TxS = jax.nn.one_hot(x_T, self.S, dtype=jnp.result_type(float))
    mask_TxT = jnp.where(jnp.tri(self.T, dtype=bool), 0, -jnp.inf)
    if self.every:
      return self._at_every_position(token_TxS, mask_TxT)
    stream: list = [None]
    out = {}
    for layer, num_heads in enumerate(self.heads, start=1):
      width = len(stream) * (self.S + self.T)
      shape = (num_heads, width, width)
      A_HxDxD = self.param(f"A{layer}", self._start_A, shape, layer)
      own, maps = stream, []
      if layer == len(self.heads):
        own = [mixes.last(mix, self.T) for mix in stream]
        h_D = mixes.concatenated(own, token_TxS)
        for A_DxD in A_HxDxD:
          query = mixes.split(h_D @ A_DxD, token_TxS)
          score_T = mixes.scores(query, stream, token_TxS)
          maps.append(jax.nn.softmax(score_T))
      else:
        for A_DxD in A_HxDxD:
          query = mixes.projected(stream, A_DxD, x_T, token_TxS)
          score_TxT = mixes.scores(query, stream, token_TxS)
          maps.append(jax.nn.softmax(score_TxT + mask_TxT))
      copies = [mixes.compose(att, mix) for att in maps for mix in stream]
      stream = [*own, *copies]
      out[f"attention_{layer}"] = jnp.stack(maps)
    h_D = mixes.concatenated(stream, token_TxS)
    W_DxS = self.param("W", self._start_W, (h_D.size, self.S))
    out["logits_S"] = h_D @ W_DxS
    return jax.nn.softmax(out["logits_S"]), out

  def _at_every_position(self, token_TxS, mask_TxT):
    """(f_TxS, out); with all queries, the stream is faster than its mixes."""
    eye_TxT = jnp.eye(self.T, dtype=token_TxS.dtype)
    h_TxD = jnp.concatenate([token_TxS, eye_TxT], axis=1)
    out, maps = {}, []
    for layer, num_heads in enumerate(self.heads, start=1):
      h_TxD = jnp.concatenate([h_TxD, *(att @ h_TxD for att in maps)], axis=1)
      shape = (num_heads, h_TxD.shape[1], h_TxD.shape[1])
      A_HxDxD = self.param(f"A{layer}", self._start_A, shape, layer)
      maps = [jax.nn.softmax(h_TxD @ A @ h_TxD.T + mask_TxT) for A in A_HxDxD]
      out[f"attention_{layer}"] = jnp.stack(maps)
    width = (1 + len(maps)) * h_TxD.shape[1]
    W_DxS = self.param("W", self._start_W, (width, self.S))
    out["logits_TxS"] = layers.read_out(h_TxD, maps, W_DxS)
    return jax.nn.softmax(out["logits_TxS"]), out

  @property
  def start_scale(self) -> float:
    """The factor of `analysis.gradient.start_gradient` for this start."""
    return self.beta0**2  # blocks of A2 and of W start at beta0 * I

  def position_blocks(self, A1) -> np.ndarray:
    """The block of A1 between positions, H x T x T."""
    return np.asarray(A1)[:, self.S :, self.S :]

  def parameter_blocks(self, params: Any) -> list[blocks.ParameterBlock]:
    """The parameters as matrices with the blocks of the residual stream."""
    matrices = []
    for layer in range(1, len(self.heads) + 1):
      stream = blocks.of_stream(self.S, self.T, self.heads[: layer - 1])
      matrices += blocks.per_head(f"A{layer}", params[f"A{layer}"], stream)
    stream = blocks.of_stream(self.S, self.T, self.heads)
    return [*matrices, blocks.read_out("W", params["W"], stream)]

  def _start_A(self, key, shape, layer: int):
    A_HxDxD = self.noise * jax.random.normal(key, shape)
    if layer == 1 or not self.beta0:
      return A_HxDxD
    if len(self.heads) != 2:
      raise ValueError(f"beta0 is for two layers, got {len(self.heads)}")
    return layers.add_matching(A_HxDxD, self.beta0, self.S, self.heads)

  def _start_W(self, key, shape):
    del key
    W_DxS = jnp.zeros(shape)
    return layers.add_copying(W_DxS, self.beta0, self.heads)


class Standard(_Layered):
  """The standard transformer: the residual stream is added to.

  h_i = E_{s_i} + P_i, of width D. A layer with H heads adds
  sum_h softmax(mask(n A_h n^T)) n V_h, where n = h without norms.
  f = softmax(W^T n_T). The default is attention-only: no scaling, norm or MLP.

  Parameters: `E` (S, D), `P` (T, D), `A1` (H_1, D, D), `V1` (H_1, D, D), ..,
  `W` (D, S); with MLPs `mlp1_in`, `mlp1_out`, ..; with norms `norm1`, ..,
  `norm_out`, and `mlp1_norm`, .. for residual MLPs. E, P, V and the kernels of
  `mlp1_in`, .. start Gaussian with variance 1 / D; A, W, the kernels of
  `mlp1_out`, .. and all biases start at zero, unless an attribute changes it.

  Attributes:
    S: states.
    T: positions.
    heads: of each layer.
    width: D; the paper's is S + T.
    mlp: one hidden layer of D ReLUs. `none`; `of_attention`: applied to the sum
      over heads before it is added, as in the paper's code for figure 8;
      `residual`: reads the stream and adds to it, the usual form.
    norm: whether n = LayerNorm(h), for attention, a residual MLP and W.
    scaled: whether scores are divided by sqrt(D).
    orthonormal: whether E and P start as S + T orthonormal rows with a
      uniformly random orientation, so that no token or position overlaps with
      another. Needs D >= S + T.
    beta0: for heads (1, 1) and orthonormal embeddings. If not 0, A2 starts at
      beta0 E^T E V1, which matches the query's token with the token that layer
      1 copies, and W at beta0 (V2^T - I) E^T, which reads the tokens that layer
      2 copies minus the query's own. V1 and V2 start orthogonal, and MLPs pass
      on a part of their input (`layers.mlp`). As in `Disentangled`, this breaks
      the sign symmetry. Ours, after Algorithm 1.
    sinks: initial scores of each layer between the last position and itself, so
      that layer 2 attends to the query if nothing matches; () for zeros. Ours.
    scaled_biases: whether the biases of MLPs are multiplied by sqrt(D), as in
      the paper's code. Under Adam they then change sqrt(D) times as fast.
    every: whether to predict at every position.
  """

  width: int
  mlp: Mlp = "none"
  norm: bool = False
  scaled: bool = False
  orthonormal: bool = False
  beta0: float = 0.0
  sinks: tuple[float, ...] = ()
  scaled_biases: bool = False
  every: bool = False

  def __post_init__(self):
    if self.mlp not in MLPS:
      raise ValueError(f"mlp {self.mlp!r} must be one of {', '.join(MLPS)}")
    self.sinks = tuple(self.sinks)
    layers.check_start(self)
    super().__post_init__()

  @nn.compact
  def __call__(self, x_T: jax.Array) -> tuple[jax.Array, dict]:
    """(f_S, out) for the tokens of one prompt, or (f_TxS, out)."""
    sampling.check_tokens(x_T, self.S, self.T, sampling.OTHER_LENGTHS)
    D = self.width
    gauss = nn.initializers.normal(D**-0.5)
    if self.orthonormal:
      E_SxD = self.param("E", layers.orthonormal, (self.S, D))
      P_TxD = self.param("P", layers.orthonormal_to, E_SxD, self.T)
    else:
      E_SxD = self.param("E", gauss, (self.S, D))
      P_TxD = self.param("P", gauss, (self.T, D))
    h = jax.nn.one_hot(x_T, self.S, dtype=E_SxD.dtype) @ E_SxD + P_TxD
    mask = jnp.where(jnp.tri(self.T, dtype=bool), 0, -jnp.inf)
    scale = D**-0.5 if self.scaled else 1.0
    start_V = layers.orthonormal if self.beta0 else gauss
    sinks = self.sinks or (0.0,) * len(self.heads)
    out, V_HxDxD = {}, None
    for layer, num_heads in enumerate(self.heads, start=1):
      shape = (num_heads, D, D)
      start_A = functools.partial(layers.start_A, self.beta0, sinks[layer - 1])
      A_HxDxD = self.param(f"A{layer}", start_A, shape, E_SxD, P_TxD, V_HxDxD)
      V_HxDxD = self.param(f"V{layer}", start_V, shape)
      queries = keys_TxD = self._normed(h, f"norm{layer}")
      if layer == len(self.heads) and not self.every:
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
    W_DxS = self.param("W", layers.start_W, self.beta0, E_SxD, V_HxDxD)
    logits = self._normed(h, "norm_out") @ W_DxS
    out["logits_TxS" if self.every else "logits_S"] = logits
    return jax.nn.softmax(logits), out

  @property
  def map_entries(self) -> int:
    """Entries of the layer-1 maps and of the stream per prompt."""
    return super().map_entries + self.T * self.width

  def parameter_blocks(self, params: Any) -> list[blocks.ParameterBlock]:
    """Layer-1 scores and logits of the embeddings, without norms."""
    stream = blocks.of_stream(self.S, self.T, ())
    M = np.concatenate([params["E"], params["P"]])
    scores = np.stack([M @ A_DxD @ M.T for A_DxD in np.asarray(params["A1"])])
    return [
      *blocks.per_head("E A1 E^T", scores, stream),
      blocks.read_out("E W", M @ np.asarray(params["W"]), stream),
    ]

  def _normed(self, h, name: str):
    return nn.LayerNorm(name=name)(h) if self.norm else h

  def _mlp(self, h, name: str):
    bias_scale = self.width**0.5 if self.scaled_biases else 1.0
    return layers.mlp(h, name, bias_scale, passes=bool(self.beta0))
