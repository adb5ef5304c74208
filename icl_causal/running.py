"""Baselines at every position: row t predicts the token after position t.

Each maps the tokens of one prompt to f_TxS and uses s_0, .., s_t in row t. The
last row is the baseline of the same name in `bayes`.
"""

import chex
import jax
from jax import numpy as jnp

from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal import tokens
from icl_causal.graphs import Graph


def uniform(T: int, S: int) -> jax.Array:
  """The uniform law on S states."""
  return jnp.full((T, S), 1 / S)


def unigram(x_T: jax.Array, S: int) -> jax.Array:
  """Token frequencies so far, with add-one smoothing."""
  sampling.check_tokens(x_T, S)
  return _normalise(jnp.cumsum(jax.nn.one_hot(x_T, S), axis=0) + 1)


def edge_posterior(
  x_T: jax.Array,
  graph: Graph,
  alpha,
  S: int,
  root_law: priors.RootLaw = "uniform",
) -> jax.Array:
  """The posterior mean of the law of each next token given the edges so far.

  As `bayes.edge_posterior`, with the parents of the token after position t. A
  root is predicted by its law: uniform, or the posterior mean of its Dirichlet
  row. For these two root laws this is the Bayes predictor for independent
  Dirichlet(alpha) rows. Under the stationary root law, roots are predicted by
  the counts of the root tokens so far, which is not exact.

  Args:
    x_T: tokens.
    graph: over T positions.
    alpha: concentration of the prior.
    S: number of states.
    root_law: of the prior.
  """
  chex.assert_rank(list(graph), [2, 1])
  T = len(graph.parents_TxK)
  sampling.check_tokens(x_T, S, T)
  next_TxK = graphs.next_parents(graph)
  seen_T = tokens.table_row(x_T, graph.parents_TxK, S)
  next_T = tokens.table_row(x_T, next_TxK, S)
  matches_TxT = (next_T[:, None] == seen_T[None]) & jnp.tri(T, dtype=bool)
  counts_TxS = matches_TxT @ jax.nn.one_hot(x_T, S)
  is_uniform_T = jnp.append(graphs.is_query(graph)[1:], False)
  if root_law == "uniform":
    is_uniform_T |= (next_TxK == graphs.NO_PARENT).all(axis=1)
  f_TxS = _normalise(counts_TxS + alpha)
  return jnp.where(is_uniform_T[:, None], 1 / S, f_TxS)


def _normalise(weights_TxS):
  return weights_TxS / weights_TxS.sum(axis=1, keepdims=True)
