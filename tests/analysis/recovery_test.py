import jax
import networkx
import numpy as np
import pytest

from icl_causal import graphs
from icl_causal.analysis import recovery

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
  edges = recovery.compare(ATTENTION, GRAPH, include_self=True)
  assert edges == recovery.Recovery(
    edges=3,
    recovered=2,
    false_parents=1,
    recovered_edges=[(3, 1), (4, 3)],
    missed_edges=[(1, 0)],
    false_edges=[(2, 0)],
    edge_scores=[0.3, 0.5, 0.6],
    head_of_slot=(0,),
    hamming_distance=3,  # (2, 0) is extra; (1, 0) and (3, 1), at .5, missing
  )
  strict = recovery.compare(ATTENTION, GRAPH, threshold=0.6)
  assert (strict.recovered, strict.false_parents) == (3, 0)
  # No entry is above the threshold: all three edges are missing.
  assert strict.hamming_distance == 3


def test_heads_are_matched_to_slots():
  graph = graphs.from_parents([(), (), (0, 1), (0, 2), (1, 3)], (2, 4))
  first, second = np.zeros((5, 5)), np.zeros((5, 5))
  first[[2, 3, 4], [1, 2, 3]] = 0.9  # the right parents
  second[[2, 3, 4], [0, 0, 2]] = 0.8  # the left parents, the last one wrong
  edges = recovery.compare(np.stack([first, second]), graph)
  assert edges.head_of_slot == (1, 0)
  assert (edges.edges, edges.recovered) == (6, 5)
  assert edges.missed_edges == [(4, 1)]
  assert edges.edge_scores == [0.8, 0.9, 0.8, 0.9, 0.0, 0.9]


def test_with_more_heads_than_slots_the_best_head_is_used():
  noise = np.full((6, 6), 0.1)
  edges = recovery.compare(
    np.stack([noise, ATTENTION]), GRAPH, include_self=True
  )
  assert edges.head_of_slot == (1,)
  assert (edges.recovered, edges.false_parents) == (2, 1)


def test_a_head_without_a_slot_has_no_false_parents():
  """Its attention in the row of a root does not count."""
  truth = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
  other = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
  graph = graphs.from_parents([-1, 0, -1, -1])
  edges = recovery.compare(np.stack([truth, other]), graph)
  assert edges.head_of_slot == (0,)
  assert (edges.recovered, edges.false_parents) == (1, 0)
  assert edges.false_edges == []


def test_hamming_distance_by_hand():
  # Row 2, a root, has a false parent; row 3 has parent 0 instead of 1.
  score = np.zeros((6, 6))
  score[1, 0], score[2, 1], score[3, 0], score[4, 3] = 0.6, 0.7, 0.8, 0.9
  assert recovery.compare(score, GRAPH).hamming_distance == 3
  # A threshold per row removes the false parent of row 2.
  threshold_T = np.array([0.5, 0.5, 0.75, 0.5, 0.5, 0.5])
  by_row = recovery.compare(score, GRAPH, threshold_T)
  assert (by_row.hamming_distance, by_row.false_parents) == (2, 0)


def test_hamming_distance_with_several_parents():
  graph = graphs.from_parents([-1, -1, (0, 1), 1], (2, 3))
  score = np.zeros((2, 4, 4))
  score[:, 2, :2] = np.eye(2)
  score[0, 3, 1] = score[1, 3, 1] = 0.9  # both heads attend to the one parent
  assert recovery.compare(score, graph).hamming_distance == 0
  score[1, 3, 1], score[1, 3, 2] = 0.0, 0.9
  assert recovery.compare(score, graph).hamming_distance == 1


def test_rank_by_hand():
  score = np.zeros((6, 6))
  # In order: an edge, no edge, an edge, and (4, 3) tied with the other seven.
  score[3, 1], score[2, 0], score[1, 0] = 0.9, 0.8, 0.7
  score[5] = 1  # the query's row is ignored
  assert recovery.rank(score, GRAPH) == recovery.Ranking(
    candidates=10,
    edges=3,
    recovered=2,
    average_precision=pytest.approx((1 / 1 + 2 / 3 + 3 / 10) / 3),
    prevalence=0.3,
  )
  flat = recovery.rank(np.ones((6, 6)), GRAPH)
  assert flat.average_precision == pytest.approx(flat.prevalence)
  heads = np.stack([np.where(score == 0.7, 0, score), np.minimum(score, 0.7)])
  assert recovery.rank(heads, GRAPH) == recovery.rank(score, GRAPH)


def test_rank_with_several_parents_and_without_edges():
  graph = graphs.kgram(5, 2)
  assert recovery.rank(graphs.adjacency(graph), graph) == recovery.Ranking(
    10, 6, 6, 1.0, 0.6
  )
  roots = graphs.from_parents([-1, -1, -1])
  assert recovery.rank(np.ones((3, 3)), roots) == (1, 0, 0, 0.0, 0.0)
  assert recovery.rank(np.ones((2, 2)), graphs.chain(2)) == (0, 0, 0, 0.0, 0.0)


