import jax
import networkx
import numpy as np
import pytest

from icl_causal import graphs


@pytest.mark.parametrize(
  ("graph", "edges", "target"),
  [
    (graphs.chain(5), [(1, 0), (2, 1), (3, 2)], [4]),
    (graphs.pairs(5), [(1, 0), (3, 2)], [4]),
    (graphs.pairs(6), [(1, 0), (3, 2)], [5]),
    (graphs.chain(2), [], [1]),
    (graphs.kgram(4, 1), [(1, 0), (2, 1), (3, 2)], [3]),
    (graphs.kgram(4, 2), [(2, 0), (2, 1), (3, 1), (3, 2)], [2, 3]),
    (
      graphs.half_and_previous(5),
      [(2, 0), (2, 1), (3, 1), (3, 2), (4, 1), (4, 3)],
      [2, 4],
    ),
    (
      graphs.from_parents([-1, 0, 0, 1, 2, -1]),
      [(1, 0), (2, 0), (3, 1), (4, 2)],
      [5],
    ),
    (
      graphs.from_parents([(), 0, (1, 0), -1], [3]),
      [(1, 0), (2, 0), (2, 1)],
      [3, -1],
    ),
  ],
)
def test_constructors(graph, edges, target):
  assert graphs.edges(graph) == edges
  assert graph.target_K.tolist() == target
  T, K = graph.parents_TxK.shape
  assert K == len(target)
  adjacency = np.zeros((T, T), bool)
  for child, parent in edges:
    adjacency[child, parent] = True
  np.testing.assert_array_equal(graphs.adjacency(graph), adjacency)


def test_from_networkx_and_arrays_agree_with_lists():
  rows = [(), (), (0, 1), 1, (2, 3)]
  digraph = networkx.DiGraph()
  digraph.add_nodes_from(range(5))
  digraph.add_edges_from([(1, 2), (0, 2), (1, 3), (3, 4), (2, 4)])
  expected = graphs.from_parents(rows, (3, 4))
  again = graphs.from_parents(np.asarray(expected.parents_TxK), (4, 3))
  for graph in (graphs.from_parents(digraph, (3, 4)), again):
    np.testing.assert_array_equal(graph.parents_TxK, expected.parents_TxK)
    np.testing.assert_array_equal(graph.target_K, expected.target_K)


@pytest.mark.parametrize(
  ("parents", "target", "message"),
  [
    ([-1], None, "a graph needs T >= 2 positions, got 1"),
    ([], None, "a graph needs T >= 2 positions, got 0"),
    ([-1, 0, 0, 1, 2], None, "append -1 for the query"),
    ([-1, 1, -1], None, "position 1: parent 1 is not an earlier position"),
    ([0, -1], None, "position 0: parent 0 .* no position is earlier"),
    ([-1, -2, -1], None, r"position 1: parent -2 .*\(0 to 0\)"),
    ([-1, -1, (0, 0), -1], None, r"position 2: parents must differ"),
    ([-1, 0.5, -1], None, "position 1: parents must be integers"),
    ([-1, 0, -1], (3,), r"the target: parent 3 .*\(0 to 2\)"),
    ([-1, 0, -1], (), "the target needs at least one parent"),
    (networkx.DiGraph([(1, 2)]), None, "nodes of a DiGraph must be 0, .., T-1"),
  ],
)
def test_from_parents_refuses(parents, target, message):
  with pytest.raises(ValueError, match=message):
    graphs.from_parents(parents, target)


@pytest.mark.parametrize(
  "construct",
  [
    lambda: graphs.kgram(3, 3),
    lambda: graphs.kgram(3, 0),
    lambda: graphs.random_tree(jax.random.key(0), 1),
    lambda: graphs.random_forest(jax.random.key(0), 4, 1.5),
  ],
)
def test_constructors_refuse(construct):
  with pytest.raises(ValueError, match="got"):
    construct()


def _parent_counts(constructor, T, num=20_000):
  """Counts (T, T + 1) of each parent of each position; column 0 is none."""
  keys = jax.random.split(jax.random.key(1), num)
  parents_NxT = np.asarray(jax.vmap(constructor)(keys).parents_TxK)[..., 0]
  return np.stack(
    [np.bincount(column + 1, minlength=T + 1) for column in parents_NxT.T]
  )


