"""Sample complexity: how many prompts a method needs to find the edges.

Curves of the share of edges against the number of prompts N, their predictions
and their bounds. A method is an additive score (T x T for one prompt, summed
over prompts) with the row argmax over j < i. Ours.
"""

from typing import NamedTuple

import chex
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal.graphs import Graph

_BISECTIONS = 60


class Needed(NamedTuple):
  """The number of prompts at which a share is reached.

  Attributes:
    prompts: interpolated in log N; NaN if the share is not reached.
    error: standard error over graphs; NaN without `prompts`.
  """

  prompts: float
  error: float


def hits(score_TxT, graph: Graph) -> jax.Array:
  """For each position, the probability that the row argmax is the parent.

  It is 0 or 1 without ties, and 1 / m if the parent is one of m top entries
  j < i, of which one is chosen at random. 0 for positions without a parent.
  """
  chex.assert_rank([score_TxT, graph.parents_TxK], 2)
  T = score_TxT.shape[0]
  parents_T = graph.parents_TxK[:, 0]
  masked_TxT = jnp.where(jnp.tri(T, k=-1, dtype=bool), score_TxT, -jnp.inf)
  top_Tx1 = masked_TxT.max(axis=1, keepdims=True)
  is_top_TxT = masked_TxT == top_Tx1
  is_hit_T = is_top_TxT[jnp.arange(T), parents_T] & (parents_T >= 0)
  return is_hit_T / is_top_TxT.sum(axis=1)


def needed(
  hits_GxN, edges_G, num_prompts_N, level: float, num_resamples: int = 400
) -> Needed:
  """The number of prompts from which on the share of edges is `level` or more.

  The share is that of all edges of G graphs. The edges of a graph depend on the
  same prompts, and so do the shares at different N, so the standard error is
  that of the bootstrap over graphs. A resample that does not reach the level
  counts as the largest N.

  Args:
    hits_GxN: number of edges found, for each graph and number of prompts.
    edges_G: number of edges.
    num_prompts_N: increasing.
    level: such as .9.
    num_resamples: of the graphs.
  """
  hits_GxN, edges_G = np.asarray(hits_GxN), np.asarray(edges_G)
  N = np.asarray(num_prompts_N, float)
  prompts = crossing(hits_GxN.sum(axis=0) / edges_G.sum(), N, level)
  if np.isnan(prompts):
    return Needed(prompts, prompts)
  rng = np.random.default_rng(0)
  num_graphs = len(edges_G)
  weights_RxG = rng.multinomial(
    num_graphs, np.full(num_graphs, 1 / num_graphs), num_resamples
  )
  total_R = weights_RxG @ edges_G
  shares_RxN = (weights_RxG @ hits_GxN)[total_R > 0]
  shares_RxN = shares_RxN / total_R[total_R > 0, None]
  found_R = np.array([crossing(share_N, N, level) for share_N in shares_RxN])
  error = np.where(np.isnan(found_R), N[-1], found_R).std()
  return Needed(prompts, float(error))


def crossing(share_N, num_prompts_N, level: float) -> float:
  """Where a curve reaches a level for good, interpolated in log N.

  The least N if the whole curve is above it; NaN if the last point is below.
  """
  below = np.flatnonzero(np.asarray(share_N) < level - 1e-9)
  if not below.size:
    return float(num_prompts_N[0])
  last = below[-1]
  if last + 1 == len(share_N):
    return float("nan")
  low, high = share_N[last], share_N[last + 1]
  part = (level - low) / (high - low)
  logs = np.log(np.asarray(num_prompts_N[last : last + 2], float))
  return float(np.exp(logs[0] + part * (logs[1] - logs[0])))


def normal_shares(
  key, score_NxTxT, graph: Graph, num_prompts_M, num_draws: int
) -> tuple[jax.Array, jax.Array]:
  """P(the row argmax is the parent) after M prompts, for normal margins.

  The margins g_ip - g_ij of a row, summed over M prompts, are taken as jointly
  normal, with M times the mean and covariance of one prompt. Draws from that
  law give P(all margins > 0). The union over competitors,
  1 - sum_j Phi(-sqrt(M) mean_j / deviation_j), is a lower bound on it.

  Args:
    key: of the draws.
    score_NxTxT: of N prompts, independent of those that are predicted.
    graph: with single parents.
    num_prompts_M: the numbers M.
    num_draws: from the normal law.

  Returns:
    (share_TxM, union_TxM), 0 for positions without a parent.
  """
  chex.assert_rank(score_NxTxT, 3)
  N, T, _ = score_NxTxT.shape
  root_M = jnp.sqrt(jnp.asarray(num_prompts_M, score_NxTxT.dtype))
  noise_DxT = jax.random.normal(key, (num_draws, T))

  def of_row(row):
    score_NxT, i, parent = row
    margin_NxT = score_NxT[:, parent, None] - score_NxT
    is_rival_T = (jnp.arange(T) < i) & (jnp.arange(T) != parent)
    mean_T = jnp.where(is_rival_T, margin_NxT.mean(axis=0), 0)
    centred_NxT = jnp.where(is_rival_T, margin_NxT - mean_T, 0)
    variance_T, basis_TxT = jnp.linalg.eigh(centred_NxT.T @ centred_NxT / N)
    deviation_T = jnp.sqrt(jnp.maximum(variance_T, 0))
    draws_DxT = (noise_DxT * deviation_T) @ basis_TxT.T
    low_D, high_D = _range(draws_DxT, mean_T, is_rival_T)
    all_MxD = (root_M[:, None] > low_D) & (root_M[:, None] < high_D)
    single_T = jnp.sqrt((centred_NxT**2).mean(axis=0))
    z_MxT = root_M[:, None] * mean_T / jnp.where(single_T > 0, single_T, 1)
    errors_MxT = jax.scipy.stats.norm.cdf(-z_MxT)
    union_M = 1 - jnp.where(is_rival_T, errors_MxT, 0).sum(axis=1)
    shares = all_MxD.mean(axis=1), jnp.maximum(union_M, 0)
    return jax.tree.map(lambda a_M: jnp.where(parent < 0, 0, a_M), shares)

  rows = score_NxTxT.swapaxes(0, 1), jnp.arange(T), graph.parents_TxK[:, 0]
  return jax.lax.map(of_row, rows)


