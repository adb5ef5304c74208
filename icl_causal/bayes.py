"""Predictors that need no training: the lines that a loss is held against.

Each maps one prompt to a law on [S]. What each knows besides the prompt: the
uniform law nothing, the unigram nothing but the tokens, the edge posterior the
graph and the prior, and the entropy is the loss of one who knows the kernel.
"""

import math

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special

from icl_causal import priors
from icl_causal import sampling
from icl_causal.graphs import Graph


def uniform(S: int) -> jax.Array:
  """The uniform law on S states."""
  return jnp.full((S,), 1 / S)


def unigram(x_T: jax.Array, S: int) -> jax.Array:
  """Counts of the tokens plus one, normalised; blind to their order."""
  chex.assert_rank(x_T, 1)
  return _normalise(jax.nn.one_hot(x_T, S).sum(axis=0) + 1)


def edge_posterior(x_T: jax.Array, graph: Graph, alpha, S: int) -> jax.Array:
  """The posterior mean of the target's law given the edges alone.

  The counts of children whose parents read as the target's do, plus alpha,
  normalised: exact for independent Dirichlet(alpha) rows if root tokens are
  not looked at. They do speak of a stationary kernel, so this is not yet the
  Bayes predictor. Ours: the paper's code counts roots as children of the last
  token.

  Args:
    x_T: tokens.
    graph: over T positions.
    alpha: concentration of the prior.
    S: number of states.

  Returns:
    f_S.
  """
  chex.assert_rank([x_T, *graph], [1, 2, 1])
  rows_T = jax.vmap(lambda p_K: sampling.table_row(x_T, p_K, S))(
    graph.parents_TxK
  )
  matches_T = rows_T == sampling.table_row(x_T, graph.target_K, S)
  counts_S = (jax.nn.one_hot(x_T, S) * matches_T[:, None]).sum(axis=0)
  return _normalise(counts_S + alpha)


def exact_posterior(
  key,
  x_T: jax.Array,
  graph: Graph,
  alpha,
  S: int,
  num_samples: int,
  root_law: priors.RootLaw | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The posterior mean of the target's law given all tokens: Bayes' predictor.

  Stationary roots speak of the kernel, by no formula known to us, so this is
  importance sampling (ours). Kernels are drawn from their posterior given the
  edges and weighed by the product of mu_pi over the root tokens. For each of
  num_samples draws of all rows but the target's, mu_pi is the ratio of two
  linear functions of that row, and so all num_samples draws of it are weighed
  with each. What the weights change is then put on the edge posterior, which
  the unweighed draws have for their mean: most of their noise cancels. The
  error is of order 1 / num_samples.

  Under any other root law the edge posterior is exact, and is what comes.

  Args:
    key: a typed key.
    x_T: tokens.
    graph: over T positions.
    alpha: concentration of the prior, of independent Dirichlet rows.
    S: number of states.
    num_samples: draws of the target's row, and of the others.
    root_law: of the prior; the default is that of `priors.dirichlet`.

  Returns:
    f_S, and the effective sample size: how many draws of equal weight, of the
    target's row or of the others, are as good; the smaller of the two. Where
    it is a few, f_S is noise.
  """
  T, K = graph.parents_TxK.shape
  edge_S = edge_posterior(x_T, graph, alpha, S)
  if (root_law or priors.default_root_law(K)) != "stationary":
    return edge_S, jnp.asarray(num_samples, edge_S.dtype)
  if K > 1:
    raise ValueError(f"stationary roots are for single parents, got K = {K}")
  parents_T, t = graph.parents_TxK[:, 0], x_T[graph.target_K[0]]
  is_root_T = (parents_T < 0) & (jnp.arange(T) < T - 1)  # the query is uniform
  roots_S = (jax.nn.one_hot(x_T, S) * is_root_T[:, None]).sum(axis=0)
  rows_T = jnp.where(parents_T < 0, S, x_T[parents_T])
  edges_TxSxS = (
    jax.nn.one_hot(rows_T, S)[:, :, None] * jax.nn.one_hot(x_T, S)[:, None, :]
  )
  kernel_key, target_key = jax.random.split(key)
  pi_NxSxS = _posterior_rows(kernel_key, edges_TxSxS, alpha, num_samples)
  target_MxS = _posterior_rows(
    target_key, edges_TxSxS[:, t], alpha, num_samples
  )

  def visits(pi_SxS):
    """Expected visits to each state from a step t -> s until t comes again."""
    mu_SxS = jax.vmap(lambda e_S: priors.stationary(pi_SxS.at[t].set(e_S)))(
      jnp.eye(S)
    )
    visits_SxS = mu_SxS / jnp.maximum(mu_SxS[:, t], 1e-37)[:, None]
    return jnp.append(visits_SxS, visits_SxS.sum(axis=1, keepdims=True), axis=1)

  visits_NxMxR = jnp.einsum(
    "ms,nsr->nmr", target_MxS, jax.vmap(visits)(pi_NxSxS), precision="highest"
  )
  powers_R = jnp.append(roots_S, -roots_S.sum())
  log_weight_NxM = special.xlogy(powers_R[None, None], visits_NxMxR).sum(axis=2)
  weight_NxM = jax.nn.softmax(log_weight_NxM, axis=(0, 1))
  weight_N, weight_M = weight_NxM.sum(axis=1), weight_NxM.sum(axis=0)
  weighed_S = jnp.matmul(weight_M, target_MxS, precision="highest")
  effective = 1 / jnp.maximum((weight_N**2).sum(), (weight_M**2).sum())
  return _normalise(edge_S * weighed_S / target_MxS.mean(axis=0)), effective


def _posterior_rows(key, edges, alpha, num: int) -> jax.Array:
  """Draws of Dirichlet rows given edges, T x .., an entry of 1 for each edge.

  Gamma(alpha + n) is Gamma(alpha) and n exponentials: one for each edge.
  """
  shape = (num, *edges.shape[1:])
  prior_key, edge_key = jax.random.split(key)
  prior = priors.log_gamma_draws(prior_key, alpha, math.prod(shape))
  draws_NxT = jax.random.exponential(edge_key, (num, len(edges)))
  seen = jnp.tensordot(draws_NxT, edges, axes=1, precision="highest")
  return jax.nn.softmax(jnp.logaddexp(prior.reshape(shape), jnp.log(seen)))


def entropy(y_S: jax.Array) -> jax.Array:
  """The entropy of a law in nats, the loss of one who knows the kernel."""
  return special.entr(y_S).sum(axis=-1)


def _normalise(weights_S):
  return weights_S / weights_S.sum()
