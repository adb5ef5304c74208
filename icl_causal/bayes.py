"""Baselines: predictors that need no training.

Each maps one prompt to a law on the S states:
- `uniform` uses nothing;
- `unigram` uses the tokens;
- `edge_posterior` uses the tokens, the graph and the prior, but no root tokens;
- `exact_posterior` uses all tokens, the graph and the prior;
  `dirichlet_posterior` and `sampled_posterior` are its two estimates;
- `retrieval` uses all tokens, the graph and a list of possible kernels.
`entropy` is the loss of the predictor that knows the kernel. `running` has
them at every position, and `latent` has those for a graph drawn from a list.
"""

import math
from typing import NamedTuple

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special

from icl_causal import checks
from icl_causal import gammas
from icl_causal import pools
from icl_causal import priors
from icl_causal import sampling
from icl_causal import threefry
from icl_causal import tokens
from icl_causal.graphs import Graph
from icl_causal.latent import graph_posterior as graph_posterior
from icl_causal.latent import model_average as model_average
from icl_causal.latent import most_likely_graph as most_likely_graph
from icl_causal.pools import retrieval as retrieval

# Below it, draws of a kernel underflow to reducible kernels too often.
MIN_ALPHA = 0.01


def uniform(S: int) -> jax.Array:
  """The uniform law on S states."""
  return jnp.full((S,), 1 / S)


def unigram(x_T: jax.Array, S: int) -> jax.Array:
  """Token frequencies with add-one smoothing; the order does not matter."""
  chex.assert_rank(x_T, 1)
  sampling.check_tokens(x_T, S)
  return _normalise(jax.nn.one_hot(x_T, S).sum(axis=0) + 1)


def edge_posterior(x_T: jax.Array, graph: Graph, alpha, S: int) -> jax.Array:
  """The posterior mean of the target's law given the edges alone.

  f_s is proportional to alpha plus the number of tokens s whose parents are in
  the same states as the target's parents. This is exact for independent
  Dirichlet(alpha) rows if root tokens are ignored. Under the stationary root
  law, root tokens carry information about the kernel, and the Bayes predictor
  is `exact_posterior`. Ours; the paper's code also counts roots, as children
  of the token before the query.

  Args:
    x_T: tokens.
    graph: over T positions.
    alpha: concentration of the prior.
    S: number of states.

  Returns:
    f_S.
  """
  chex.assert_rank(list(graph), [2, 1])
  sampling.check_tokens(x_T, S, len(graph.parents_TxK))
  rows_T = tokens.table_row(x_T, graph.parents_TxK, S)
  matches_T = rows_T == tokens.table_row(x_T, graph.target_K, S)
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
  """The posterior mean of the target's law given all tokens.

  This is the Bayes predictor for independent Dirichlet(alpha) rows. The
  estimate and its errors are those of `dirichlet_posterior`.

  Returns:
    (f_S, effective_sample_size).
  """
  estimate = dirichlet_posterior(
    key, x_T, graph, alpha, S, num_samples, root_law
  )
  return estimate.f_S, estimate.effective


class Posterior(NamedTuple):
  """An estimate of the posterior mean of the target's law.

  Attributes:
    f_S: from all samples.
    halves_2xS: from the first and from the second half of the samples. The bias
      of the loss is of order 1 / num_samples, so the loss of a half minus that
      of all samples estimates the bias of the latter.
    effective: the effective sample size. If it is small, f_S is mostly noise;
      infinite for a closed form.
  """

  f_S: jax.Array
  halves_2xS: jax.Array
  effective: jax.Array


