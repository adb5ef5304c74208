"""Priors: distributions over transition kernels.

A kernel for up to K parents is one table of shape (S+1,)*K + (S,). Its row
[s_1, .., s_K] is the law of a token whose parents are in the states s_1, ..,
s_K; index S stands for an absent parent. The table covers roots, single parents
and mixed numbers of parents. The row [S, .., S] is the law of a root.

A prior is a function (key, S, K) -> kernel that draws one kernel.
"""

from collections.abc import Callable
import functools
from typing import Literal, NamedTuple, get_args

import chex
import jax
from jax import numpy as jnp

from icl_causal import checks
from icl_causal import gammas

Prior = Callable[[jax.Array, int, int], jax.Array]
RootLaw = Literal["stationary", "uniform", "dirichlet"]
ROOT_LAWS: tuple[RootLaw, ...] = get_args(RootLaw)
# States up to which `stationary` has a step for each state. With 16 states it
# compiles in about two seconds.
_MOST_UNROLLED = 16


class IndependentRows(NamedTuple):
  """A prior of independent rows with one law, but for the row of a root.

  A sampler may draw only the rows that a prompt visits (`sampling`).

  Attributes:
    draw_rows: maps (key, number of rows M, S) to rows, M x S.
    root_law: as for `dirichlet`; `dirichlet` is the law of the other rows.
  """

  draw_rows: Callable[[jax.Array, int, int], jax.Array]
  root_law: RootLaw | None = None

  def __call__(self, key, S: int, K: int) -> jax.Array:
    """Draws a kernel: a `Prior`."""
    law = self.law_of_roots(K)
    num_rows = (S + 1) ** K - (law != "dirichlet")
    return _table(self.draw_rows(key, num_rows, S), law, S, K)

  def law_of_roots(self, K: int) -> RootLaw:
    """The root law for up to K parents."""
    return self.root_law or default_root_law(K)


def dirichlet(alpha, root_law: RootLaw | None = None) -> IndependentRows:
  """Independent Dirichlet(alpha * 1_S) rows, as in all the paper's experiments.

  Args:
    alpha: concentration, positive; may be traced.
    root_law: the law of root tokens. `stationary`: the stationary law of the
      kernel, the paper's mu_pi; for K = 1 only. `uniform`: uniform on the
      states. `dirichlet`: one more Dirichlet(alpha) row. The default is
      `stationary` for K = 1 and `uniform` for K > 1.
  """
  return floored_dirichlet(alpha, 0.0, root_law)


def floored_dirichlet(
  alpha, gamma, root_law: RootLaw | None = None
) -> IndependentRows:
  """Rows (1 - gamma) * Dirichlet(alpha * 1_S) + gamma / S.

  Of the assumptions of the theory on the prior, it satisfies the lower bound
  (every entry is at least gamma / S, for gamma > 0), symmetry under relabelling
  of the states, and a constant mean (E pi = 1/S in every entry). Whether it is
  non-degenerate depends on the definition: the mean distance of pi from
  1 mu^T is positive for gamma < 1, but the distance has no positive lower bound
  over kernels. With gamma = 1, pi is uniform and all kernels are degenerate.

  Args:
    alpha: concentration, positive; may be traced.
    gamma: weight of the uniform law, from 0 to 1; may be traced.
    root_law: as for `dirichlet`.
  """
  is_finite = (alpha > 0) & (alpha < jnp.inf)
  checks.require(is_finite, f"alpha must be positive and finite, got {alpha}")
  checks.require(
    (gamma >= 0) & (gamma <= 1), f"gamma must be from 0 to 1, got {gamma}"
  )

  def draw_rows(key, num_rows, S):
    return (1 - gamma) * dirichlet_rows(key, alpha, num_rows, S) + gamma / S

  return IndependentRows(draw_rows, root_law)


def default_root_law(K: int) -> RootLaw:
  """`stationary` for K = 1, `uniform` for K > 1."""
  return "stationary" if K == 1 else "uniform"


def fixed(kernel, root_law: RootLaw = "stationary") -> Prior:
  """A prior that always returns the same kernel.

  Args:
    kernel: a full table, (S+1,)*K + (S,); or pi_SxS for single parents, to
      which a root law is added.
    root_law: `stationary` or `uniform`; used with pi_SxS only.
  """
  kernel = jnp.asarray(kernel)
  S = kernel.shape[-1]
  if kernel.shape == (S, S):
    kernel = _table(kernel, root_law, S, 1)
  checks.require(
    _are_laws(kernel.reshape(-1, S)).all(),
    "every row of a fixed kernel must have entries >= 0 that sum to 1",
  )

  def prior(key, S, K):
    del key
    chex.assert_shape(kernel, (S + 1,) * K + (S,))
    return kernel

  return prior


