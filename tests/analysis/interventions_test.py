"""Closed forms of prompts with set tokens, by enumeration of all of them."""

import itertools

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import graphs
from icl_causal.analysis import information
from icl_causal.analysis import interventions
from icl_causal.analysis import likelihood
from tests.support import enumeration

CHILD = 3  # the child of each candidate, followed by the query
FORESTS = {
  "chain": (-1, 0, 1),
  "siblings": (-1, 0, 0),
  "two trees": (-1, -1, 1),
}
# (share of children, share of roots)
SHARES = ((0.0, 0.0), (0.3, 0.3), (0.8, 0.8), (0.0, 1.0), (0.25, 0.6))


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


def _graph(name, parent):
  return graphs.from_parents([*FORESTS[name], parent, -1])


def _law(graph, kernel, share, root_share):
  """P(set positions, tokens), an array, by a loop over all of them."""
  T, S = len(graph.parents_TxK), kernel.shape[-1]
  parents = [int(p) for p in graph.parents_TxK[:, 0]]
  values = []
  for is_set in itertools.product((0, 1), repeat=T - 1):
    for tokens in itertools.product(range(S), repeat=T):
      probability = 1 / S
      for i in range(T - 1):
        q = root_share if parents[i] < 0 else share
        row_S = kernel[S if parents[i] < 0 else tokens[parents[i]]]
        probability *= q / S if is_set[i] else (1 - q) * row_S[tokens[i]]
      values.append(probability)
  law = np.array(values)
  assert abs(law.sum() - 1) < 1e-12
  return law


def _closed(name, kernel, shares):
  @jax.jit
  def of(kernel):
    P_TxTxSxS = interventions.pair_laws(_graph(name, 0), kernel, *shares)
    return (
      interventions.affinity(P_TxTxSxS, kernel, shares[0]),
      interventions.margin(P_TxTxSxS, kernel, shares[0]),
    )

  return of(jnp.asarray(kernel))


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("name", FORESTS)
def test_affinity_and_margin_of_two_parents(name, shares):
  """Bhattacharyya and Kullback-Leibler of whole prompts and set positions."""
  kernel = enumeration.random_kernel(0, 2, 1)
  B_TxT, m_TxT = _closed(name, kernel, shares)
  laws = [_law(_graph(name, p), kernel, *shares) for p in range(CHILD)]
  for j, k in itertools.product(range(CHILD), repeat=2):
    affinity = np.sqrt(laws[j] * laws[k]).sum()
    assert B_TxT[j, k] == pytest.approx(affinity, abs=1e-12)
    happens = laws[j] > 0
    ratio = np.log(laws[j][happens] / laws[k][happens])
    assert m_TxT[j, k] == pytest.approx(laws[j][happens] @ ratio, abs=1e-12)


def test_without_set_tokens_it_is_the_bhattacharyya_of_information():
  kernel = jnp.asarray(enumeration.random_kernel(1, 3, 1))
  graph = graphs.random_tree(jax.random.key(0), 7)

  @jax.jit
  def both(kernel):
    P_TxTxSxS = interventions.pair_laws(graph, kernel, 0.0)
    return (
      interventions.affinity(P_TxTxSxS, kernel, 0.0),
      information.bhattacharyya(graph, kernel),
    )

  B_TxT, expected_TxT = both(kernel)
  np.testing.assert_allclose(B_TxT, expected_TxT, atol=1e-12)


def test_if_all_tokens_are_set_a_prompt_says_nothing():
  kernel = enumeration.random_kernel(1, 2, 1)
  B_TxT, m_TxT = _closed("chain", kernel, (1.0, 1.0))
  np.testing.assert_allclose(B_TxT, 1, atol=1e-12)
  np.testing.assert_allclose(m_TxT, 0, atol=1e-12)


@pytest.mark.parametrize("shares", SHARES)
def test_tokens_have_the_law_of_the_mixed_kernel(shares):
  """Summed over the set positions."""
  graph = _graph("chain", 0)
  kernel = enumeration.random_kernel(2, 2, 1)
  by_set = _law(graph, kernel, *shares).reshape(-1, 2**5)
  mixed = interventions.mixed_kernel(jnp.asarray(kernel), *shares)
  np.testing.assert_allclose(mixed.sum(axis=1), 1)
  expected = [p for _, p in enumeration.sequences(graph, mixed)]
  np.testing.assert_allclose(by_set.sum(axis=0), expected, atol=1e-12)


def test_the_share_of_roots_is_that_of_children_by_default():
  kernel = jnp.asarray(enumeration.random_kernel(2, 3, 1))
  np.testing.assert_allclose(
    interventions.mixed_kernel(kernel, 0.25), 0.75 * kernel + 0.25 / 3
  )


def test_dropped_rows_give_the_likelihood_of_a_prompt():
  """log P(tokens, set positions) as a function of the parent of a position."""
  name, shares = "siblings", (0.4, 0.4)
  kernel = enumeration.random_kernel(3, 2, 1)
  laws = [_law(_graph(name, p), kernel, *shares) for p in range(CHILD)]
  score = jax.jit(
    lambda x_T, kernel, is_set_T: interventions.drop_set_rows(
      likelihood.likelihood_score(x_T, kernel), is_set_T
    )
  )
  for is_set, tokens in (
    ((0, 1, 0, 0), (1, 0, 1, 1, 0)),
    ((0, 0, 0, 1), (1, 0, 1, 1, 0)),
    ((1, 1, 0, 0), (0, 1, 0, 1, 1)),
  ):
    score_TxT = score(
      jnp.array(tokens), jnp.asarray(kernel), jnp.array([*is_set, 0], bool)
    )
    number = int("".join(map(str, (*is_set, *tokens))), 2)
    logs = np.log([law[number] for law in laws])
    np.testing.assert_allclose(
      score_TxT[CHILD, :CHILD] - score_TxT[CHILD, 0], logs - logs[0]
    )
  np.testing.assert_array_equal(
    interventions.drop_set_rows(
      jnp.ones((3, 3)), jnp.array([False, True, False])
    ),
    [[1, 1, 1], [0, 0, 0], [1, 1, 1]],
  )