def dirichlet_posterior(
  key,
  x_T: jax.Array,
  graph: Graph,
  alpha,
  S: int,
  num_samples: int,
  root_law: priors.RootLaw | None = None,
) -> Posterior:
  """The Bayes predictor for independent Dirichlet(alpha) rows.

  Estimated by importance sampling (ours). Under the stationary root law, root
  tokens carry information about the kernel, and no closed form is known to us.
  Kernels are drawn from their posterior given the edges and weighted by the
  product of mu_pi over the root tokens. The result is the edge posterior times
  the weighted mean of the draws of the target's row, divided by their
  unweighted mean, and normalised. The unweighted mean estimates the edge
  posterior, so most of the noise cancels. The bias is of order 1 / num_samples,
  the standard error of order 1 / sqrt(num_samples).

  Under any other root law the edge posterior is exact and is returned.

  Args:
    key: a typed key.
    x_T: tokens.
    graph: over T positions.
    alpha: concentration of the prior, at least `MIN_ALPHA`.
    S: number of states.
    num_samples: number of draws of the target's row and of the other rows.
    root_law: of the prior; the default is that of `priors.dirichlet`.

  Returns:
    The estimate. `effective` is the smaller one of the two kinds of draws.

  Raises:
    ValueError: if alpha is below its minimum, num_samples below 2, or the root
      law stationary with several parents.
  """
  K = graph.parents_TxK.shape[1]
  _require_samples(num_samples)
  edge_S = edge_posterior(x_T, graph, alpha, S)
  if (root_law or priors.default_root_law(K)) != "stationary":
    effective = jnp.asarray(num_samples, edge_S.dtype)
    return Posterior(edge_S, jnp.stack([edge_S, edge_S]), effective)
  if K > 1:
    raise ValueError(
      f"the stationary root law is for single parents, got K = {K}"
    )
  checks.require(
    alpha >= MIN_ALPHA,
    f"the exact posterior needs alpha >= {MIN_ALPHA}, got {alpha}: smaller "
    "kernels underflow",
  )
  draws = _weighted_draws(key, x_T, graph, alpha, S, num_samples)
  target_MxS, log_weight_NxM = draws

  def estimate(part: slice):
    log_weight = log_weight_NxM[part, part]
    weight_NxM = jnp.exp(log_weight - log_weight.max())
    weight_N, weight_M = (_normalise(weight_NxM.sum(axis=a)) for a in (1, 0))
    weighted_S = jnp.matmul(weight_M, target_MxS[part], precision="highest")
    mean_S = target_MxS[part].mean(axis=0)
    # A state of which every draw underflows keeps its edge posterior.
    ratio_S = jnp.where(mean_S > 0, weighted_S / jnp.maximum(mean_S, 1e-37), 1)
    largest = jnp.maximum((weight_N**2).sum(), (weight_M**2).sum())
    return _normalise(edge_S * ratio_S), 1 / largest

  f_S, effective = estimate(slice(None))
  halves_2xS = jnp.stack([estimate(half)[0] for half in _halves(num_samples)])
  return Posterior(f_S, halves_2xS, effective)


def sampled_posterior(
  key, x_T: jax.Array, graph: Graph, prior, S: int, num_samples: int
) -> Posterior:
  """The Bayes predictor for any prior, by importance sampling from the prior.

  Kernels are drawn from the prior and weighted by the probability of all tokens
  (ours). The effective sample size falls with S and with the number of edges,
  because few kernels of the prior explain many tokens.

  Args:
    key: a typed key.
    x_T: tokens.
    graph: over T positions.
    prior: the prior (key, S, K) -> kernel.
    S: number of states.
    num_samples: number of kernels, at least 2.
  """
  K = graph.parents_TxK.shape[1]
  _require_samples(num_samples)
  kernels = priors.draws(key, prior, S, K, num_samples)
  law_NxS, log_weight_N = pools.explained(x_T, graph, kernels)

  def estimate(part: slice):
    weight_N = jax.nn.softmax(log_weight_N[part])
    f_S = jnp.matmul(weight_N, law_NxS[part], precision="highest")
    return f_S, 1 / (weight_N**2).sum()

  f_S, effective = estimate(slice(None))
  halves_2xS = jnp.stack([estimate(half)[0] for half in _halves(num_samples)])
  return Posterior(f_S, halves_2xS, effective)


