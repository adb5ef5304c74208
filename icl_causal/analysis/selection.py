"""What a model does with a latent graph: evidence, posterior, attention.

For single parents and models that predict at every position. Row t of a map
belongs to the prediction of the token after position t, whose parent in graph m
is position q_m(t) (`graphs.next_parents`). All functions take one prompt.
"""

from typing import NamedTuple

import chex
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal.graphs import Graph

_NONE = 1e-10  # a variance below it is rounding


def next_parents(graphs_M: Graph) -> jax.Array:
  """q_m(t), M x T; -1 if the next token is a root."""
  chex.assert_rank(graphs_M.parents_TxK, 3)
  chex.assert_axis_dimension(graphs_M.parents_TxK, 2, 1)
  return jax.vmap(graphs.next_parents)(graphs_M)[..., 0]


def candidates(graphs_M: Graph) -> jax.Array:
  """Whether position j is a parent of the next token in any graph, T x T."""
  parents_MxT = next_parents(graphs_M)
  T = parents_MxT.shape[1]
  return jax.nn.one_hot(parents_MxT, T, dtype=bool).any(axis=0)


def parent_posterior(w_TxM, graphs_M: Graph) -> jax.Array:
  """The probability of each position to be the parent of the next token, T x T.

  A Bayes predictor for a known kernel that copies tokens, as the last layer
  does, attends with these weights.

  Args:
    w_TxM: the posterior of the graphs, `bayes.graph_posterior` with `every`.
    graphs_M: the graphs.
  """
  parents_MxT = next_parents(graphs_M)
  T = parents_MxT.shape[1]
  return jnp.einsum("tm,mtj->tj", w_TxM, jax.nn.one_hot(parents_MxT, T))


def successor_posterior(x_T, w_TxM, graphs_M: Graph) -> jax.Array:
  """The weights with which the counts of a new kernel average tokens, T x T.

  If the kernel is new in every prompt, the Bayes predictor counts the tokens
  whose parents are in the state of the next token's parent: position i <= t has
  the weight sum_m w_m 1{s_p(i) = s_q(t)} / n_m(t), where n_m(t) is the number
  of such positions, p(i) the parent of i and q(t) that of the next token, both
  in graph m. Rows without any are 0.

  Args:
    x_T: tokens.
    w_TxM: the posterior of the graphs.
    graphs_M: the graphs.
  """
  T = len(x_T)

  def of_graph(parents_T, next_T):
    parent_T = jnp.where(parents_T < 0, -1, x_T[parents_T])
    sought_T = jnp.where(next_T < 0, -2, x_T[next_T])
    is_match_TxT = sought_T[:, None] == parent_T[None]
    is_match_TxT &= jnp.tri(T, dtype=bool)
    count_Tx1 = is_match_TxT.sum(axis=1, keepdims=True)
    return is_match_TxT / jnp.maximum(count_Tx1, 1)

  share_MxTxT = jax.vmap(of_graph)(
    graphs_M.parents_TxK[..., 0], next_parents(graphs_M)
  )
  return jnp.einsum("tm,mti->ti", w_TxM, share_MxTxT)


def attention_on_graphs(attention_TxT, graphs_M: Graph) -> jax.Array:
  """The attention on the next token's parent in each graph, T x M."""
  parents_TxM = next_parents(graphs_M).T
  on_parent_TxM = jnp.take_along_axis(
    attention_TxT, jnp.maximum(parents_TxM, 0), axis=1
  )
  return jnp.where(parents_TxM < 0, 0, on_parent_TxM)


