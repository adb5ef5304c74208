"""Sample complexity: how many prompts a method needs to find the edges.

The share of edges against the number of prompts N, and its prediction from
moments; `bounds` has what no method can do better. A method is an additive
score, T x T for one prompt and summed over prompts, with the row argmax over
j < i. Ours.
"""

from typing import NamedTuple

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special
from jax.scipy import stats
import numpy as np

from icl_causal.graphs import Graph

_STEPS = 6  # of Newton's method
_SMALL = 1e-3  # a margin without a sign, for which the saddlepoint is 0


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
  weights_RxG = _resamples(edges_G, num_resamples)
  found_R = _found(weights_RxG, hits_GxN, edges_G, num_prompts_N, level)
  largest = float(num_prompts_N[-1])
  error = np.where(np.isnan(found_R), largest, found_R)[1:].std()
  return _checked(found_R[0], error)


def largest_z(hits_GxN, best_GxN, edges_G) -> tuple[float, int]:
  """How far a method is above another one, on the same prompts and graphs.

  Returns:
    (z, n): the largest difference of the shares in standard errors over graphs,
    and the index n of its number of prompts. 0 if all differences are 0.
  """
  edges_G = np.asarray(edges_G)
  change_GxN = np.asarray(hits_GxN) - np.asarray(best_GxN)
  mean_N, error_N = share(change_GxN, edges_G)
  z_N = mean_N / np.where(error_N > 0, error_N, 1)
  without_error_N = (error_N == 0) & (mean_N != 0)
  z_N[without_error_N] = np.copysign(np.inf, mean_N[without_error_N])
  return float(z_N.max()), int(z_N.argmax())


def share(hits_GxN, edges_G) -> tuple[np.ndarray, np.ndarray]:
  """The share of all edges, and its standard error over graphs, at each N."""
  hits_GxN, edges_G = np.asarray(hits_GxN, float), np.asarray(edges_G)
  num = len(edges_G)
  mean_N = hits_GxN.sum(axis=0) / edges_G.sum()
  rest_GxN = hits_GxN - mean_N * edges_G[:, None]
  squares_N = (rest_GxN**2).sum(axis=0) * num / max(num - 1, 1)
  return mean_N, np.sqrt(squares_N) / edges_G.sum()


def factor(
  hits_GxN, other_GxN, edges_G, num_prompts_N, level: float, num_resamples=400
) -> Needed:
  """The ratio of what two methods need on the same prompts.

  Args:
    hits_GxN: number of edges that the first method finds.
    other_GxN: the same of the second.
    edges_G: as for `needed`, and so are the other arguments.
    num_prompts_N: increasing.
    level: such as .9.
    num_resamples: of the graphs.

  Returns:
    The prompts of the first over those of the second, and the standard error,
    over resamples in which both reach the level. NaN if one of them does not,
    or has the least N already.
  """
  weights_RxG = _resamples(edges_G, num_resamples)
  first_R, second_R = (
    _found(weights_RxG, of_GxN, edges_G, num_prompts_N, level)
    for of_GxN in (hits_GxN, other_GxN)
  )
  if min(first_R[0], second_R[0]) <= num_prompts_N[0]:
    return Needed(float("nan"), float("nan"))
  ratio_R = first_R / second_R
  both_R = ratio_R[~np.isnan(ratio_R)]
  return _checked(ratio_R[0], both_R.std() if both_R.size else np.nan)


def _resamples(edges_G, num: int):
  """How often each graph is in a resample; the first has each graph once."""
  num_graphs = len(edges_G)
  rng = np.random.default_rng(0)
  drawn_RxG = rng.multinomial(num_graphs, [1 / num_graphs] * num_graphs, num)
  drawn_RxG = drawn_RxG[drawn_RxG @ np.asarray(edges_G) > 0]
  return np.concatenate([np.ones((1, num_graphs)), drawn_RxG])


def _found(weights_RxG, hits_GxN, edges_G, num_prompts_N, level: float):
  total_Rx1 = (weights_RxG @ np.asarray(edges_G))[:, None]
  share_RxN = weights_RxG @ np.asarray(hits_GxN) / total_Rx1
  found = [crossing(share_N, num_prompts_N, level) for share_N in share_RxN]
  return np.array(found)


def _checked(value, error) -> Needed:
  if np.isnan(value):
    error = value
  return Needed(float(value), float(error))


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


class Margins(NamedTuple):
  """The margins of the parent over its rivals j in one row, for one prompt.

  Attributes:
    mean_T: of the parent's score minus that of j, in standard deviations; 0 if
      j is no rival.
    saddle: `Saddle` of each margin.
    basis_TxT: independent standard normals times this are jointly normal with
      the correlations of the margins.
    is_rival_T: whether j is a candidate other than the parent.
  """

  mean_T: jax.Array
  saddle: "Saddle"
  basis_TxT: jax.Array
  is_rival_T: jax.Array


class Saddle(NamedTuple):
  """The saddlepoint of a variable d at 0: K(t) = log E exp(t d) is least at t.

  Attributes:
    w: sign(t) sqrt(-2 K(t)); exp(-N w^2 / 2) is the rate at which the
      probability that a sum of N is on the other side of 0 falls.
    u: t sqrt(K''(t)).
  """

  w: jax.Array
  u: jax.Array


class Shares(NamedTuple):
  """Predicted probability that a row argmax is the parent, after M prompts.

  Attributes:
    normal_TxM: if margins are jointly normal.
    saddlepoint_TxM: if each is as likely to be negative as by its saddlepoint,
      with normal dependence.
    union_TxM: 1 - sum_j P(margin j < 0) for normal margins, at least 0.
  """

  normal_TxM: jax.Array
  saddlepoint_TxM: jax.Array
  union_TxM: jax.Array


