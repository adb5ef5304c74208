"""Causal graphs over the positions of a prompt, as small integer arrays.

A graph is a pytree of arrays, so one compiled program serves all graphs of a
size, and `jax.vmap` maps over graphs. Positions are 0-based: the paper's
s_1, .., s_T are positions 0, .., T-1, and its s_{T+1} is the target.
"""

from collections.abc import Iterable, Sequence
import itertools
from typing import NamedTuple

import chex
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import checks

NO_PARENT = -1


class Graph(NamedTuple):
  """A directed acyclic graph in which every parent is an earlier position.

  Attributes:
    parents_TxK: int32, the parents of each position in increasing order, padded
      with -1; after `in_slots`, the parent may be in any slot. A last row
      without parents is the query of Task 2.4, which is uniform on the states.
    target_K: int32, the parents of the predicted token s_{T+1}, padded with -1.
  """

  parents_TxK: jax.Array
  target_K: jax.Array


def from_parents(parents, target: Sequence[int] | None = None) -> Graph:
  """Builds a graph from parent lists.

  Args:
    parents: one entry for each of the T positions: a parent, -1 for none, or a
      sequence of parents; the number of parents may differ. Or a networkx
      DiGraph with nodes 0, .., T-1 and edges from parent to child.
    target: the parents of the predicted token. The default is the last
      position, which must then be the query, that is, have no parent (Task
      2.4).

  Raises:
    ValueError: if the input is not a valid graph over T >= 2 positions; the
      message is one line.
  """
  if hasattr(parents, "predecessors"):
    parents = _parent_lists(parents)
  if not isinstance(parents, Iterable):
    raise ValueError(
      f"parents must have an entry for each position, got {parents!r}"
    )
  rows = [_row(entry, f"position {i}") for i, entry in enumerate(parents)]
  if len(rows) < 2:
    raise ValueError(f"a graph needs T >= 2 positions, got {len(rows)}")
  for i, row in enumerate(rows):
    _check_row(row, f"position {i}", limit=i)
  if target is None:
    if rows[-1]:
      raise ValueError(
        "without a target the last position is the query and has no parent, "
        f"got {rows[-1]}: append -1 for the query, or pass the target's parents"
      )
    target = (len(rows) - 1,)
  target_row = _row(target, "the target")
  _check_row(target_row, "the target", limit=len(rows))
  if not target_row:
    raise ValueError("the target needs at least one parent, got none")
  K = max(len(row) for row in [*rows, target_row])
  padded = [row + [NO_PARENT] * (K - len(row)) for row in [*rows, target_row]]
  array = np.asarray(padded, np.int32)
  return Graph(jnp.asarray(array[:-1]), jnp.asarray(array[-1]))


def chain(T: int) -> Graph:
  """The parent of each position is the previous one: an induction head."""
  return from_parents([*range(-1, T - 2), NO_PARENT])


def pairs(T: int) -> Graph:
  """The parent of an odd position is the previous one; even ones are roots."""
  rows = [i - 1 if i % 2 else NO_PARENT for i in range(T - 1)]
  return from_parents([*rows, NO_PARENT])


def kgram(T: int, k: int) -> Graph:
  """Parents i-k, .., i-1; the first k positions are roots (section 6)."""
  if not 1 <= k < T:
    raise ValueError(f"a k-gram needs 1 <= k < T, got k = {k} and T = {T}")
  rows = [range(i - k, i) if i >= k else () for i in range(T)]
  return from_parents(rows, range(T - k, T))


