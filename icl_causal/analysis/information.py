"""Exact information between the tokens of a prompt, given the kernel.

Every sequence has a new kernel, which is a common cause of all its tokens.
Conditional information is information given the kernel, averaged over kernels.
The gradient of the first layer encodes it. Everything in this module is
conditional; `estimators` has conditional and pooled estimates.

Matrices are T x T, with row i for the token s_i and column j for a candidate
parent s_j. Shannon information is in nats. Chi-squared information has no unit:
I_chi2(X; Y) = sum P(x,y)^2 / (P(x) P(y)) - 1.
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
from icl_causal import tokens
from icl_causal.analysis.guided import guided as guided
from icl_causal.analysis.guided import pair_likelihood as pair_likelihood
from icl_causal.graphs import Graph
from icl_causal.priors import Prior

_MAX_SEQUENCES = 2**20
_MAX_ENTRIES = 2**22


class Violation(NamedTuple):
  """A pair of positions that breaks the data-processing inequality.

  Attributes:
    pair: positions (i, j), j < i.
    information: of the pair.
    bound: the smallest information of an edge on the path between i and j; 0
      without a path.
  """

  pair: tuple[int, int]
  information: float
  bound: float


def pair_laws(graph: Graph, kernel) -> jax.Array:
  """P(s_i = s, s_j = t | kernel) for every pair of positions, exactly.

  With single parents, one pass over the forest: the law of (i, j) is the law of
  (p(i), j) pushed through the kernel, and two roots are independent. With
  several parents all sequences are enumerated, so the graph must be small. A
  last position without parents is the query, uniform on the states. Ours.

  Args:
    graph: over T positions.
    kernel: (S+1,)*K + (S,).

  Returns:
    P_TxTxSxS, indexed [i, j, s, t]; P[i, i] is diagonal, with the law of s_i.

  Raises:
    ValueError: with several parents, if there are more than 2**20 sequences.
  """
  T, K = graph.parents_TxK.shape
  S = kernel.shape[-1]
  chex.assert_shape(kernel, (S + 1,) * K + (S,))
  walk = _walk_forest if K == 1 else _enumerate
  return walk(graph, kernel.reshape(-1, S), T, S)


def shannon(P_TxTxSxS) -> jax.Array:
  """Mutual information in nats of every pair law; entropies on the diagonal."""
  chex.assert_rank(P_TxTxSxS, 4)
  P_i, P_j = marginals(P_TxTxSxS)
  joint = special.xlogy(P_TxTxSxS, P_TxTxSxS)
  product = special.xlogy(P_TxTxSxS, P_i) + special.xlogy(P_TxTxSxS, P_j)
  return (joint - product).sum(axis=(2, 3))


def chi2(P_TxTxSxS) -> jax.Array:
  """Chi-squared information of every pair law: sum P(s|t) P(t|s) - 1.

  The diagonal has the number of states of positive probability, minus one.
  """
  chex.assert_rank(P_TxTxSxS, 4)
  P_i, P_j = marginals(P_TxTxSxS)
  # The product of the marginals would underflow if both states are rare.
  return (ratio(P_TxTxSxS, P_i) * ratio(P_TxTxSxS, P_j)).sum((2, 3)) - 1


def shannon_of(graph: Graph, kernel) -> jax.Array:
  """Shannon information in nats of every pair given the kernel, exactly."""
  return shannon(pair_laws(graph, kernel))


def chi2_of(graph: Graph, kernel) -> jax.Array:
  """Chi-squared information of every pair given the kernel, exactly."""
  return chi2(pair_laws(graph, kernel))


def bhattacharyya(graph: Graph, kernel) -> jax.Array:
  """The affinity of the laws of a token under two parents, for each pair.

    B_jk = sum_ab P(s_j = a, s_k = b) sum_c sqrt(pi(c | a) pi(c | b)),

  the Bhattacharyya coefficient between the law of a prompt in which a later
  position has the parent j and that in which it has the parent k. It does not
  depend on the child. Averaged over kernels, it bounds the error of the best
  possible method from N prompts with known kernels (`bounds.most_error`,
  `bounds.least_error`). Ours.

  Args:
    graph: with single parents.
    kernel: (S+1, S).

  Returns:
    B_TxT, symmetric, from 0 to 1; 1 on the diagonal. The row of the query,
    which is no parent, has no meaning.
  """
  P_TxTxSxS = pair_laws(graph, kernel)
  S = P_TxTxSxS.shape[-1]
  chex.assert_shape(kernel, (S + 1, S))
  root_SxS = jnp.sqrt(kernel[:S])
  return jnp.einsum("jkab,ab->jk", P_TxTxSxS, root_SxS @ root_SxS.T)


def label_score(
  x_T,
  y_S,
  epsilon=0.0,
  read_out: Literal["linear", "softmax"] = "linear",
) -> jax.Array:
  """The term of one prompt in the gradient of layer 1, for small beta0.

  For a linear read-out, with p_s the share of the tokens that are s,

    g_ij = 1{s_j = s_T} (v_{s_i} - sum_s v_s p_s),  v_s = y_s / (p_s + epsilon).

  For a softmax read-out v = y. With g averaged over prompts, the loss of the
  reduced model at A2 = beta0 * I is, to first order in beta0 and for any A1,

    L = L_0 - beta0 / T * sum_ij a_ij E g_ij,  a = softmax(mask(A1)).

  As T grows, E g_ij approaches (E R_ij - c_i) / S, where R is
  `gradient.gradient_score` and c_i does not depend on j. Ours.

  Args:
    x_T: tokens.
    y_S: the target, soft or one-hot.
    epsilon: of the loss; used for a linear read-out only.
    read_out: the `read_out` of the model.

  Returns:
    g_TxT for j <= i, and 0 elsewhere.
  """
  gain_T, matches_T = label_factors(x_T, y_S, epsilon, read_out)
  return jnp.tril(gain_T[:, None] * matches_T[None, :])


def label_factors(
  x_T, y_S, epsilon=0.0, read_out: Literal["linear", "softmax"] = "linear"
) -> tuple[jax.Array, jax.Array]:
  """The two factors of `label_score`: g_ij = gain_i * matches_j.

  Args and errors are those of `label_score`.

  Returns:
    (gain_T, matches_T), with matches_j = 1{s_j = s_T}.
  """
  chex.assert_rank([x_T, y_S], 1)
  sampling.check_tokens(x_T, len(y_S))
  check_read_out(read_out)
  p_S = jax.nn.one_hot(x_T, len(y_S), dtype=y_S.dtype).mean(axis=0)
  v_S = ratio(y_S, p_S + epsilon) if read_out == "linear" else y_S
  return v_S[x_T] - v_S @ p_S, (x_T == x_T[-1]).astype(y_S.dtype)


def expected(
  key,
  graph: Graph,
  prior: Prior,
  S: int,
  measure: Callable[[Graph, jax.Array], jax.Array],
  num_kernels: int,
) -> tuple[jax.Array, jax.Array]:
  """Conditional information, exact on each kernel, averaged over the prior.

  Args:
    key: of the kernels.
    graph: over T positions.
    prior: (key, S, K) -> kernel.
    S: number of states.
    measure: (graph, kernel) -> T x T, such as `shannon_of`, `chi2_of` or
      `gradient.gradient_score`.
    num_kernels: number of kernels, at least 2.

  Returns:
    (I_TxT, standard_error_TxT); the standard error is over kernels.
  """
  T, K = graph.parents_TxK.shape

  def one(key):
    return measure(graph, prior(key, S, K))

  keys = jax.random.split(key, num_kernels)
  batch_size = max(1, _MAX_ENTRIES // (T * S) ** 2)
  return mean_and_standard_error(
    jax.lax.map(one, keys, batch_size=min(batch_size, num_kernels))
  )


def bottleneck(I_TxT, graph: Graph) -> np.ndarray:
  """The smallest information of an edge on the path between each pair.

  By the data-processing inequality this bounds the information of the pair,
  given the kernel or averaged over kernels. Not traceable.

  Args:
    I_TxT: information; only the entries (child, parent) are read.
    graph: with single parents.

  Returns:
    Symmetric T x T: infinite on the diagonal, 0 between different trees.

  Raises:
    ValueError: if the graph has several parents.
  """
  I_TxT, parents_TxK = np.asarray(I_TxT), np.asarray(graph.parents_TxK)
  T, K = parents_TxK.shape
  if K != 1:
    raise ValueError(f"the graph must have single parents, got K = {K}")
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
    I_TxT: Shannon or chi-squared information given the kernel.
    graph: with single parents.
    tolerance: the excess over the bound allowed for rounding or noise.

  Returns:
    The violations, the largest excess first.
  """
  information_TxT = np.asarray(I_TxT)
  bound_TxT = bottleneck(I_TxT, graph)
  excess_TxT = np.tril(information_TxT - bound_TxT, -1)
  violations = [
    Violation((int(i), int(j)), float(information_TxT[i, j]), float(bound))
    for i, j in np.argwhere(excess_TxT > tolerance)
    for bound in [bound_TxT[i, j]]
  ]
  return sorted(violations, key=lambda v: v.bound - v.information)