def test_control_is_the_chance_level():
  graph = graphs.chain(9)
  perfect = np.asarray(graphs.adjacency(graph), float)
  control = recovery.control(jax.random.key(0), perfect, graph, 400)
  # The parent of row i is drawn from i candidates.
  chance = np.mean([1 / i for i in range(1, 8)])
  assert abs(control.recall - chance) < 4 * control.recall_deviation / 20
  assert 0.01 < control.recall_deviation < 0.3
  assert 0.3 < control.average_precision < 0.6
  assert recovery.rank(perfect, graph).average_precision == 1


@pytest.mark.parametrize("seed", range(5))
def test_chow_liu_is_the_maximum_spanning_tree(seed):
  T = 9
  I_TxT = np.tril(np.random.default_rng(seed).uniform(size=(T, T)), -1)
  I_TxT[-1] = 2  # the query's row is ignored
  weighted = networkx.Graph()
  weighted.add_weighted_edges_from(
    (i, j, I_TxT[i, j]) for i in range(T - 1) for j in range(i)
  )
  tree = networkx.maximum_spanning_tree(weighted)
  expected = sorted((max(edge), min(edge)) for edge in tree.edges)
  assert recovery.chow_liu(I_TxT, graphs.chain(T)) == expected
  cut = np.median([I_TxT[edge] for edge in expected])
  assert recovery.chow_liu(I_TxT, graphs.chain(T), cut) == [
    edge for edge in expected if I_TxT[edge] > cut
  ]


def test_roots_only():
  graph = graphs.from_parents([-1, -1, -1])
  edges = recovery.compare(np.tri(3), graph)
  assert (edges.edges, edges.recovered, edges.false_parents) == (0, 0, 1)
  assert edges.false_edges == [(1, 0)]


@pytest.mark.parametrize(
  ("score", "message"),
  [
    (np.zeros((5, 5)), "expected scores 6 x 6"),
    (np.full((6, 6), np.nan), "scores must be finite"),
    (np.zeros(6), "expected scores 6 x 6"),
  ],
)
def test_refuses_invalid_scores(score, message):
  with pytest.raises(ValueError, match=message):
    recovery.compare(score, GRAPH)


def test_refuses_fewer_heads_than_slots():
  with pytest.raises(ValueError, match="2 parent slots need as many heads"):
    recovery.compare(np.zeros((5, 5)), graphs.kgram(5, 2))


def test_a_deviation_needs_two_graphs():
  with pytest.raises(ValueError, match="num_graphs must be at least 2, got 1"):
    recovery.control(jax.random.key(0), ATTENTION, GRAPH, 1)


def test_mean_softmax_on_parents_by_hand():
  """Softmaxes over two and three positions; entries above are not read."""
  graph = graphs.from_parents([-1, 0, 1, -1])
  score = np.full((1, 4, 4), 50.0)
  score[0, 1, :2] = np.log([3.0, 1.0])
  score[0, 2, :3] = np.log([1.0, 2.0, 5.0])
  mean = recovery.mean_softmax_on_parents(score, graph)
  assert mean == pytest.approx((3 / 4 + 2 / 8) / 2)
  roots = graphs.from_parents([-1] * 4)
  assert recovery.mean_softmax_on_parents(score, roots) is None


def test_compare_with_a_latent_graph_by_hand():
  """Edges are those of all graphs; a parent of any graph is not false."""
  latent = graphs.stack(
    [
      graphs.from_parents([-1, 0, 0, -1, 3], [4]),
      graphs.from_parents([-1, 0, 1, -1, 2], [4]),
    ]
  )
  maps_TxT = np.array(
    [
      [1.0, 0, 0, 0, 0],
      [0.9, 0.1, 0, 0, 0],  # its parent in both
      [0.2, 0.7, 0.1, 0, 0],  # a parent in the second graph
      [0.1, 0.1, 0.7, 0.1, 0],  # a root in both
      [0.0, 0.8, 0.1, 0.1, 0],  # a parent in none, at the last position
    ]
  )
  edges = recovery.compare(maps_TxT, latent, include_self=True)
  assert (edges.edges, edges.recovered_edges) == (1, [(1, 0)])
  assert edges.false_edges == [(3, 2), (4, 1)]
  assert edges.edge_scores == [0.9]
  # The predicted edges of rows 2, 3 and 4 are no shared edges.
  assert edges.hamming_distance == 3
  maps_TxT[4] = [0, 0, 0.2, 0.7, 0.1]
  assert recovery.compare(maps_TxT, latent).false_edges == [(3, 2)]


def test_the_query_of_every_graph_is_ignored():
  latent = graphs.stack(
    graphs.from_parents(parents) for parents in ([-1, 0, -1], [-1, -1, -1])
  )
  maps_TxT = np.array([[1.0, 0, 0], [0.1, 0.9, 0], [0, 0.9, 0.1]])
  assert recovery.compare(maps_TxT, latent).false_edges == []


def test_equal_graphs_are_compared_as_one():
  latent = graphs.stack([GRAPH, GRAPH])
  assert recovery.compare(ATTENTION, latent) == recovery.compare(
    ATTENTION, GRAPH
  )
