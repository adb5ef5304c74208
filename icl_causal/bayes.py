"""Predictors that need no training: the lines that a loss is held against.

Each maps one prompt to a law on [S]. What each knows besides the prompt: the
uniform law nothing, the unigram nothing but the tokens, the edge posterior the
graph and the prior, and the entropy is the loss of one who knows the kernel.
"""

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special

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


def entropy(y_S: jax.Array) -> jax.Array:
  """The entropy of a law in nats, the loss of one who knows the kernel."""
  return special.entr(y_S).sum(axis=-1)


def _normalise(weights_S):
  return weights_S / weights_S.sum()