def _range(draws_DxT, mean_T, is_rival_T):
  """The roots of M between which sqrt(M) * mean + draw > 0 for all rivals."""
  ratio_DxT = -draws_DxT / jnp.where(mean_T != 0, mean_T, 1)
  rises_T, falls_T = is_rival_T & (mean_T > 0), is_rival_T & (mean_T < 0)
  low_D = jnp.where(rises_T, ratio_DxT, 0).max(axis=1)
  high_D = jnp.where(falls_T, ratio_DxT, jnp.inf).min(axis=1)
  never_D = (is_rival_T & (mean_T == 0) & (draws_DxT <= 0)).any(axis=1)
  return low_D, jnp.where(never_D, -1, high_D)


def pair_bounds(B_TxT, graph: Graph, num_prompts_N):
  """Bounds on the error of the best possible method, by Bhattacharyya.

  With B_pj the affinity of two parents (`information.bhattacharyya`, averaged
  over kernels) and N prompts, for a position with the parent p,

    error <= sum_{j != p} B_pj^N,
    error >= mean_{j != p} (1 - sqrt(1 - B_pj^(2N))) / 2.

  The first holds for each parent p. The second holds on average over p, uniform
  on the candidates, and for any method: the errors at p and at j sum to at
  least 1 - sqrt(1 - B^(2N)), as for two hypotheses; average over all pairs. It
  does not hold with the maximum over j in place of the mean. Not traceable.

  Args:
    B_TxT: the mean over kernels.
    graph: with single parents.
    num_prompts_N: the numbers N.

  Returns:
    (most_NxE, least_NxE) for the edges in the order of `graphs.edges`; the most
    is at most that of a guess, 1 - 1 / i.
  """
  B_TxT = np.asarray(B_TxT, np.float64)
  N = np.asarray(num_prompts_N, float)[:, None]
  most, least = [], []
  for child, parent in graphs.edges(graph):
    rivals = np.delete(np.arange(child), parent)
    B_J = np.minimum(B_TxT[parent, rivals], 1)
    most.append(np.minimum((B_J**N).sum(axis=1), 1 - 1 / child))
    pair_NxJ = (1 - np.sqrt(1 - B_J ** (2 * N))) / 2
    least.append(pair_NxJ.sum(axis=1) / max(len(rivals), 1))
  return np.array(most).T, np.array(least).T


def parent_information(score_TxT, graph: Graph) -> jax.Array:
  """log P(s_i | p(i)) / P(s_i | a parent uniform on j < i), one prompt.

  Its mean over prompts and over parents uniform on j < i is the information of
  a prompt with its kernel about the parent, at most log i.

  Args:
    score_TxT: `likelihood.likelihood_score`.
    graph: with single parents.

  Returns:
    Nats for each position, 0 for those without a parent.
  """
  T = score_TxT.shape[0]
  parents_T = graph.parents_TxK[:, 0]
  masked_TxT = jnp.where(jnp.tri(T, k=-1, dtype=bool), score_TxT, -jnp.inf)
  log_TxT = jax.nn.log_softmax(masked_TxT.at[0, 0].set(0))
  gain_T = log_TxT[jnp.arange(T), parents_T] + jnp.log(
    jnp.maximum(jnp.arange(T), 1)
  )
  return jnp.where(parents_T < 0, 0, gain_T)


def fano(information_E, candidates_E, num_prompts_N) -> np.ndarray:
  """The least error that Fano's inequality allows, for each edge.

  N prompts have at most N times the information I of one about the parent. With
  i equally likely candidates, the error x of any method satisfies

    h(x) + x log(i - 1) >= log i - N I,  h(x) = -x log x - (1-x) log(1-x).

  Not traceable.

  Args:
    information_E: I in nats, the mean of `parent_information`.
    candidates_E: i, at least 1.
    num_prompts_N: the numbers N.

  Returns:
    N x E, 0 where the prompts could have log i nats.
  """
  i = np.asarray(candidates_E, float)[None]
  N = np.asarray(num_prompts_N, float)[:, None]
  left_NxE = np.log(i) - N * np.asarray(information_E, float)[None]
  low = np.zeros_like(left_NxE)
  high = np.broadcast_to(1 - 1 / i, left_NxE.shape)
  for _ in range(_BISECTIONS):
    x = (low + high) / 2
    safe = np.clip(x, 1e-300, 1 - 1e-16)
    most = -safe * np.log(safe) - (1 - safe) * np.log1p(-safe)
    most += safe * np.log(np.maximum(i - 1, 1))
    low, high = (
      np.where(most < left_NxE, x, low),
      np.where(most < left_NxE, high, x),
    )
  return np.where(left_NxE > 0, high, 0.0)