def evidence(first_HxTxT, second_GxQxT, graphs_M: Graph) -> jax.Array:
  """What layer 2 collects about each graph, H x G x Q x M.

  e_hgtm = sum_i a2_g(t, i) a1_h(i, p_m(i)): the attention of head h of layer 1
  on the parent that graph m gives to a position, averaged over the positions to
  which head g of layer 2 attends.

  Args:
    first_HxTxT: the maps of layer 1.
    second_GxQxT: rows of the maps of layer 2.
    graphs_M: the graphs.
  """
  parents_MxT = graphs_M.parents_TxK[..., 0]

  def on_parent(att_TxT):
    rows = jnp.arange(len(att_TxT))
    on_MxT = att_TxT[rows, jnp.maximum(parents_MxT, 0)]
    return jnp.where(parents_MxT < 0, 0, on_MxT)

  on_HxMxT = jax.vmap(on_parent)(first_HxTxT)
  return jnp.einsum("gqi,hmi->hgqm", second_GxQxT, on_HxMxT)


def contrasts(weights_TxT, mask_TxT, floor=1e-6) -> jax.Array:
  """Logarithms of weights minus their mean over the entries of the mask.

  Of a posterior, these are log-likelihoods up to what all candidates have in
  common. Entries outside of the mask are 0.

  Args:
    weights_TxT: along the last axis; a weight below `floor` counts as `floor`.
    mask_TxT: the candidates of each row.
    floor: the least weight.
  """
  log_TxT = jnp.where(mask_TxT, jnp.log(jnp.maximum(weights_TxT, floor)), 0)
  count_T = jnp.maximum(mask_TxT.sum(axis=-1), 1)
  mean_T = log_TxT.sum(axis=-1) / count_T
  return jnp.where(mask_TxT, log_TxT - mean_T[..., None], 0)


def linear_probe(h_NxD, y_NxC) -> float:
  """The share of variance of y that a linear function of h explains.

  Least squares on the first half of the samples, measured on the second. 0 is
  a constant; it may be negative.

  Args:
    h_NxD: features, such as the residual stream of N prompts.
    y_NxC: targets, such as log-likelihoods.

  Raises:
    ValueError: if the targets are constant.
  """
  h, y = np.asarray(h_NxD, float), np.asarray(y_NxC, float)
  half = len(h) // 2
  mean = y[:half].mean(axis=0)
  variance = ((y[half:] - mean) ** 2).sum()
  if variance <= _NONE * y[half:].size:
    raise ValueError("the targets of a probe must vary")
  features = np.concatenate([h, np.ones((len(h), 1))], axis=1)
  coefficients = np.linalg.lstsq(features[:half], y[:half])[0]
  rest = y[half:] - features[half:] @ coefficients
  return float(1 - (rest**2).sum() / variance)


class Moments(NamedTuple):
  """Sums over entries, by row, from which fits of y on x follow.

  Attributes:
    n: number of entries.
    x: their sum.
    y: their sum.
    xx: the sum of squares of x.
    yy: the sum of squares of y.
    xy: the sum of products.
  """

  n: jax.Array
  x: jax.Array
  y: jax.Array
  xx: jax.Array
  yy: jax.Array
  xy: jax.Array


def moments(x_TxT, y_TxT, mask_TxT) -> Moments:
  """The moments of each row over the entries of the mask."""
  x, y = jnp.where(mask_TxT, x_TxT, 0), jnp.where(mask_TxT, y_TxT, 0)
  sums = (mask_TxT.astype(x.dtype), x, y, x * x, y * y, x * y)
  return Moments(*(a.sum(axis=-1) for a in sums))


def slope_and_correlation(of: Moments) -> tuple[np.ndarray, np.ndarray]:
  """The least-squares slope of y on x, and Pearson's correlation.

  The slope is NaN where x is constant, the correlation where x or y is.
  """
  n, x, y, xx, yy, xy = (np.asarray(a, float) for a in of)
  with np.errstate(divide="ignore", invalid="ignore"):
    xx, yy, xy = xx - x * x / n, yy - y * y / n, xy - x * y / n
    slope = np.where(xx > _NONE * n, xy / xx, np.nan)
    has_both = (xx > _NONE * n) & (yy > _NONE * n)
    return slope, np.where(has_both, xy / np.sqrt(xx * yy), np.nan)
