"""Information between the tokens of a prompt, exact and estimated.

The kernel is new in every sequence and so a common cause of all its tokens.
Conditional information is that given the kernel, averaged over kernels; it is
what the gradient of the first layer encodes. Pooled information is that of
tokens whose kernels are not known apart, where even independent roots look
dependent. Every function here says which of the two it gives.

Matrices are T x T with row i for the token s_i and column j for a candidate
s_j to be its parent. All information is in nats, but for chi-squared, which
has no unit: I_chi2(X; Y) = sum P(x,y)^2 / (P(x) P(y)) - 1.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np

from icl_causal import graphs
from icl_causal import sampling
from icl_causal.graphs import Graph
from icl_causal.priors import Prior

Kind = Literal["shannon", "chi2"]

_MAX_SEQUENCES = 2**20
_MAX_ENTRIES = 2**22


class Violation(NamedTuple):
  """A pair that has more information than the path between it can carry.

  Attributes:
    pair: positions (i, j), j < i.
    information: of the pair.
    bound: the least information of an edge on its path; 0 without a path.
  """

  pair: tuple[int, int]
  information: float
  bound: float


def pair_laws(graph: Graph, kernel) -> jax.Array:
  """P(s_i = s, s_j = t | kernel) for every pair of positions, exactly.

  With single parents the forest is walked once: the law of (i, j) is that of
  (p(i), j) pushed through the kernel, and two roots are independent. With
  several parents all sequences are enumerated, so that the graph has to be
  small. A last position without parents is the uniform query. Ours.

  Args:
    graph: over T positions.
    kernel: (S+1,)*K + (S,).

  Returns:
    P_TxTxSxS, indexed [i, j, s, t]; on the diagonal the laws of single tokens.

  Raises:
    ValueError: for several parents and more than 2**20 sequences.
  """
  T, K = graph.parents_TxK.shape
  S = kernel.shape[-1]
  chex.assert_shape(kernel, (S + 1,) * K + (S,))
  walk = _walk_forest if K == 1 else _enumerate
  return walk(graph, kernel.reshape(-1, S), T, S)


def shannon(P_TxTxSxS) -> jax.Array:
  """Mutual information in nats of every pair law; the entropies diagonally."""
  chex.assert_rank(P_TxTxSxS, 4)
  P_i, P_j = _marginals(P_TxTxSxS)
  joint = special.xlogy(P_TxTxSxS, P_TxTxSxS)
  apart = special.xlogy(P_TxTxSxS, P_i) + special.xlogy(P_TxTxSxS, P_j)
  return (joint - apart).sum(axis=(2, 3))


def chi2(P_TxTxSxS) -> jax.Array:
  """Chi-squared information of every pair law: sum P(s|t) P(t|s) - 1.

  On the diagonal, the number of possible states less one.
  """
  chex.assert_rank(P_TxTxSxS, 4)
  P_i, P_j = _marginals(P_TxTxSxS)
  # A product of the marginals would underflow where both states are rare.
  return (_ratio(P_TxTxSxS, P_i) * _ratio(P_TxTxSxS, P_j)).sum((2, 3)) - 1


def gradient_score(
  graph: Graph,
  kernel,
  epsilon=0.0,
  read_out: Literal["linear", "softmax"] = "linear",
) -> jax.Array:
  """What the gradient at the start sees of each pair, given the kernel.

  R_ij = sum P(s_j = s, s_i = s') pi(s'|s) / (mu(s') + epsilon) - 1, where mu is
  the law of a token at a random position, for a stationary root law that of the
  kernel. At the parent, and with epsilon 0, it is the chi-squared information.
  That is for a linear read-out; through a softmax the states are not weighed,
  R_ij = sum P(s_j = s, s_i = s') pi(s'|s). Ours, after the key lemma of the
  paper; see `start_gradient`.

  Args:
    graph: of Task 2.4: single parents, the last position the query.
    kernel: (S+1, S).
    epsilon: of the loss; of use for the linear read-out alone.
    read_out: of the model, `linear` for the reduced one.

  Returns:
    R_TxT for j <= i, elsewhere 0. The row of the query, which this does not
    describe, is 0.
  """
  P_TxTxSxS = pair_laws(graph, kernel)
  T, S = P_TxTxSxS.shape[0], P_TxTxSxS.shape[-1]
  chex.assert_shape(kernel, (S + 1, S))
  if read_out not in ("linear", "softmax"):
    raise ValueError(f"read_out is 'linear' or 'softmax', got {read_out!r}")
  weights_SxS, offset = kernel[:S], 0
  if read_out == "linear":
    mu_S = jnp.einsum("iiss->is", P_TxTxSxS)[:-1].mean(axis=0) + epsilon
    weights_SxS = _ratio(weights_SxS, jnp.broadcast_to(mu_S, (S, S)))
    offset = 1
  R_TxT = jnp.einsum("ijts,st->ij", P_TxTxSxS, weights_SxS) - offset
  return jnp.where(jnp.tri(T, dtype=bool), R_TxT, 0).at[-1].set(0)


def start_gradient(R_TxT, scale, S: int) -> jax.Array:
  """The descent direction of A1 at the start that a gradient score predicts.

  For the reduced model at A1 = 0 and A2 = beta_0 I, to first order in beta_0
  and for large T, with i counted from 1,
  -dL/dA1_ij = beta_0 / (T i S) * (E R_ij - mean_{k <= i} E R_ik). Ours.

  Args:
    R_TxT: the score, averaged over the prior.
    scale: beta_0; for a disentangled model that starts from `matching`, with a
      softmax for its read-out, matching**2.
    S: number of states.

  Returns:
    T x T, 0 for j > i.
  """
  chex.assert_rank(R_TxT, 2)
  T = R_TxT.shape[0]
  mask_TxT = jnp.tri(T, dtype=bool)
  rows_Tx1 = jnp.arange(1, T + 1)[:, None]
  mean_Tx1 = jnp.where(mask_TxT, R_TxT, 0).sum(1, keepdims=True) / rows_Tx1
  centred_TxT = jnp.where(mask_TxT, R_TxT - mean_Tx1, 0)
  return scale / (T * S) * centred_TxT / rows_Tx1


def expected(
  key,
  graph: Graph,
  prior: Prior,
  S: int,
  kind: Kind | Literal["gradient_score"] | Callable[..., jax.Array],
  num_kernels: int,
) -> tuple[jax.Array, jax.Array]:
  """Conditional information, exact on each kernel, averaged over the prior.

  Args:
    key: of the kernels.
    graph: over T positions.
    prior: (key, S, K) -> kernel.
    S: number of states.
    kind: `shannon`, `chi2` or `gradient_score`, or any (graph, kernel) -> TxT.
    num_kernels: to average over; at least 2.

  Returns:
    (I_TxT, standard_error_TxT).
  """
  if callable(kind):
    measure = kind
  elif kind == "gradient_score":
    measure = gradient_score
  else:
    matrix = _matrix(kind)

    def measure(graph, kernel):
      return matrix(pair_laws(graph, kernel))

  T, K = graph.parents_TxK.shape

  def one(key):
    return measure(graph, prior(key, S, K))

  keys = jax.random.split(key, num_kernels)
  side_by_side = max(1, _MAX_ENTRIES // (T * S) ** 2)
  return _mean_and_error(
    jax.lax.map(one, keys, batch_size=min(side_by_side, num_kernels))
  )


def estimate(x_NxT, S: int, kind: Kind, correct: bool = True) -> jax.Array:
  """Plug-in information of tokens, pooled over sequences.

  From sequences of one kernel this estimates the information given that
  kernel. From sequences with a kernel each it does not: then every pair of
  tokens depends through the kernel, an edge or not.

  Args:
    x_NxT: tokens of N sequences, fewer than 2**24.
    S: number of states.
    kind: `shannon` or `chi2`.
    correct: subtracts the bias of first order in 1/N, for `shannon` after
      Miller and Madow.

  Returns:
    I_TxT.
  """
  chex.assert_rank(x_NxT, 2)
  N = x_NxT.shape[0]
  token_NxTxS = jax.nn.one_hot(x_NxT, S, dtype=jnp.result_type(float))
  counts = jnp.einsum("nis,njt->ijst", token_NxTxS, token_NxTxS)
  P_TxTxSxS = counts / N
  I_TxT = _matrix(kind)(P_TxTxSxS)
  if not correct:
    return I_TxT
  bias = _shannon_bias if kind == "shannon" else _chi2_bias
  return I_TxT - bias(P_TxTxSxS) / N


def estimate_conditional(
  x_RxNxT, S: int, kind: Kind, correct: bool = True
) -> tuple[jax.Array, jax.Array]:
  """Plug-in information given the kernel, averaged over R kernels.

  Args:
    x_RxNxT: tokens of N sequences from each of R >= 2 kernels.
    S: number of states.
    kind: `shannon` or `chi2`.
    correct: subtracts the bias of first order in 1/N, for each kernel.

  Returns:
    (I_TxT, standard_error_TxT), the error that of a mean over kernels.
  """
  chex.assert_rank(x_RxNxT, 3)
  return _mean_and_error(
    jax.lax.map(lambda x_NxT: estimate(x_NxT, S, kind, correct), x_RxNxT)
  )


def estimate_gradient_score(
  x_NxT, kernel_N, epsilon=0.0
) -> tuple[jax.Array, jax.Array]:
  """The gradient score from sequences with a known kernel each; conditional.

  The mean of pi(s_i | s_j) / (mu(s_i) + epsilon) - 1, unbiased for E R_ij where
  the root law is stationary: one sequence of a kernel is enough. Without
  epsilon a rare state can make a term as large as 1 / mu, and a mean of many
  such terms be far off.

  Args:
    x_NxT: tokens of N >= 2 sequences.
    kernel_N: N x (S+1) x S, their kernels.
    epsilon: as in `gradient_score`.

  Returns:
    (R_TxT, standard_error_TxT), of j <= i and without the query's row, as in
    `gradient_score`.
  """
  chex.assert_rank([x_NxT, kernel_N], [2, 3])

  def one(x_T, kernel):
    S = kernel.shape[-1]
    mu_SxS = jnp.broadcast_to(kernel[S] + epsilon, (S, S))
    ratio_SxS = _ratio(kernel[:S], mu_SxS)
    R_TxT = ratio_SxS[x_T[None, :], x_T[:, None]] - 1
    return jnp.where(jnp.tri(len(x_T), dtype=bool), R_TxT, 0).at[-1].set(0)

  return _mean_and_error(jax.vmap(one)(x_NxT, kernel_N))


def permutation_null(
  key, x_RxNxT, S: int, kind: Kind, num_permutations: int
) -> jax.Array:
  """Row maxima of the conditional estimate where tokens depend on nothing.

  Each position's tokens are permuted among the sequences of a kernel, which
  leaves their laws given the kernel and nothing else. A row whose largest
  entry is under a high quantile of these maxima has no parent.

  Args:
    key: of the permutations.
    x_RxNxT: tokens of N sequences from each of R kernels.
    S: number of states.
    kind: `shannon` or `chi2`, corrected for bias.
    num_permutations: M.

  Returns:
    max_MxT: of each row i over j < i; -inf for row 0.
  """
  chex.assert_rank(x_RxNxT, 3)
  T = x_RxNxT.shape[2]

  def one(key):
    permuted = jax.random.permutation(key, x_RxNxT, axis=1, independent=True)
    I_TxT = jax.lax.map(lambda x_NxT: estimate(x_NxT, S, kind), permuted)
    return _earlier(I_TxT.mean(axis=0), T).max(axis=1)

  return jax.lax.map(one, jax.random.split(key, num_permutations))


def bottleneck(I_TxT, graph: Graph) -> np.ndarray:
  """The least information of an edge on the path of each pair.

  By the data-processing inequality no pair of a forest has more, given the
  kernel or on average over kernels. Not traceable.

  Args:
    I_TxT: of which the entries (child, parent) are read.
    graph: with single parents.

  Returns:
    Symmetric T x T: infinite on the diagonal, 0 between different trees.

  Raises:
    ValueError: for a graph of several parents.
  """
  I_TxT, parents_TxK = np.asarray(I_TxT), np.asarray(graph.parents_TxK)
  T, K = parents_TxK.shape
  if K != 1:
    raise ValueError(f"paths are of forests, got up to {K} parents")
  bound_TxT = np.zeros((T, T))
  for i, parent in enumerate(parents_TxK[:, 0]):
    if parent != graphs.NO_PARENT:
      bound_TxT[i] = np.minimum(bound_TxT[parent], I_TxT[i, parent])
      bound_TxT[:, i] = bound_TxT[i]
    bound_TxT[i, i] = np.inf
  return bound_TxT


def data_processing_violations(
  I_TxT, graph: Graph, tolerance: float
) -> list[Violation]:
  """The pairs that break the data-processing inequality; not traceable.

  Args:
    I_TxT: Shannon or chi-squared, conditional on the kernel.
    graph: with single parents.
    tolerance: by which a pair may exceed its bound, for rounding or noise.

  Returns:
    The violations, the largest excess first.
  """
  information_TxT = np.asarray(I_TxT)
  bound_TxT = bottleneck(I_TxT, graph)
  excess_TxT = np.tril(information_TxT - bound_TxT, -1)
  found = [
    Violation((int(i), int(j)), float(information_TxT[i, j]), float(bound))
    for i, j in np.argwhere(excess_TxT > tolerance)
    for bound in [bound_TxT[i, j]]
  ]
  return sorted(found, key=lambda v: v.bound - v.information)


def _walk_forest(graph: Graph, rows_MxS, T: int, S: int):
  uniform_S = jnp.full((S,), 1 / S, rows_MxS.dtype)
  positions = jnp.arange(T)

  def visit(carry, node):
    # P holds the pairs (i, j) with j <= i: one row is written in each step.
    P, laws_TxS = carry
    i, parent = node
    root_S = jnp.where(i == T - 1, uniform_S, rows_MxS[S])
    with_parent_TxSxS = jnp.where(
      (positions <= parent)[:, None, None],
      P[parent],
      P[:, parent].swapaxes(1, 2),
    )
    row_TxSxS = jnp.where(
      parent < 0,
      root_S[None, :, None] * laws_TxS[:, None, :],
      jnp.einsum("us,jut->jst", rows_MxS[:S], with_parent_TxSxS),
    )
    law_S = jnp.where(parent < 0, root_S, laws_TxS[parent] @ rows_MxS[:S])
    row_TxSxS = row_TxSxS.at[i].set(jnp.diag(law_S))
    return (P.at[i].set(row_TxSxS), laws_TxS.at[i].set(law_S)), None

  start = (
    jnp.zeros((T, T, S, S), rows_MxS.dtype),
    jnp.zeros((T, S), rows_MxS.dtype),
  )
  nodes = (positions, graph.parents_TxK[:, 0])
  (P, _), _ = jax.lax.scan(visit, start, nodes)
  lower = jnp.tri(T, dtype=bool)[:, :, None, None]
  return jnp.where(lower, P, P.transpose(1, 0, 3, 2))


def _enumerate(graph: Graph, rows_MxS, T: int, S: int):
  if S**T > _MAX_SEQUENCES:
    raise ValueError(
      f"several parents: all S**T sequences are enumerated, at most 2**20, got "
      f"{S}**{T}"
    )
  x_NxT = jnp.indices((S,) * T).reshape(T, -1).T

  def probability(x_T):
    row_T = jax.vmap(lambda p_K: sampling.table_row(x_T, p_K, S))(
      graph.parents_TxK
    )
    law_TxS = rows_MxS[row_T]
    is_query = (graph.parents_TxK[-1] < 0).all()
    law_TxS = law_TxS.at[-1].set(jnp.where(is_query, 1 / S, law_TxS[-1]))
    return law_TxS[jnp.arange(T), x_T].prod()

  token_NxTxS = jax.nn.one_hot(x_NxT, S, dtype=rows_MxS.dtype)
  weighted = jax.vmap(probability)(x_NxT)[:, None, None] * token_NxTxS
  return jnp.einsum("nis,njt->ijst", weighted, token_NxTxS)


def _matrix(kind: str):
  matrices = {"shannon": shannon, "chi2": chi2}
  if kind not in matrices:
    raise ValueError(f"kind must be 'shannon' or 'chi2', got {kind!r}")
  return matrices[kind]


def _marginals(P_TxTxSxS):
  """P(s_i = s) and P(s_j = t) of each pair, in the shape of the pair law."""
  P_i = P_TxTxSxS.sum(axis=3, keepdims=True)
  P_j = P_TxTxSxS.sum(axis=2, keepdims=True)
  shape = P_TxTxSxS.shape
  return jnp.broadcast_to(P_i, shape), jnp.broadcast_to(P_j, shape)


def _shannon_bias(P_TxTxSxS):
  """N times the bias: half of the cells seen, less the margins', plus one."""
  seen = (P_TxTxSxS > 0).astype(P_TxTxSxS.dtype)
  margins = seen.max(axis=3).sum(axis=2) + seen.max(axis=2).sum(axis=2)
  return (seen.sum(axis=(2, 3)) - margins + 1) / 2


def _chi2_bias(P_TxTxSxS):
  """N times the bias to first order, half of sum P(s,t) d^2 I / d P(s,t)^2.

  The mixed derivatives drop out, since scaling all of P does not change I.
  """
  P_i, P_j = _marginals(P_TxTxSxS)
  t_given_s, s_given_t = _ratio(P_TxTxSxS, P_i), _ratio(P_TxTxSxS, P_j)
  lift = _ratio(t_given_s, P_j)
  return (lift * (1 - t_given_s) * (1 - s_given_t)).sum(axis=(2, 3))


def _mean_and_error(values_NxTxT):
  N = values_NxTxT.shape[0]
  if N < 2:
    raise ValueError(f"a standard error needs at least 2 samples, got {N}")
  mean = values_NxTxT.mean(axis=0)
  return mean, values_NxTxT.std(axis=0, ddof=1) / N**0.5


def _earlier(I_TxT, T: int):
  return jnp.where(jnp.tri(T, k=-1, dtype=bool), I_TxT, -jnp.inf)


def _ratio(numerator, denominator):
  """Their ratio, and 0 where the denominator is 0."""
  safe = jnp.where(denominator > 0, denominator, 1)
  return jnp.where(denominator > 0, numerator / safe, 0)
