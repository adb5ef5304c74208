"""The mixture of given laws that is closest to the laws of a model."""

import functools

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special

# The gap to the optimum, in nats, at which the iteration ends: after about ten
# steps, and at most 17 in tests.
_GAP = 1e-9
_MAX_STEPS = 50
_SHRINK = 0.03  # of the gap that a step aims at
_TO_BOUNDARY = 0.99  # of the way to a weight of 0, at most
_DAMPING = 1e-6  # of the diagonal: two equal predictors have a singular matrix
_TINY = 1e-37

_matmul = functools.partial(jnp.matmul, precision="highest")


def mixture_weights(f_NxS, p_KxNxS) -> tuple[jax.Array, jax.Array]:
  """argmin_w mean_n KL(f_n || sum_k w_k p_kn), and the minimum (ours).

  The weights are at least 0 and sum to 1. The problem is convex. It equals the
  minimum of sum_k w_k - mean_n sum_s f_ns log(sum_k w_k p_kns) over w >= 0,
  which is solved by the Newton steps of a primal-dual interior-point method,
  each of which is one pass over the laws.
  The update of EM, w_k mean_n sum_s f_ns p_kns / (sum_l w_l p_lns), has the
  same fixed point; where two predictors are similar, it needs thousands of
  passes.

  Args:
    f_NxS: the laws of the model on N prompts; may have zeros.
    p_KxNxS: the laws of K predictors on the same prompts. A predictor whose
      laws are all 0 is left out: its weight is 0. If two predictors are equal,
      the sum of their weights is determined, and they share it.

  Returns:
    (w_K, left): the weights, and the divergence that is left, in nats. It is
    infinite if no predictor allows a state that the model predicts.
  """
  chex.assert_rank([f_NxS, p_KxNxS], [2, 3])
  chex.assert_equal_shape([f_NxS, p_KxNxS[0]])
  K, N, _ = p_KxNxS.shape
  f_M, p_KxM = f_NxS.ravel(), p_KxNxS.reshape(K, -1)
  lack_K = 1 - p_KxM.sum(axis=1) / N  # 1 for laws of zeros, otherwise 0

  def newton(carry):
    w_K, z_K, num_steps = carry
    m_M = jnp.maximum(_matmul(w_K, p_KxM), _TINY)
    ratio_KxM = p_KxM / m_M[None]
    # Equals 1 - mean_n sum_s f_ns p_kns / m_ns, without the cancellation of
    # large terms: m - f is small if the model is close to a mixture.
    gradient_K = lack_K + _matmul(ratio_KxM, m_M - f_M) / N
    hessian_KxK = _matmul(ratio_KxM * f_M[None], ratio_KxM.T) / N
    aim = _SHRINK * (w_K @ z_K) / K
    diagonal_K = z_K / w_K + _DAMPING * jnp.diag(hessian_KxK)
    change_K = _solve(
      hessian_KxK + jnp.diag(diagonal_K), aim / w_K - gradient_K
    )
    z_change_K = (aim - z_K * change_K) / w_K - z_K
    fastest = jnp.maximum(-change_K / w_K, -z_change_K / z_K).max()
    size = 1 / jnp.maximum(fastest / _TO_BOUNDARY, 1)
    return w_K + size * change_K, z_K + size * z_change_K, num_steps + 1

  def is_not_done(carry):
    w_K, z_K, num_steps = carry
    return (w_K @ z_K > _GAP) & (num_steps < _MAX_STEPS)

  start = jnp.full(K, 1 / K), jnp.ones(K), jnp.int32(0)
  w_K, _, _ = jax.lax.while_loop(is_not_done, newton, start)
  w_K = w_K / w_K.sum()
  # No term is below 0 but for rounding, so the sum is accurate near 0.
  left = special.kl_div(f_M, _matmul(w_K, p_KxM)).sum() / N
  return w_K, jnp.maximum(left, 0)


def _solve(A_KxK, b_K) -> jax.Array:
  """The solution of A x = b, for a small positive definite A.

  By elimination: it needs no library call, which is slow for a small matrix and
  which `vmap` would turn into a batched one.
  """
  K = len(b_K)
  rows = jnp.concatenate([A_KxK, b_K[:, None]], axis=1)
  for k in range(K):
    pivot = rows[k] / rows[k, k]
    rows = (rows - jnp.outer(rows[:, k], pivot)).at[k].set(pivot)
  return rows[:, -1]