def predicted_shares(
  key, score_NxTxT, graph: Graph, num_prompts_M, num_draws: int
) -> Shares:
  """P(the row argmax is the parent) after M prompts, from moments.

  The margins g_ip - g_ij of a row, summed over M prompts, are taken as jointly
  normal, with M times the mean and covariance of one prompt. Draws give P(all
  margins > 0). The saddlepoint approximation has the same correlations and
  P(margin < 0) = Phi(z_j), with the level z_j of `saddlepoint_level`: exact
  rates at large M, while the normal law has only the first two moments.

  Args:
    key: of the draws.
    score_NxTxT: of N prompts, independent of those that are predicted.
    graph: with single parents.
    num_prompts_M: the numbers M.
    num_draws: from the normal law.

  Returns:
    Shares, 0 for positions without a parent.
  """
  chex.assert_rank(score_NxTxT, 3)
  T = score_NxTxT.shape[1]
  root_M = jnp.sqrt(jnp.asarray(num_prompts_M, score_NxTxT.dtype))
  noise_DxT = jax.random.normal(key, (num_draws, T))

  def of_row(row):
    margins = _margins(*row)
    is_rival_T = margins.is_rival_T
    draws_DxT = noise_DxT @ margins.basis_TxT.T

    def after(root):
      normal_T = -root * margins.mean_T
      small_T = jnp.abs(margins.saddle.w) < _SMALL
      saddle_T = saddlepoint_level(margins.saddle, root)
      normal, saddlepoint = (
        (draws_DxT > jnp.where(is_rival_T, z_T, -jnp.inf)[None, :])
        .all(axis=1)
        .mean()
        for z_T in (normal_T, jnp.where(small_T, normal_T, saddle_T))
      )
      errors_T = jnp.where(is_rival_T, stats.norm.cdf(normal_T), 0)
      union = jnp.maximum(1 - errors_T.sum(), 0)
      return Shares(normal, saddlepoint, union)

    shares_M = jax.lax.map(after, root_M)
    return jax.tree.map(lambda a_M: jnp.where(row[2] < 0, 0, a_M), shares_M)

  rows = score_NxTxT.swapaxes(0, 1), jnp.arange(T), graph.parents_TxK[:, 0]
  return jax.lax.map(of_row, rows)


def saddlepoint_level(saddle: Saddle, root) -> jax.Array:
  """z with P(sum of N < 0) = Phi(z), after Barndorff-Nielsen (1986).

  z = r + log(u / w) / r, r = sqrt(N) w; for normal variables u = w, and it is
  exact. Not defined at w = 0.

  Args:
    saddle: of one variable.
    root: sqrt(N).
  """
  w = jnp.where(saddle.w == 0, 1, saddle.w)
  u = jnp.where(saddle.u == 0, 1, saddle.u)
  return root * saddle.w + jnp.log(u / w) / (root * w)


def saddlepoint(d_NxT) -> Saddle:
  """The saddlepoint of each column, over samples with variance 1 or 0.

  Newton's method for t from -4 to 1, with bisection where it leaves the
  bounds. Without a negative sample t is -4.
  """
  N, T = d_NxT.shape

  def moments(t_T):
    weight_NxT = jax.nn.softmax(d_NxT * t_T[None, :], axis=0)
    mean_T = (weight_NxT * d_NxT).sum(axis=0)
    return mean_T, (weight_NxT * d_NxT**2).sum(axis=0) - mean_T**2

  def step(_, carry):
    t_T, low_T, high_T = carry
    mean_T, variance_T = moments(t_T)
    low_T = jnp.where(mean_T > 0, low_T, t_T)
    high_T = jnp.where(mean_T > 0, t_T, high_T)
    newton_T = t_T - mean_T / jnp.where(variance_T > 0, variance_T, 1)
    is_inside_T = (low_T <= newton_T) & (newton_T <= high_T)
    t_T = jnp.where(is_inside_T, newton_T, (low_T + high_T) / 2)
    return t_T, low_T, high_T

  low_T, high_T = jnp.full(T, -4.0), jnp.full(T, 1.0)
  start_T = jnp.clip(-d_NxT.mean(axis=0), low_T, high_T)
  t_T, _, _ = jax.lax.fori_loop(0, _STEPS, step, (start_T, low_T, high_T))
  K_T = special.logsumexp(d_NxT * t_T[None, :], axis=0) - jnp.log(N)
  spread_T = jnp.sqrt(jnp.maximum(moments(t_T)[1], 0))
  w_T = jnp.sign(t_T) * jnp.sqrt(jnp.maximum(-2 * K_T, 0))
  return Saddle(w_T, t_T * spread_T)


def _margins(score_NxT, i, parent) -> Margins:
  T = score_NxT.shape[1]
  is_rival_T = (jnp.arange(T) < i) & (jnp.arange(T) != parent)
  margin_NxT = score_NxT[:, parent, None] - score_NxT
  margin_NxT = jnp.where(is_rival_T[None, :], margin_NxT, 0)
  deviation_T = margin_NxT.std(axis=0)
  unit_NxT = margin_NxT / jnp.where(deviation_T > 0, deviation_T, 1)[None, :]
  mean_T = unit_NxT.mean(axis=0)
  centred_NxT = unit_NxT - mean_T[None, :]
  variance_T, vectors_TxT = jnp.linalg.eigh(
    centred_NxT.T @ centred_NxT / len(unit_NxT)
  )
  basis_TxT = vectors_TxT * jnp.sqrt(jnp.maximum(variance_T, 0))[None, :]
  return Margins(mean_T, saddlepoint(unit_NxT), basis_TxT, is_rival_T)