def half_and_previous(T: int) -> Graph:
  """Parents (i-1)//2 and i-1; positions 0 and 1 are roots (figure 5)."""
  rows = [((i - 1) // 2, i - 1) if i > 1 else () for i in range(T + 1)]
  return from_parents(rows[:T], rows[T])


def random_tree(key: jax.Array, T: int) -> Graph:
  """Draws the parent of position i uniformly from -1, 0, .., i-1; -1 is a root.

  Args:
    key: a typed key; may be traced.
    T: positions, the query included.
  """
  _check_random(T)
  parents = jax.random.randint(key, (T - 1,), NO_PARENT, jnp.arange(T - 1))
  return _single_parent(parents)


def random_forest(key: jax.Array, T: int, root_probability: float) -> Graph:
  """Draws roots independently, and other parents uniformly from 0, .., i-1.

  Args:
    key: a typed key; may be traced.
    T: positions, the query included.
    root_probability: the probability that a position 1, .., T-2 is a root;
      position 0 is always a root.
  """
  _check_random(T)
  if not 0 <= root_probability <= 1:
    raise ValueError(
      f"root_probability must be from 0 to 1, got {root_probability}"
    )
  root_key, parent_key = jax.random.split(key)
  positions = jnp.arange(T - 1)
  is_root = jax.random.bernoulli(root_key, root_probability, (T - 1,))
  parents = jax.random.randint(
    parent_key, (T - 1,), 0, jnp.maximum(positions, 1)
  )
  is_root = is_root | (positions == 0)
  return _single_parent(jnp.where(is_root, NO_PARENT, parents))


def rewire(key: jax.Array, graph: Graph) -> Graph:
  """Redraws the parents of every position; the target stays the same.

  Each position keeps its number of parents. They are uniform over the sets of
  that many earlier positions. Serves as a random baseline for a score.

  Args:
    key: a typed key; may be traced.
    graph: any graph; may be traced.
  """
  T, K = graph.parents_TxK.shape
  priority_TxT = jax.random.uniform(key, (T, T)) + jnp.tri(T, k=-1)
  drawn_TxK = jnp.argsort(priority_TxT, axis=1, descending=True)[:, :K]
  none = graph.parents_TxK == NO_PARENT
  ordered_TxK = jnp.sort(jnp.where(none, T, drawn_TxK), axis=1)
  return graph._replace(
    parents_TxK=jnp.where(none, NO_PARENT, ordered_TxK).astype(jnp.int32)
  )


def in_slots(graph: Graph, slot_T, K: int) -> Graph:
  """Moves the parent of each position to one of K slots.

  For priors whose slots differ, such as `priors.mixture_transition`.

  Args:
    graph: with single parents; may be traced.
    slot_T: the slot of each position, from 0 to K - 1; may be traced.
    K: number of slots. The target's parent is in slot 0.
  """
  T = len(graph.parents_TxK)
  chex.assert_shape(graph.parents_TxK, (T, 1))
  slot_T = jnp.asarray(slot_T)
  chex.assert_shape(slot_T, (T,))
  checks.require(
    ((slot_T >= 0) & (slot_T < K)).all(), f"slots must be from 0 to {K - 1}"
  )
  is_slot_TxK = jax.nn.one_hot(slot_T, K, dtype=bool)
  return Graph(
    jnp.where(is_slot_TxK, graph.parents_TxK, NO_PARENT),
    jnp.where(jnp.arange(K) == 0, graph.target_K, NO_PARENT),
  )


def lags(T: int, lags: Sequence[int]) -> Graph:
  """One graph for each lag k: the parent of position i is i - k.

  The first max(lags) positions are roots in every graph, and the parent of the
  target is T - k. The task of selective induction heads (D'Angelo et al.,
  2025).

  Args:
    T: positions.
    lags: distinct lags from 1 to T - 1.

  Returns:
    M graphs along a leading axis, for `sampling.sample_latent`.
  """
  lags = tuple(lags)
  if not lags or len(set(lags)) < len(lags):
    raise ValueError(f"lags must be distinct, at least one, got {lags}")
  if not 1 <= min(lags) <= max(lags) < T:
    raise ValueError(f"lags must be from 1 to T - 1 = {T - 1}, got {lags}")
  first = max(lags)
  return stack(
    from_parents(
      [NO_PARENT] * first + [i - k for i in range(first, T)], [T - k]
    )
    for k in lags
  )


def tree_examples(num_examples: int, length: int) -> Graph:
  """Examples that share a parent tree: one graph for each tree.

  A prompt has `num_examples` examples of `length` tokens, and a last one
  without its last token, which is the target. In each example, the first
  position is a root, and the parent of position i > 0 is one of the positions
  0, .., i - 1 of the same example, the same in all examples. There are
  (length - 1)! trees. After the task of "How Transformers Learn Causal
  Structures In-Context" (ICLR 2026).

  Returns:
    (length - 1)! graphs over T = (num_examples + 1) * length - 1 positions,
    along a leading axis.
  """
  if num_examples < 0 or not 2 <= length <= 7:
    raise ValueError(
      "tree examples need num_examples >= 0 and a length from 2 to 7, got "
      f"{num_examples} and {length}"
    )
  if num_examples == 0 and length == 2:
    raise ValueError("a graph needs T >= 2 positions, got 1")
  trees_MxH = np.array(
    [
      [NO_PARENT, *tree]
      for tree in itertools.product(*map(range, range(1, length)))
    ]
  )
  starts_L = length * np.arange(num_examples + 1)
  parents_MxLxH = np.where(
    trees_MxH[:, None] >= 0, starts_L[:, None] + trees_MxH[:, None], NO_PARENT
  )
  parents_MxT = parents_MxLxH.reshape(len(trees_MxH), -1).astype(np.int32)
  return Graph(
    jnp.asarray(parents_MxT[:, :-1, None]), jnp.asarray(parents_MxT[:, -1:])
  )


def stack(graphs: Iterable[Graph]) -> Graph:
  """Graphs of one size along a leading axis."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *graphs)


def shared(graphs: Graph) -> Graph:
  """The edges that all graphs have, as one graph; a single graph stays itself.

  With several parents, an edge must be in the same slot of all graphs.

  Args:
    graphs: along a leading axis; or one graph.
  """
  if graphs.parents_TxK.ndim == 2:
    return graphs

  def common(parents_Mx):
    is_same = (parents_Mx == parents_Mx[:1]).all(axis=0)
    return jnp.where(is_same, parents_Mx[0], NO_PARENT)

  return jax.tree.map(common, graphs)


def next_parents(graph: Graph) -> jax.Array:
  """The parents of the token after each position, T x K.

  The graph shifted by one: row t has the parents of position t + 1, and the
  last row those of the target.
  """
  return jnp.concatenate([graph.parents_TxK[1:], graph.target_K[None]])


def is_query(graph: Graph) -> jax.Array:
  """For each position, whether it is the query: the last, without parents."""
  T = len(graph.parents_TxK)
  has_none_T = (graph.parents_TxK == NO_PARENT).all(axis=1)
  return has_none_T & (jnp.arange(T) == T - 1)


def edges(graph: Graph) -> list[tuple[int, int]]:
  """The pairs (child, parent), sorted by child, then by slot; not traceable."""
  parents_TxK = np.asarray(graph.parents_TxK)
  return [
    (child, int(parent))
    for child, row in enumerate(parents_TxK)
    for parent in row
    if parent != NO_PARENT
  ]


def adjacency(graph: Graph) -> jax.Array:
  """The adjacency matrix: boolean, T x T, true at (child, parent)."""
  chex.assert_rank(list(graph), [2, 1])
  T = graph.parents_TxK.shape[0]
  return jax.nn.one_hot(graph.parents_TxK, T, dtype=bool).any(axis=1)


def _single_parent(parents) -> Graph:
  query = jnp.full((1,), NO_PARENT, jnp.int32)
  parents_T = jnp.concatenate([parents.astype(jnp.int32), query])
  return Graph(parents_T[:, None], jnp.array([parents_T.size - 1], jnp.int32))


def _parent_lists(digraph) -> list[list[int]]:
  nodes = set(digraph.nodes)
  if nodes != set(range(len(nodes))):
    raise ValueError(
      f"the nodes of a DiGraph must be 0, .., T-1, got {sorted(nodes, key=str)}"
    )
  return [list(digraph.predecessors(i)) for i in range(len(nodes))]


def _row(entry, where: str) -> list[int]:
  """The parents in one entry, sorted, without the padding of -1."""
  values = np.atleast_1d(np.asarray(entry))
  if values.size and not np.issubdtype(values.dtype, np.integer):
    raise ValueError(f"{where}: parents must be integers, got {entry!r}")
  return sorted(int(value) for value in values.ravel() if value != NO_PARENT)


def _check_row(row: list[int], where: str, limit: int):
  if len(set(row)) < len(row):
    raise ValueError(f"{where}: parents must differ, got {row}")
  for parent in row:
    if not 0 <= parent < limit:
      raise ValueError(
        f"{where}: parent {parent} is not an earlier position"
        + (f" (0 to {limit - 1})" if limit else ": no position is earlier")
      )


def _check_random(T: int):
  if T < 2:
    raise ValueError(f"a graph needs T >= 2 positions, got {T}")