def _weighted_draws(key, x_T, graph: Graph, alpha, S: int, num: int):
  """Draws of the target's row, and log weights of pairs of draws.

  With the other rows fixed, mu_pi is a ratio of two linear functions of the
  target's row, so each draw of the other rows is combined with all draws of the
  target's row.

  Returns:
    (target_MxS, log_weight_NxM), of M draws of the target's row and N draws of
    the other rows from their posterior given the edges.
  """
  parents_T, t = graph.parents_TxK[:, 0], x_T[graph.target_K[0]]
  T = len(parents_T)
  is_root_T = (parents_T < 0) & (jnp.arange(T) < T - 1)  # the query is uniform
  roots_S = (jax.nn.one_hot(x_T, S) * is_root_T[:, None]).sum(axis=0)
  rows_T = jnp.where(parents_T < 0, S, x_T[parents_T])
  edges_TxSxS = (
    jax.nn.one_hot(rows_T, S)[:, :, None] * jax.nn.one_hot(x_T, S)[:, None, :]
  )
  kernel_key, target_key = jax.random.split(key)
  pi_NxSxS = _posterior_rows(kernel_key, edges_TxSxS, alpha, num)
  of_target_TxS = edges_TxSxS[:, t]
  target_MxS = _posterior_rows(target_key, of_target_TxS, alpha, num)

  visits_SxSxN = jax.vmap(lambda pi_SxS: _visits(pi_SxS, t), out_axes=2)(
    pi_NxSxS
  )

  def log_power(visits_SxN, power):
    """Of the visits of each pair of draws."""
    visits_NxM = jnp.matmul(visits_SxN.T, target_MxS.T, precision="highest")
    return special.xlogy(power, visits_NxM)

  def add(i, log_weight_NxM):
    state = states_S[i]
    return log_weight_NxM + log_power(visits_SxSxN[state], roots_S[state])

  # Most logarithms are those of states without a root, whose power is 0.
  states_S, num_states = jnp.argsort(-roots_S), (roots_S > 0).sum()
  start_NxM = log_power(visits_SxSxN.sum(axis=0), -roots_S.sum())
  return target_MxS, jax.lax.fori_loop(0, num_states, add, start_NxM)


def _visits(pi_SxS, t) -> jax.Array:
  """Expected numbers of visits between a step t -> s and the return to t.

  Returns:
    S x S: [i, s] has the visits to state i.
  """
  S = len(pi_SxS)
  mu_SxS = jax.vmap(lambda e_S: priors.stationary(pi_SxS.at[t].set(e_S)))(
    jnp.eye(S)
  )
  return mu_SxS.T / jnp.maximum(mu_SxS[:, t], 1e-37)[None]


def _posterior_rows(key, edges, alpha, num: int) -> jax.Array:
  """Draws Dirichlet rows from their posterior given the edges.

  A Gamma(alpha + n) variable is the sum of a Gamma(alpha) variable and n
  exponential variables, one per edge.

  Args:
    key: a typed key.
    edges: T x .. x S, with a 1 for each edge.
    alpha: concentration of the prior.
    num: N, number of draws.

  Returns:
    N x .. x S.
  """
  shape = (num, *edges.shape[1:])
  prior_key, edge_key = jax.random.split(key)
  log_prior = gammas.log_draws(prior_key, alpha, math.prod(shape))
  log_prior = log_prior.reshape(shape)
  draws = threefry.exponential(edge_key, num * len(edges))
  draws_NxT = draws.reshape(num, len(edges))
  from_edges = jnp.tensordot(draws_NxT, edges, axes=1, precision="highest")
  # The larger of the two largest terms of a row is scaled to 1. That of the
  # edges is above exp(-50), if there are any.
  log_largest = jnp.maximum(
    log_prior.max(axis=-1, keepdims=True),
    jnp.log(from_edges.max(axis=-1, keepdims=True)),
  )
  rows = jnp.exp(log_prior - log_largest)
  rows += from_edges * jnp.exp(-jnp.maximum(log_largest, -50))
  return rows / rows.sum(axis=-1, keepdims=True)


def entropy(y_S: jax.Array) -> jax.Array:
  """The entropy of a law in nats: the loss of a predictor that knows it."""
  return special.entr(y_S).sum(axis=-1)


def _halves(num: int) -> tuple[slice, slice]:
  return slice(num // 2), slice(num // 2, num)


def _require_samples(num_samples: int):
  if num_samples < 2:
    raise ValueError(f"num_samples must be at least 2, got {num_samples}")


def _normalise(weights_S):
  return weights_S / weights_S.sum()
