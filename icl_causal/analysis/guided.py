"""Kernel-guided information: several parents, one slot at a time.

A kernel of K parent slots has a marginal kernel for each slot,

  pi_k(s | a) = sum_b rho(b_1) .. rho(b_{K-1}) pi(s | a in slot k, b elsewhere),

with a law rho for the states of the other parents. It takes the place of the
kernel in the scores of single parents: a score of T x T for each slot, in place
of one of T^K over the sets of parents (`pair_likelihood`, for K = 2). The idea,
and the attention heads that maximise such scores, are those of Cheng et al.
(2025), "Transformers Provably Learn Directed Acyclic Graphs via Kernel-Guided
Mutual Information", arXiv 2510.25542. The formulas are ours, written from its
abstract, and so are the choices of rho.

Scores are for one prompt: sum them over prompts. `information` has `guided` and
`pair_likelihood`, too.
"""

from typing import Any, Literal, get_args

import chex
import jax
from jax import numpy as jnp

Kind = Literal["shannon", "chi2"]
Law = Literal["tokens", "root"]

_FLOOR = 1e-30  # that of `likelihood`


def guided(
  x_T,
  kernel,
  slot: int,
  kind: Kind = "shannon",
  epsilon=0.0,
  law: Law = "tokens",
) -> jax.Array:
  """Kernel-guided information of each candidate parent of one slot.

    shannon: log pi_k(s_i | s_j) / mu(s_i),
    chi2:    pi_k(s_i | s_j) / (mu(s_i) + epsilon) - 1,

  where mu, the law of the child, is rho, as if all tokens had one law. For
  `shannon` it does not change the row argmax. If rho is the law of the other
  parents, these do not depend on the parent p in slot k, and mu is the law of
  s_i, then the mean of the `shannon` score at p is I(s_i; s_p) given the
  kernel, and at any other j it is at most I(s_i; s_j).

  Under the root law, the state of the other parent may be rare. Then pi_k may
  exclude the true parent, and some edges are missed with any number of prompts.
  The shares of the tokens in the prompt never exclude it, since the other
  parent is one of them. They need fewer prompts (`configs/theory.py:pairs`) and
  are the default.

  With K = 1, rho has no effect. With the root law, `shannon` is then
  `likelihood.likelihood_score` minus log mu, and `chi2` is the term of
  `estimators.gradient_score`. After Cheng et al. (2025).

  Args:
    x_T: tokens.
    kernel: (S+1,)*K + (S,).
    slot: k, from 0 to K - 1.
    kind: of the information.
    epsilon: added to mu; used for `chi2` only.
    law: rho, the shares of the tokens in the prompt or the root law of the
      kernel.

  Returns:
    T x T for j < i, and 0 elsewhere; in nats for `shannon`.
  """
  chex.assert_rank(x_T, 1)
  pi_SxS, mu_S = _laws(x_T, kernel, slot, law)
  if kind == "shannon":
    score_SxS = _log(pi_SxS) - _log(mu_S)[None, :]
  else:
    _check(kind, Kind)
    score_SxS = _lift(pi_SxS, mu_S + epsilon) - 1
  return jnp.tril(score_SxS[x_T[None, :], x_T[:, None]], -1)


def marginal_kernel(kernel, rho_S, slot: int) -> jax.Array:
  """pi_k(s | a): the kernel of one slot, with rho for the other parents.

  All parents are present. For K = 1 it is the kernel without its root law.

  Args:
    kernel: (S+1,)*K + (S,).
    rho_S: the law of each other parent; they are independent.
    slot: k, from 0 to K - 1.

  Returns:
    pi_SxS, indexed [a, s].
  """
  K, S = jnp.ndim(kernel) - 1, jnp.shape(kernel)[-1]
  chex.assert_shape(kernel, (S + 1,) * K + (S,))
  if not 0 <= slot < K:
    raise ValueError(f"slot must be from 0 to {K - 1}, got {slot}")
  table = jnp.moveaxis(kernel[(slice(S),) * K], slot, 0)
  for _ in range(K - 1):
    table = jnp.einsum("b,ab...->a...", rho_S, table)
  return table


def pair_likelihood(x_T, kernel) -> jax.Array:
  """log pi(s_i | s_j, s_k), the log likelihood of two parents, kernel known.

  Summed over prompts, it is the logarithm of the posterior of the parents of i,
  up to a constant, if these are uniform on the pairs j < k < i. The other edges
  do not matter. No method finds both parents more often than the argmax over
  pairs. None finds more edges in their slots on average than the argmax of the
  marginal of the posterior in each slot, a sum over the other parent. Ours.

  Args:
    x_T: tokens.
    kernel: (S+1, S+1, S), for parents from left to right.

  Returns:
    T x T x T, indexed [i, j, k], in nats; -inf unless j < k < i. Memory grows
    as T^3: sum over prompts by `jax.lax.scan`, not `jax.vmap`.
  """
  T, S = len(x_T), jnp.shape(kernel)[-1]
  chex.assert_rank(x_T, 1)
  chex.assert_shape(kernel, (S + 1, S + 1, S))
  log_TxTxT = _log(kernel)[
    x_T[None, :, None], x_T[None, None, :], x_T[:, None, None]
  ]
  earlier_TxT = jnp.tri(T, k=-1, dtype=bool)
  is_pair_TxTxT = earlier_TxT.T[None, :, :] & earlier_TxT[:, None, :]
  return jnp.where(is_pair_TxTxT, log_TxTxT, -jnp.inf)