def _assert_law(counts, law):
  num = counts.sum(axis=1, keepdims=True)
  error = np.sqrt(law * (1 - law) / num)
  np.testing.assert_array_less(np.abs(counts / num - law), 4 * error + 1e-12)


def test_random_tree_law():
  T = 6
  law = np.zeros((T, T + 1))
  for i in range(T - 1):
    law[i, : i + 1] = 1 / (i + 1)
  law[T - 1, 0] = 1
  _assert_law(_parent_counts(lambda key: graphs.random_tree(key, T), T), law)


def test_random_forest_law():
  T, root = 6, 0.3
  law = np.zeros((T, T + 1))
  law[[0, T - 1], 0] = 1
  for i in range(1, T - 1):
    law[i, 0] = root
    law[i, 1 : i + 1] = (1 - root) / i
  counts = _parent_counts(lambda key: graphs.random_forest(key, T, root), T)
  _assert_law(counts, law)


def test_random_graphs_are_determined_by_their_key():
  first, again, other = (
    graphs.random_forest(jax.random.key(seed), 40, 0.5) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first.parents_TxK, again.parents_TxK)
  assert (first.parents_TxK != other.parents_TxK).any()


def test_rewired_parents_are_uniform_sets():
  graph = graphs.from_parents([-1, 0, (0, 1), -1, (1, 3), 2], (4, 5))
  keys = jax.random.split(jax.random.key(0), 3000)
  drawn = jax.jit(jax.vmap(graphs.rewire, (0, None)))(keys, graph)
  parents_NxTxK = np.asarray(drawn.parents_TxK)
  arity_T = (np.asarray(graph.parents_TxK) >= 0).sum(1)
  assert ((parents_NxTxK >= 0).sum(2) == arity_T).all()
  np.testing.assert_array_equal(
    graphs.from_parents(parents_NxTxK[0], (4, 5)).parents_TxK, parents_NxTxK[0]
  )
  assert (drawn.target_K == graph.target_K[None]).all()
  sets, counts = np.unique(parents_NxTxK[:, 4], axis=0, return_counts=True)
  assert len(sets) == 6  # pairs out of 4 positions
  assert np.abs(counts - 500).max() < 5 * np.sqrt(3000 * 5 / 36)


def test_in_slots_by_hand():
  graph = graphs.in_slots(graphs.from_parents([-1, 0, 1, -1]), [2, 1, 0, 0], 3)
  none = -1
  expected = [[none] * 3, [none, 0, none], [1, none, none], [none] * 3]
  np.testing.assert_array_equal(graph.parents_TxK, expected)
  np.testing.assert_array_equal(graph.target_K, [3, none, none])
  assert graphs.edges(graph) == [(1, 0), (2, 1)]


def test_in_slots_refuses_a_slot_that_does_not_exist():
  with pytest.raises(ValueError, match="slots must be from 0 to 1"):
    graphs.in_slots(graphs.chain(4), [0, 1, 2, 0], 2)


def _parents(graph):
  """Of single parents, M x T."""
  return np.asarray(graph.parents_TxK)[..., 0].tolist()


def test_lags_by_hand():
  graph = graphs.lags(5, (1, 3))
  assert graph.parents_TxK.shape == (2, 5, 1)
  assert _parents(graph) == [[-1, -1, -1, 2, 3], [-1, -1, -1, 0, 1]]
  assert graph.target_K.tolist() == [[4], [2]]
  one = graphs.lags(2, [1])
  assert _parents(one) == [[-1, 0]]
  assert one.target_K.tolist() == [[1]]


@pytest.mark.parametrize(
  ("T", "lags", "message"),
  [
    (5, (), r"lags must be distinct, at least one, got \(\)"),
    (5, (2, 1, 2), r"lags must be distinct, at least one, got \(2, 1, 2\)"),
    (5, (1, 5), r"lags must be from 1 to T - 1 = 4, got \(1, 5\)"),
    (5, (0, 2), r"lags must be from 1 to T - 1 = 4, got \(0, 2\)"),
    (1, (1,), "lags must be from 1 to T - 1 = 0"),
  ],
)
def test_lags_refuse(T, lags, message):
  with pytest.raises(ValueError, match=message) as caught:
    graphs.lags(T, lags)
  assert "\n" not in str(caught.value)


