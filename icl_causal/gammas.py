"""Exact draws from gamma laws, faster on CPUs than `jax.random.loggamma`."""

import functools

import jax
from jax import numpy as jnp

from icl_causal import threefry


@functools.partial(jax.jit, static_argnames="num", inline=True)
def log_draws(key, alpha, num: int) -> jax.Array:
  """The logarithms of `num` exact draws from Gamma(alpha, 1).

  Marsaglia and Tsang (2000): the cube of a shifted normal is a proposal for
  shape alpha + 1, accepted with probability .95 or more; an exponential then
  lowers the shape to alpha. Accepted proposals are i.i.d., so this takes the
  first `num` accepted ones of slightly more than `num` proposals. If too few
  are accepted (probability below 1e-4 for any `num`), it redraws all of them.
  This is several times faster than one rejection loop per draw, which under
  `vmap` runs until the slowest loop ends.
  """
  key, boost_key = jax.random.split(key)
  num_proposals = num + num // 8 + 8

  def propose(carry):
    round_index, _, _ = carry
    values, accepted = _proposals(
      jax.random.fold_in(key, round_index), alpha + 1, num_proposals
    )
    slots = jnp.where(accepted, jnp.cumsum(accepted) - 1, num)
    log_gamma = jnp.zeros(num).at[slots].set(values, mode="drop")
    return round_index + 1, log_gamma, accepted.sum() >= num

  start = (0, jnp.zeros(num), jnp.array(False))
  _, log_gamma, _ = jax.lax.while_loop(lambda c: ~c[2], propose, start)
  return log_gamma - threefry.exponential(boost_key, num) / alpha


def _proposals(key, shape, num: int):
  """Logarithms of proposals for Gamma(shape, 1), and an acceptance mask."""
  normal_key, accept_key = jax.random.split(key)
  x = threefry.normal(normal_key, num)
  log_u = -threefry.exponential(accept_key, num)
  d = shape - 1 / 3
  root = 1 + x / jnp.sqrt(9 * d)
  log_v = 3 * jnp.log(jnp.maximum(root, 1e-30))
  accepted = (root > 0) & (log_u < x**2 / 2 + d * (1 - root**3 + log_v))
  return jnp.log(d) + log_v, accepted
