"""Edges that layer 2 needs, and edges that it does not need."""

import re

import numpy as np
import pytest

from experiments.theory import missed_edges
from experiments.theory import registry
from experiments.theory import second_layer
from icl_causal import graphs
from icl_causal.config import fields
from tests.support import theory_checks

pytestmark = pytest.mark.slow

S = 5


def _matches(graph, copied_TxK, x_NxT):
  """The positions that agree with the query in every slot, N x T."""
  inputs = second_layer.inputs_of(
    x_NxT, np.zeros((len(x_NxT), S)), graph, copied_TxK
  )
  return np.asarray(inputs.agrees_NxTxK).all(axis=2)


def test_an_edge_of_half_does_not_change_the_matches():
  """Position 16 matches if s_7 = s_15 = s_31, whichever of 7, 15 is copied."""
  graph = graphs.half_and_previous(32)
  x_NxT = np.random.default_rng(0).integers(0, S, (4096, 32))
  copied_TxK = np.array(graph.parents_TxK)
  expected = _matches(graph, copied_TxK, x_NxT)
  for copied, is_same in ((7, True), (0, False)):
    copied_TxK[16, 1] = copied
    other = _matches(graph, copied_TxK, x_NxT)
    assert (other == expected).all() == is_same
    assert expected[:, 16].any()


def test_the_query_is_read_from_the_last_row():
  """The last position of the 2-gram has other parents than the target."""
  graph = graphs.kgram(8, 2)
  x_NxT = np.random.default_rng(1).integers(0, 3, (500, 8))
  copied_TxK = np.array(graph.parents_TxK)
  for last_row in ((5, 6), (6, 6)):
    copied_TxK[-1] = last_row
    query = x_NxT[:, last_row[0]], x_NxT[:, 7]
    matches = _matches(graph, copied_TxK, x_NxT)
    for i in range(2, 8):
      first, second = copied_TxK[i]
      by_hand = (x_NxT[:, first] == query[0]) & (x_NxT[:, second] == query[1])
      np.testing.assert_array_equal(matches[:, i], by_hand)


def test_slots_without_a_parent_at_the_query_have_the_target():
  graph = graphs.from_parents([(), (0,), (1,), ()], (3,))
  x_NxT = np.random.default_rng(2).integers(0, 3, (100, 4))
  np.testing.assert_array_equal(
    second_layer.inputs_of(x_NxT, np.zeros((100, S)), graph).agrees_NxTxK,
    second_layer.inputs_of(
      x_NxT, np.zeros((100, S)), graph, np.array(graph.parents_TxK)
    ).agrees_NxTxK,
  )
  roots = graphs.from_parents([(), (), (0, 1), ()], (0, 3))
  x_NxT = np.random.default_rng(3).integers(0, 3, (100, 4))
  matches = _matches(roots, np.array(roots.parents_TxK), x_NxT)
  by_hand = x_NxT[:, 1] == x_NxT[:, 3]  # slot 0 agrees: both copy 0
  np.testing.assert_array_equal(matches[:, 2], by_hand)


def test_what_edges_are_worth():
  """With few prompts; the errors are over prompts."""
  cases = (
    ("half", ((16, 1, 7),)),
    ("half", ((16, 1, 7), (20, 1, 0), (24, 1, 0), (28, 1, 0))),
    ("bigram", ((31, 0, 30),)),
  )
  config = theory_checks.config(
    "missed_edges", cases=cases, num_prompts=2**10, steps=128
  )
  registry.validate(config)
  rows = theory_checks.table(missed_edges.check(config))
  assert [row["layer 1 copies"] for row in rows] == [
    "parents",
    "7 for 15 at 16",
    "7 for 15 at 16, 0 for 19 at 20, 0 for 23 at 24, 0 for 27 at 28",
    "parents",
    "30 for 29 at 31",
  ]
  change, error = "minus the row above", "std. error of the difference"
  assert rows[0][change] is None
  assert rows[3][change] is None
  assert abs(rows[1][change]) < 0.002
  assert rows[2][change] > 3 * rows[2][error]
  assert rows[4][change] < -10 * rows[4][error]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ((32, 0, 1), "cases: half has no parent of 32 in slot 0"),
    ((16, 2, 1), "cases: half has no parent of 16 in slot 2"),
    ((1, 0, 0), "cases: half has no parent of 1 in slot 0"),
    ((16, 1, 17), "cases: 16 cannot copy the later position 17"),
  ],
)
def test_refused_cases(change, message):
  config = theory_checks.config("missed_edges", cases=(("half", (change,)),))
  with pytest.raises(fields.ConfigError, match="^" + re.escape(message)):
    registry.validate(config)