def _walk_forest(graph: Graph, rows_MxS, T: int, S: int):
  uniform_S = jnp.full((S,), 1 / S, rows_MxS.dtype)
  positions = jnp.arange(T)

  def visit(carry, node):
    # P has the pairs (i, j) with j <= i; each step writes one row.
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
      "with several parents all S**T sequences are enumerated, at most 2**20, "
      f"got {S}**{T}"
    )
  x_NxT = jnp.indices((S,) * T).reshape(T, -1).T

  def probability(x_T):
    law_TxS = rows_MxS[tokens.table_row(x_T, graph.parents_TxK, S)]
    is_query = (graph.parents_TxK[-1] < 0).all()
    law_TxS = law_TxS.at[-1].set(jnp.where(is_query, 1 / S, law_TxS[-1]))
    return law_TxS[jnp.arange(T), x_T].prod()

  token_NxTxS = jax.nn.one_hot(x_NxT, S, dtype=rows_MxS.dtype)
  weighted = jax.vmap(probability)(x_NxT)[:, None, None] * token_NxTxS
  return jnp.einsum("nis,njt->ijst", weighted, token_NxTxS)


def marginals(P_TxTxSxS):
  """P(s_i = s) and P(s_j = t) of each pair, broadcast to T x T x S x S."""
  P_i = P_TxTxSxS.sum(axis=3, keepdims=True)
  P_j = P_TxTxSxS.sum(axis=2, keepdims=True)
  shape = P_TxTxSxS.shape
  return jnp.broadcast_to(P_i, shape), jnp.broadcast_to(P_j, shape)


def mean_and_standard_error(values_NxTxT):
  """Entrywise mean and standard error of N >= 2 independent matrices."""
  N = values_NxTxT.shape[0]
  if N < 2:
    raise ValueError(f"a standard error needs at least 2 samples, got {N}")
  mean = values_NxTxT.mean(axis=0)
  return mean, values_NxTxT.std(axis=0, ddof=1) / N**0.5


def ratio(numerator, denominator):
  """The ratio, or 0 where the denominator is 0."""
  safe = jnp.where(denominator > 0, denominator, 1)
  return jnp.where(denominator > 0, numerator / safe, 0)


def check_read_out(read_out: str):
  """Raises ValueError unless the read-out is `linear` or `softmax`."""
  if read_out not in ("linear", "softmax"):
    raise ValueError(
      f"read_out must be 'linear' or 'softmax', got {read_out!r}"
    )