def test_tree_examples_by_hand():
  """Two examples of three tokens: the third has parent 0 or 1."""
  graph = graphs.tree_examples(1, 3)
  assert graph.parents_TxK.shape == (2, 5, 1)
  assert _parents(graph) == [[-1, 0, 0, -1, 3], [-1, 0, 1, -1, 3]]
  assert graph.target_K.tolist() == [[3], [4]]
  assert _parents(graphs.tree_examples(0, 3)) == [[-1, 0]] * 2
  assert _parents(graphs.tree_examples(2, 2)) == [[-1, 0, -1, 2, -1]]


@pytest.mark.parametrize(("length", "num"), [(4, 6), (5, 24), (7, 720)])
def test_there_is_a_graph_for_each_tree(length, num):
  graph = graphs.tree_examples(2, length)
  parents_MxT = np.append(
    np.asarray(graph.parents_TxK)[..., 0], graph.target_K, axis=1
  )
  assert len(np.unique(parents_MxT, axis=0)) == len(parents_MxT) == num
  parents_MxExL = parents_MxT.reshape(num, 3, length)
  starts_E = length * np.arange(3)
  assert (parents_MxExL[:, :, 0] == -1).all()
  trees_MxExL = parents_MxExL[:, :, 1:] - starts_E[:, None]
  assert (trees_MxExL == trees_MxExL[:, :1]).all()
  assert (trees_MxExL >= 0).all()
  assert (trees_MxExL < np.arange(1, length)).all()


@pytest.mark.parametrize("arguments", [(-1, 3), (2, 1), (2, 8), (0, 2)])
def test_tree_examples_refuse(arguments):
  with pytest.raises(ValueError, match="got") as caught:
    graphs.tree_examples(*arguments)
  assert "\n" not in str(caught.value)


def test_shared_edges_by_hand():
  graphs_M = graphs.stack(
    [
      graphs.from_parents([-1, 0, 1, 0, -1], [4]),
      graphs.from_parents([-1, 0, 0, 0, 3], [4]),
    ]
  )
  common = graphs.shared(graphs_M)
  assert _parents(common) == [-1, 0, -1, 0, -1]
  assert common.target_K.tolist() == [4]
  assert graphs.shared(graphs.lags(5, (1, 3))).target_K.tolist() == [-1]
  trees = graphs.shared(graphs.tree_examples(1, 4))
  assert _parents(trees) == [-1, 0, -1, -1, -1, 4, -1]
  one = graphs.chain(4)
  assert graphs.shared(one) is one
  assert _parents(graphs.shared(graphs.stack([one]))) == _parents(one)


def test_stack_puts_graphs_along_a_leading_axis():
  stacked = graphs.stack(iter([graphs.kgram(5, 2), graphs.kgram(5, 2)]))
  assert stacked.parents_TxK.shape == (2, 5, 2)
  assert stacked.target_K.tolist() == [[3, 4]] * 2


def test_next_parents_and_the_query_by_hand():
  graph = graphs.from_parents([-1, 0, (0, 1), -1, (0, 3)], (1, 4))
  assert graphs.next_parents(graph).tolist() == [
    [0, -1],
    [0, 1],
    [-1, -1],
    [0, 3],
    [1, 4],
  ]
  assert graphs.is_query(graph).tolist() == [False] * 5
  assert graphs.is_query(graphs.chain(3)).tolist() == [False, False, True]
  # Roots are no queries, and a last position with parents is none.
  roots = graphs.from_parents([-1, -1, -1])
  assert graphs.is_query(roots).tolist() == [False, False, True]
  no_query = graphs.kgram(3, 1)
  assert graphs.is_query(no_query).tolist() == [False] * 3
  assert graphs.next_parents(no_query).tolist() == [[0], [1], [2]]
