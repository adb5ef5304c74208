"""Baselines at every position, by enumeration and against `bayes`."""

import functools
import itertools

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import bayes
from icl_causal import graphs
from icl_causal import priors
from icl_causal import running
from tests.support import polya

GRAPHS = {
  "chain with a query": graphs.chain(5),
  "several roots": graphs.from_parents([-1, -1, 0, -1, 2], [3]),
  "no query": graphs.kgram(5, 1),
  "two parents": graphs.half_and_previous(5),
  "mixed arities": graphs.from_parents([-1, 0, 0, (0, 1), -1], (1, 4)),
  "mixed arities, no query": graphs.from_parents([-1, -1, 0, (0, 1), 0], (3,)),
  "roots and a query": graphs.from_parents([-1, -1, -1, -1]),
}
S, ALPHA = 2, 0.3


@functools.cache
def _every(root_law):
  """`running.edge_posterior` of a batch, compiled once for each size."""
  return jax.jit(
    jax.vmap(
      lambda x_T, graph: running.edge_posterior(x_T, graph, ALPHA, S, root_law),
      (0, None),
    )
  )


def _prompts(T, S=S):
  return np.array([*itertools.product(range(S), repeat=T)], np.int32)


def _truncated(graph, num):
  """The graph of the first positions; the target is the next one."""
  parents_TxK = np.asarray(graph.parents_TxK)
  return graphs.Graph(
    jnp.asarray(parents_TxK[:num]), jnp.asarray(parents_TxK[num])
  )


@pytest.mark.parametrize("root_law", ["uniform", "dirichlet"])
@pytest.mark.parametrize("name", GRAPHS)
def test_edge_posterior_is_the_conditional_law_of_the_next_token(
  name, root_law
):
  """P(x_{t+1} | x_0, .., x_t), a ratio of Polya urn probabilities."""
  graph = GRAPHS[name]
  T = len(graph.parents_TxK)
  x_NxT = _prompts(T)
  f_NxTxS = _every(root_law)(x_NxT, graph)
  for x_T, f_TxS in zip(x_NxT, f_NxTxS, strict=True):
    expected = polya.conditional_laws(x_T, graph, ALPHA, S, root_law)
    np.testing.assert_allclose(f_TxS, expected, atol=1e-6)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_last_row_is_the_edge_posterior_of_the_target(name):
  graph = GRAPHS[name]
  x_NxT = _prompts(len(graph.parents_TxK))
  last = jax.jit(
    jax.vmap(lambda x_T: bayes.edge_posterior(x_T, graph, ALPHA, S))
  )(x_NxT)
  for root_law in priors.ROOT_LAWS:
    f_NxTxS = _every(root_law)(x_NxT, graph)
    np.testing.assert_allclose(f_NxTxS[:, -1], last, atol=1e-6)


@pytest.mark.parametrize("root_law", ["uniform", "dirichlet"])
def test_a_row_is_the_last_one_of_the_truncated_prompt(root_law):
  """But for the query, which no other graph has at its place."""
  graph = GRAPHS["several roots"]
  x_NxT = _prompts(5)
  f_NxTxS = _every(root_law)(x_NxT, graph)
  for num in (2, 3, 4):
    row_NxS = _every(root_law)(x_NxT[:, :num], _truncated(graph, num))[:, -1]
    np.testing.assert_allclose(f_NxTxS[:, num - 1], row_NxS, atol=1e-6)


def test_roots_by_hand():
  """Position 2 is a root, position 3 the query; the tokens are 1, 1, 0, 2."""
  graph = graphs.from_parents([-1, 0, -1, -1])
  x_T = jnp.array([1, 1, 0, 2])
  rows = {
    # The only root so far is a 1.
    "uniform": [[1 / 3] * 3] * 3,
    "dirichlet": [[1 / 3] * 3, [1 / 4, 2 / 4, 1 / 4], [1 / 3] * 3],
  }
  for root_law, expected in rows.items():
    f_TxS = running.edge_posterior(x_T, graph, 1.0, 3, root_law)
    # Position 1 is a child of a 1; no child of a 1 was there before it.
    np.testing.assert_allclose(f_TxS[:3], expected, atol=1e-6)
    # No child of a 2.
    np.testing.assert_allclose(f_TxS[3], [1 / 3] * 3, atol=1e-6)
  # The stationary root law: as dirichlet, by the root tokens so far.
  np.testing.assert_allclose(
    running.edge_posterior(x_T, graph, 1.0, 3, "stationary")[:3],
    rows["dirichlet"],
    atol=1e-6,
  )


def test_unigram_and_uniform_by_hand():
  x_T = jnp.array([1, 1, 0])
  np.testing.assert_allclose(
    running.unigram(x_T, 3),
    [[1 / 4, 2 / 4, 1 / 4], [1 / 5, 3 / 5, 1 / 5], [2 / 6, 3 / 6, 1 / 6]],
    atol=1e-6,
  )
  np.testing.assert_allclose(running.uniform(2, 4), np.full((2, 4), 0.25))


def test_the_last_rows_of_unigram_and_uniform_are_those_of_bayes():
  for x_T in jnp.asarray(_prompts(5)[::5]):
    f_TxS = running.unigram(x_T, S)
    np.testing.assert_allclose(f_TxS[-1], bayes.unigram(x_T, S), atol=1e-6)
    row_S = running.unigram(x_T[:3], S)[-1]
    np.testing.assert_allclose(f_TxS[2], row_S, atol=1e-6)
  np.testing.assert_array_equal(running.uniform(5, S)[-1], bayes.uniform(S))


def test_wrong_tokens_are_refused():
  with pytest.raises(ValueError, match=r"expected 5 tokens, got shape \(4,\)"):
    running.edge_posterior(jnp.zeros(4, int), graphs.chain(5), 0.5, 2)
  with pytest.raises(ValueError, match="tokens must be from 0 to S - 1 = 1"):
    running.unigram(jnp.array([0, 2]), 2)