def pool(kernels) -> Prior:
  """A prior that draws one of M given kernels, each with the same probability.

  If M is small, a model can memorise the kernels. The Bayes predictor is
  `bayes.retrieval`.

  Args:
    kernels: M full tables, M x (S+1) x .. x S, such as those of `draws`.
  """
  kernels = jnp.asarray(kernels)
  S = kernels.shape[-1]
  checks.require(
    _are_laws(kernels.reshape(-1, S)).all(),
    "every row of the kernels of a pool must have entries >= 0 that sum to 1",
  )

  def prior(key, S, K):
    chex.assert_shape(kernels[0], (S + 1,) * K + (S,))
    return kernels[jax.random.randint(key, (), 0, len(kernels))]

  return prior


def draws(key, prior: Prior, S: int, K: int, num: int) -> jax.Array:
  """`num` independent kernels of a prior, along a leading axis.

  The first kernels do not depend on `num`.
  """
  return jax.vmap(lambda key: prior(key, S, K))(jax.random.split(key, num))


def mixture_transition(prior: Prior, weights_K) -> Prior:
  """Kernels that mix the rows of the parents (Raftery, 1985).

  With pi and mu drawn from a prior for single parents,

    kernel[a_1, .., a_K] = sum_k w_k pi(. | a_k) + (1 - sum_k w_k) mu,

  where the sums are over the parents that are present. Weights whose sum is
  more than 1 are divided by it. Edges of different strength: if mu is
  stationary, every token has law mu, and the chi-squared information of a child
  with a single parent in slot k is w_k**2 times that of pi.

  Args:
    prior: for single parents; mu is its root law.
    weights_K: from 0 to 1, one for each parent slot.
  """
  weights_K = jnp.asarray(weights_K, jnp.result_type(float))
  chex.assert_rank(weights_K, 1)
  checks.require(
    ((weights_K >= 0) & (weights_K <= 1)).all(),
    f"weights must be from 0 to 1, got {weights_K}",
  )

  def mixed(key, S, K):
    chex.assert_shape(weights_K, (K,))
    base = prior(key, S, 1)
    # Row S, of an absent parent, adds nothing and has no weight.
    rows = base.at[S].set(0)
    present = jnp.ones(S + 1).at[S].set(0)
    table, total = jnp.zeros(K * (S + 1,) + (S,)), jnp.zeros(K * (S + 1,))
    for k, weight in enumerate(weights_K):
      shape = [S + 1 if slot == k else 1 for slot in range(K)]
      table += weight * rows.reshape(*shape, S)
      total += weight * present.reshape(shape)
    table += jnp.maximum(1 - total, 0)[..., None] * base[S].reshape(
      [1] * K + [S]
    )
    return table / jnp.maximum(total, 1)[..., None]

  return mixed


def check(prior: Prior, S: int, K: int):
  """Draws one kernel from a custom prior and checks it; not traceable.

  Raises:
    ValueError: if the kernel has another shape than (S+1,)*K + (S,), or a row
      that is not a law: entries >= 0 that sum to 1.
  """
  kernel = jnp.asarray(prior(jax.random.key(0), S, K))
  shape = (S + 1,) * K + (S,)
  if kernel.shape != shape:
    raise ValueError(
      f"the prior must draw kernels of shape {shape}, got {kernel.shape}"
    )
  rows_MxS = kernel.reshape(-1, S)
  is_law_M = _are_laws(rows_MxS)
  if not is_law_M.all():
    m = int(is_law_M.argmin())
    raise ValueError(
      "every row of a kernel must have entries >= 0 that sum to 1; in row "
      f"{m} of {len(rows_MxS)} that the prior drew, the least entry is "
      f"{rows_MxS[m].min():.4g} and the sum is {rows_MxS[m].sum():.4g}"
    )


def dirichlet_rows(key, alpha, num_rows: int, S: int) -> jax.Array:
  """Exact draws from Dirichlet(alpha * 1_S), one per row of num_rows x S.

  With a small alpha, entries underflow to exact zeros, never to 0/0.
  """
  logits = gammas.log_draws(key, alpha, num_rows * S)
  return jax.nn.softmax(logits.reshape(num_rows, S))


