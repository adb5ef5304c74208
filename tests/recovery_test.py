import numpy as np
import pytest

from icl_causal import graphs
from icl_causal import recovery

GRAPH = graphs.from_parents([-1, 0, -1, 1, 3, -1])
ATTENTION = np.array(
  [
    [1.0, 0, 0, 0, 0, 0],
    [0.3, 0.7, 0, 0, 0, 0],  # to itself more than to its parent 0
    [0.6, 0.1, 0.3, 0, 0, 0],  # a root with a false parent
    [0.2, 0.5, 0.1, 0.2, 0, 0],  # its parent 1
    [0.1, 0.1, 0.1, 0.6, 0.1, 0],  # its parent 3
    [0.0, 0.0, 0.9, 0.0, 0.0, 0.1],  # the query
  ]
)


def test_compare_by_hand():
  found = recovery.compare(ATTENTION, GRAPH, include_self=True)
  assert found == recovery.Recovery(
    edges=3,
    recovered=2,
    false_parents=1,
    recovered_edges=[(3, 1), (4, 3)],
    missed_edges=[(1, 0)],
    false_edges=[(2, 0)],
    edge_scores=[0.3, 0.5, 0.6],
    head_of_slot=(0,),
  )
  strict = recovery.compare(ATTENTION, GRAPH, threshold=0.6)
  assert (strict.recovered, strict.false_parents) == (3, 0)


def test_heads_are_matched_to_slots():
  graph = graphs.from_parents([(), (), (0, 1), (0, 2), (1, 3)], (2, 4))
  first, second = np.zeros((5, 5)), np.zeros((5, 5))
  first[[2, 3, 4], [1, 2, 3]] = 0.9  # the right parents
  second[[2, 3, 4], [0, 0, 2]] = 0.8  # the left ones, the last of them wrong
  found = recovery.compare(np.stack([first, second]), graph)
  assert found.head_of_slot == (1, 0)
  assert (found.edges, found.recovered) == (6, 5)
  assert found.missed_edges == [(4, 1)]
  assert found.edge_scores == [0.8, 0.9, 0.8, 0.9, 0.0, 0.9]


def test_more_heads_than_slots_takes_the_best_one():
  noise = np.full((6, 6), 0.1)
  found = recovery.compare(
    np.stack([noise, ATTENTION]), GRAPH, include_self=True
  )
  assert found.head_of_slot == (1,)
  assert (found.recovered, found.false_parents) == (2, 1)


def test_roots_only():
  graph = graphs.from_parents([-1, -1, -1])
  found = recovery.compare(np.tri(3), graph)
  assert (found.edges, found.recovered, found.false_parents) == (0, 0, 1)
  assert found.false_edges == [(1, 0)]


@pytest.mark.parametrize(
  ("score", "message"),
  [
    (np.zeros((5, 5)), "expected scores 6 x 6"),
    (np.full((6, 6), np.nan), "scores must be finite"),
    (np.zeros(6), "expected scores 6 x 6"),
  ],
)
def test_refuses(score, message):
  with pytest.raises(ValueError, match=message):
    recovery.compare(score, GRAPH)


def test_refuses_fewer_heads_than_slots():
  with pytest.raises(ValueError, match="2 parent slots need as many heads"):
    recovery.compare(np.zeros((5, 5)), graphs.kgram(5, 2))
