"""Information and gradient scores estimated from sequences.

If all sequences have the same kernel, `pooled` estimates the information given
that kernel. If every sequence has a different kernel, it does not: the kernel
is a common cause, so even two roots are dependent. `conditional` averages
estimates over kernels instead. Matrices are T x T, with row i for the token s_i
and column j for a candidate parent s_j.
"""

from collections.abc import Callable

import chex
import jax
from jax import numpy as jnp

from icl_causal import sampling
from icl_causal.analysis import information

# Maps pair laws to information: `information.shannon` or `information.chi2`.
Measure = Callable[[jax.Array], jax.Array]


def pooled(x_NxT, S: int, measure: Measure, correct: bool = True) -> jax.Array:
  """Plug-in information between tokens, pooled over sequences.

  For sequences with one kernel this estimates the information given that
  kernel. For sequences with different kernels it does not: every pair of tokens
  is then dependent through the kernel, with or without an edge.

  Args:
    x_NxT: tokens of N < 2**24 sequences.
    S: number of states.
    measure: `information.shannon` or `information.chi2`.
    correct: subtracts the bias of first order in 1/N; for `shannon` this is the
      correction of Miller and Madow.

  Returns:
    I_TxT.

  Raises:
    ValueError: if `correct` is set for another measure.
  """
  chex.assert_rank(x_NxT, 2)
  sampling.check_tokens(x_NxT, S)
  N = x_NxT.shape[0]
  token_NxTxS = jax.nn.one_hot(x_NxT, S, dtype=jnp.result_type(float))
  counts = jnp.einsum("nis,njt->ijst", token_NxTxS, token_NxTxS)
  P_TxTxSxS = counts / N
  I_TxT = measure(P_TxTxSxS)
  if not correct:
    return I_TxT
  if measure not in _BIAS:
    raise ValueError(f"the bias of {measure} is unknown: set correct=False")
  return I_TxT - _BIAS[measure](P_TxTxSxS) / N


def conditional(
  x_RxNxT, S: int, measure: Measure, correct: bool = True
) -> tuple[jax.Array, jax.Array]:
  """Plug-in information given the kernel, averaged over R kernels.

  Args:
    x_RxNxT: tokens of N sequences from each of R >= 2 kernels.
    S: number of states.
    measure: `information.shannon` or `information.chi2`.
    correct: as for `pooled`, for each kernel.

  Returns:
    (I_TxT, standard_error_TxT); the standard error is over kernels.
  """
  chex.assert_rank(x_RxNxT, 3)
  sampling.check_tokens(x_RxNxT, S)
  return information.mean_and_standard_error(
    jax.lax.map(lambda x_NxT: pooled(x_NxT, S, measure, correct), x_RxNxT)
  )


def gradient_score(x_NxT, kernel_N, epsilon=0.0) -> tuple[jax.Array, jax.Array]:
  """The conditional gradient score from sequences with known kernels.

  The mean of pi(s_i | s_j) / (mu(s_i) + epsilon) - 1. Under the stationary root
  law it is an unbiased estimate of E R_ij, and one sequence per kernel is
  enough. With epsilon = 0 a rare state can give a term as large as 1 / mu, so
  even a mean of many terms can have a large error.

  Args:
    x_NxT: tokens of N >= 2 sequences.
    kernel_N: N x (S+1) x S, the kernels of the sequences.
    epsilon: as in `gradient.gradient_score`.

  Returns:
    (R_TxT, standard_error_TxT), 0 for j > i and in the query's row, as in
    `gradient.gradient_score`.
  """
  chex.assert_rank([x_NxT, kernel_N], [2, 3])

  def one(x_T, kernel):
    S = kernel.shape[-1]
    mu_SxS = jnp.broadcast_to(kernel[S] + epsilon, (S, S))
    ratio_SxS = information.ratio(kernel[:S], mu_SxS)
    R_TxT = ratio_SxS[x_T[None, :], x_T[:, None]] - 1
    return jnp.where(jnp.tri(len(x_T), dtype=bool), R_TxT, 0).at[-1].set(0)

  return information.mean_and_standard_error(jax.vmap(one)(x_NxT, kernel_N))


def permutation_null(
  key, x_RxNxT, S: int, measure: Measure, num_permutations: int
) -> jax.Array:
  """Row maxima of the conditional estimate if tokens are independent.

  The tokens of each position are permuted among the sequences of a kernel. This
  keeps the law of each token given the kernel and removes all dependence
  between tokens. A row whose maximum is below a high quantile of these maxima
  is taken to have no parent.

  Args:
    key: of the permutations.
    x_RxNxT: tokens of N sequences from each of R kernels.
    S: number of states.
    measure: `information.shannon` or `information.chi2`, corrected for bias.
    num_permutations: M.

  Returns:
    max_MxT: the maximum over j < i of each row i; -inf for row 0.
  """
  chex.assert_rank(x_RxNxT, 3)
  sampling.check_tokens(x_RxNxT, S)
  if num_permutations < 1:
    raise ValueError(
      f"num_permutations must be at least 1, got {num_permutations}"
    )
  T = x_RxNxT.shape[2]

  def one(key):
    permuted = jax.random.permutation(key, x_RxNxT, axis=1, independent=True)
    I_TxT = jax.lax.map(lambda x_NxT: pooled(x_NxT, S, measure), permuted)
    return _earlier(I_TxT.mean(axis=0), T).max(axis=1)

  return jax.lax.map(one, jax.random.split(key, num_permutations))


def _shannon_bias(P_TxTxSxS):
  """N times the bias: half of nonzero cells - nonzero rows - columns + 1."""
  nonzero = (P_TxTxSxS > 0).astype(P_TxTxSxS.dtype)
  margins = nonzero.max(axis=3).sum(axis=2) + nonzero.max(axis=2).sum(axis=2)
  return (nonzero.sum(axis=(2, 3)) - margins + 1) / 2


def _chi2_bias(P_TxTxSxS):
  """N times the bias to first order: sum P(s,t) d^2 I / d P(s,t)^2 / 2.

  The mixed derivatives cancel, since scaling P does not change I.
  """
  P_i, P_j = information.marginals(P_TxTxSxS)
  t_given_s, s_given_t = (
    information.ratio(P_TxTxSxS, P_i),
    information.ratio(P_TxTxSxS, P_j),
  )
  lift = information.ratio(t_given_s, P_j)
  return (lift * (1 - t_given_s) * (1 - s_given_t)).sum(axis=(2, 3))


# N times the bias of the plug-in estimate, to first order in 1/N.
_BIAS: dict[Measure, Measure] = {
  information.shannon: _shannon_bias,
  information.chi2: _chi2_bias,
}


def _earlier(I_TxT, T: int):
  return jnp.where(jnp.tri(T, k=-1, dtype=bool), I_TxT, -jnp.inf)
