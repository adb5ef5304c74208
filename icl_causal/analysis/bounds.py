"""Bounds on the error of graph recovery from N prompts with known kernels.

Three closed forms beside the best possible method (`likelihood_score`): what
its error is at most and at least, by the Bhattacharyya affinity of two parents,
and at least, by Fano's inequality. An error is the probability that a parent,
uniform on the positions j < i, is not found. Ours. Not traceable, except
`parent_information`.
"""

import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal.graphs import Graph

_BISECTIONS = 60


def most_error(B_TxT, graph: Graph, num_prompts_N) -> np.ndarray:
  """What the error of the best possible method is at most, by Bhattacharyya.

  With the affinity B of two parents (`information.bhattacharyya`, averaged over
  kernels) and N prompts with known kernels,

    error of the edge (i, p) <= sum_{j < i, j != p} B_pj^N,

  and it is at most 1 - 1 / i, that of a guess.

  Args:
    B_TxT: the mean over kernels.
    graph: with single parents.
    num_prompts_N: the numbers N.

  Returns:
    N x E, in the order of `graphs.edges`.
  """
  B_TxT = np.minimum(np.asarray(B_TxT, np.float64), 1)
  N = np.asarray(num_prompts_N, float)[:, None]
  errors = [
    np.minimum((np.delete(B_TxT[p, :i], p) ** N).sum(axis=1), 1 - 1 / i)
    for i, p in graphs.edges(graph)
  ]
  return np.reshape(errors, (-1, len(N))).T


def least_error(B_TxT, graph: Graph, num_prompts_N) -> np.ndarray:
  """What the error of any method is at least, by Bhattacharyya.

  For two parents j and k of a position, the error at j and the error at k sum
  to at least 2 e_jk = 1 - sqrt(1 - B_jk^(2N)), as for two hypotheses. Sum over
  j and k = f(j), where f permutes the candidates without a fixed point: every
  candidate occurs twice, so with a parent uniform on the i candidates

    error >= max_f (1 / i) sum_j e_jf(j).

  It is a bound on the mean over parents. For a single parent there is none: a
  method that always guesses it has no error, so max_j B_pj^(2N) / 4 is no bound
  on the error of the edge (i, p).

  Args:
    B_TxT: the mean over kernels.
    graph: with single parents.
    num_prompts_N: the numbers N.

  Returns:
    N x E, in the order of `graphs.edges`; 0 with one candidate.
  """
  from scipy import optimize  # slow to import

  B_TxT = np.minimum(np.asarray(B_TxT, np.float64), 1)
  errors = np.zeros((len(num_prompts_N), len(graphs.edges(graph))))
  for n, N in enumerate(num_prompts_N):
    e_TxT = (1 - np.sqrt(1 - B_TxT ** (2 * N))) / 2
    np.fill_diagonal(e_TxT, -len(e_TxT))
    for e, (i, _) in enumerate(graphs.edges(graph)):
      if i > 1:
        best = optimize.linear_sum_assignment(-e_TxT[:i, :i])
        errors[n, e] = e_TxT[best].sum() / i
  return errors


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
    is_low = most < left_NxE
    low, high = np.where(is_low, x, low), np.where(is_low, high, x)
  return np.where(left_NxE > 0, high, 0.0)