@functools.partial(jax.jit, inline=True)
def stationary(pi_SxS: jax.Array) -> jax.Array:
  """The stationary law: mu pi = mu, by state reduction.

  Grassmann, Taksar and Heyman (1985): the method removes the states from the
  last to the second, then adds them back. It never subtracts, so every entry is
  non-negative and accurate to rounding, also for nearly reducible kernels. For
  a reducible kernel the result is one of its stationary laws.

  Args:
    pi_SxS: each row is a law.

  Returns:
    mu_S.
  """
  chex.assert_rank(pi_SxS, 2)
  chex.assert_is_divisible(pi_SxS.shape[0], pi_SxS.shape[1])
  if pi_SxS.shape[0] > _MOST_UNROLLED:
    return _stationary_in_loops(pi_SxS)
  removed = []
  for n in range(pi_SxS.shape[0] - 1, 0, -1):
    leave, enter = pi_SxS[n, :n], pi_SxS[:n, n]
    exit_rate = leave.sum()
    pi_SxS = pi_SxS[:n, :n] + jnp.outer(enter, _ratio(leave, exit_rate))
    removed.append((exit_rate, enter))
  mu = jnp.ones((1,), pi_SxS.dtype)
  for exit_rate, enter in reversed(removed):
    below, at = _shares(exit_rate, (mu * enter).sum())
    mu = jnp.append(mu * below, at)
  return mu


def _stationary_in_loops(pi_SxS: jax.Array) -> jax.Array:
  """`stationary` in loops over states, on arrays of one size.

  It compiles in a time that does not depend on S. For few states, arrays that
  shrink are faster.
  """
  S = pi_SxS.shape[0]
  state_S = jnp.arange(S)

  def remove(step, carry):
    pi_SxS, exit_S = carry
    n = S - 1 - step
    leave_S = jnp.where(state_S < n, pi_SxS[n], 0)
    exit_rate = leave_S.sum()
    enter_S = jnp.where(state_S < n, pi_SxS[:, n], 0)
    pi_SxS += jnp.outer(enter_S, _ratio(leave_S, exit_rate))
    return pi_SxS, exit_S.at[n].set(exit_rate)

  def add(n, mu_S):
    enter_S = jnp.where(state_S < n, pi_SxS[:, n], 0)
    below, at = _shares(exit_S[n], (mu_S * enter_S).sum())
    return (mu_S * below).at[n].set(at)

  start = (pi_SxS, jnp.zeros(S, pi_SxS.dtype))
  pi_SxS, exit_S = jax.lax.fori_loop(0, S - 1, remove, start)
  first = jnp.zeros(S, pi_SxS.dtype).at[0].set(1)
  return jax.lax.fori_loop(1, S, add, first)


def _shares(exit_rate, entry_rate):
  """The stationary shares of the states below a state, and of this state."""
  total = exit_rate + entry_rate
  below = jnp.where(total > 0, _ratio(exit_rate, total), 1)
  return below, _ratio(entry_rate, total)


def _table(rows_MxS, root_law: RootLaw, S: int, K: int) -> jax.Array:
  """The kernel table from its rows.

  `rows_MxS` excludes the root's row, which is added here, unless `root_law` is
  `dirichlet`.
  """
  if root_law == "stationary":
    if K > 1:
      raise ValueError(
        f"the stationary root law is defined for single parents, got K = {K}: "
        "use 'uniform' or 'dirichlet'"
      )
    rows_MxS = jnp.concatenate([rows_MxS, stationary(rows_MxS)[None]])
  elif root_law == "uniform":
    rows_MxS = jnp.concatenate([rows_MxS, jnp.full((1, S), 1 / S)])
  elif root_law != "dirichlet":
    raise ValueError(
      "root_law must be 'stationary', 'uniform' or 'dirichlet', "
      f"got {root_law!r}"
    )
  return rows_MxS.reshape((S + 1,) * K + (S,))


def _are_laws(rows_MxS) -> jax.Array:
  """For each row, whether its entries are >= 0 and sum to 1."""
  sums_to_1 = jnp.abs(rows_MxS.sum(axis=1) - 1) < 1e-5
  return (rows_MxS >= 0).all(axis=1) & sums_to_1


def _ratio(numerator, denominator):
  """The ratio, or 0 where the denominator is 0."""
  return numerator / jnp.where(denominator > 0, denominator, 1)