def guided_attention(
  x_NxT,
  kernel_N,
  num_steps: int,
  rate,
  kind: Kind = "shannon",
  epsilon=0.0,
  law: Law = "tokens",
) -> jax.Array:
  """Attention heads that maximise kernel-guided information, one a slot.

  One layer, attention by position alone. Head k attends from i to the earlier
  positions with weights a_ij, the softmax of a row of its parameters A, which
  start at 0. With the mixture of tokens that it copies, its output is

    r_i = sum_j a_ij pi_k(s_i | s_j) / (mu(s_i) + epsilon),

  and gradient ascent on A maximises the sum over heads and positions of the
  mean over prompts of log r_i (`shannon`, epsilon not used) or r_i (`chi2`).
  The latter is linear in the attention: a head ends at the row argmax of
  `guided`. The former is concave, and a mixture is possible. Row i of the
  gradient, counted from 1, is multiplied by i, as in Algorithm 1 here.

  After Cheng et al. (2025), with a new kernel in every prompt, known to the
  heads. The factor of a row and the choice of rho are ours.

  Args:
    x_NxT: tokens of N prompts, the same in all steps.
    kernel_N: their kernels, N x (S+1,)*K + (S,).
    num_steps: number of steps.
    rate: of gradient ascent; may be traced.
    kind: as for `guided`, and so are the other arguments.
    epsilon: added to mu.
    law: rho.

  Returns:
    att_KxTxT, 0 for j >= i.
  """
  _check(kind, Kind)
  chex.assert_rank(x_NxT, 2)
  K, T, S = kernel_N.ndim - 2, x_NxT.shape[1], kernel_N.shape[-1]
  floor = 0 if kind == "shannon" else epsilon

  def lift_of(x_T, kernel):
    laws = [_laws(x_T, kernel, slot, law) for slot in range(K)]
    return jnp.stack([_lift(pi, mu + floor)[:, x_T] for pi, mu in laws])

  lift_NxKxSxT = jax.vmap(lift_of)(x_NxT, kernel_N)
  token_NxTxS = jax.nn.one_hot(x_NxT, S, dtype=lift_NxKxSxT.dtype)
  read = _log if kind == "shannon" else (lambda r: r)

  def objective(A_KxTxT):
    att_KxTxT = _earlier_attention(A_KxTxT)
    copied_NxKxTxS = jnp.einsum("kij,njs->nkis", att_KxTxT, token_NxTxS)
    r_NxKxT = jnp.einsum("nkis,nksi->nki", copied_NxKxTxS, lift_NxKxSxT)
    # Row 0 has no candidates.
    return read(r_NxKxT[:, :, 1:]).sum(axis=(1, 2)).mean()

  scale_T = rate * jnp.arange(1, T + 1, dtype=token_NxTxS.dtype)

  def step(_, A_KxTxT):
    return A_KxTxT + scale_T[None, :, None] * jax.grad(objective)(A_KxTxT)

  start_KxTxT = jnp.zeros((K, T, T), token_NxTxS.dtype)
  return _earlier_attention(jax.lax.fori_loop(0, num_steps, step, start_KxTxT))


def _earlier_attention(A_KxTxT):
  """The softmax of each row over j < i; row 0 is 0."""
  earlier_TxT = jnp.tri(A_KxTxT.shape[1], k=-1, dtype=bool)
  # Row 0 would be empty: it attends to itself and is then set to 0.
  is_open_TxT = earlier_TxT.at[0, 0].set(True)
  att_KxTxT = jax.nn.softmax(jnp.where(is_open_TxT[None], A_KxTxT, -jnp.inf))
  return jnp.where(earlier_TxT[None], att_KxTxT, 0)


def _laws(x_T, kernel, slot: int, law: Law):
  """The marginal kernel of a slot, and the law mu of a token."""
  _check(law, Law)
  K, S = jnp.ndim(kernel) - 1, jnp.shape(kernel)[-1]
  if law == "root":
    rho_S = kernel[(S,) * K]
  else:
    rho_S = jax.nn.one_hot(x_T, S, dtype=kernel.dtype).mean(axis=0)
  return marginal_kernel(kernel, rho_S, slot), rho_S


def _lift(pi_SxS, mu_S):
  """pi(s | a) / mu(s), or 0 where mu is 0."""
  safe_S = jnp.where(mu_S > 0, mu_S, 1)
  return jnp.where(mu_S[None, :] > 0, pi_SxS / safe_S[None, :], 0)


def _log(probability):
  return jnp.log(jnp.maximum(probability, _FLOOR))


def _check(value: str, names: Any):
  if value not in get_args(names):
    raise ValueError(f"{value!r} must be one of {get_args(names)}")
