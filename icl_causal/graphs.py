"""Causal graphs over the positions of a prompt, as small integer arrays.

A graph is data, not structure: one compiled program serves every graph of a
size, and `jax.vmap` runs over graphs. Positions are 0-based here, so the
paper's s_1, .., s_T are rows 0, .., T-1 and its s_{T+1} is the target.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import chex
import jax
from jax import numpy as jnp
import numpy as np

NO_PARENT = -1


class Graph(NamedTuple):
  """A directed acyclic graph in which every parent is an earlier position.

  Attributes:
    parents_TxK: int32, the parents of each position from left to right, then
      -1 where there are fewer than K. A last row without parents is the query
      of Task 2.4, which is uniform on the states.
    target_K: int32, the parents of the predicted token s_{T+1}, likewise.
  """

  parents_TxK: jax.Array
  target_K: jax.Array


def from_parents(parents, target: Sequence[int] | None = None) -> Graph:
  """A graph from its parent lists.

  Args:
    parents: one entry for each of the T positions: a parent, -1 for none, or a
      sequence of parents (arities may differ); or a networkx DiGraph with
      nodes 0, .., T-1 and edges from parent to child.
    target: the parents of the predicted token. By default the last position
      alone, which must then be a query, that is, have no parent (Task 2.4).

  Raises:
    ValueError: in one line, if this is no graph over T >= 2 positions.
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
        f"without a target the last position is the query and has no parent, "
        f"got {rows[-1]}: append -1 for the query, or name the target's parents"
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
  """Every position depends on the one before: an induction head."""
  return from_parents([*range(-1, T - 2), NO_PARENT])


def pairs(T: int) -> Graph:
  """Odd positions depend on the one before, even ones are roots."""
  rows = [i - 1 if i % 2 else NO_PARENT for i in range(T - 1)]
  return from_parents([*rows, NO_PARENT])


def kgram(T: int, k: int) -> Graph:
  """Position i depends on i-k, .., i-1; the first k are roots (section 6)."""
  if not 1 <= k < T:
    raise ValueError(f"a k-gram needs 1 <= k < T, got k = {k} and T = {T}")
  rows = [range(i - k, i) if i >= k else () for i in range(T)]
  return from_parents(rows, range(T - k, T))


def half_and_previous(T: int) -> Graph:
  """Parents (i-1)//2 and i-1; positions 0 and 1 are roots (figure 5)."""
  rows = [((i - 1) // 2, i - 1) if i > 1 else () for i in range(T + 1)]
  return from_parents(rows[:T], rows[T])


def random_tree(key: jax.Array, T: int) -> Graph:
  """Each parent uniform on -1, 0, .., i-1, where -1 makes a root.

  Args:
    key: a typed key; may be traced.
    T: positions, the query included.
  """
  _check_random(T)
  parents = jax.random.randint(key, (T - 1,), NO_PARENT, jnp.arange(T - 1))
  return _single_parent(parents)


def random_forest(key: jax.Array, T: int, root_probability: float) -> Graph:
  """Each position a root by a coin toss, else its parent uniform before it.

  Args:
    key: a typed key; may be traced.
    T: positions, the query included.
    root_probability: of positions 1, .., T-2; position 0 is always a root.
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
  """The graph with the parents of each position drawn anew, the target kept.

  As many as before, uniform on the sets of so many earlier positions: a
  random graph to hold a score against.

  Args:
    key: a typed key; may be traced.
    graph: any; may be traced.
  """
  T, K = graph.parents_TxK.shape
  lottery_TxT = jax.random.uniform(key, (T, T)) + jnp.tri(T, k=-1)
  drawn_TxK = jnp.argsort(lottery_TxT, axis=1, descending=True)[:, :K]
  none = graph.parents_TxK == NO_PARENT
  ordered_TxK = jnp.sort(jnp.where(none, T, drawn_TxK), axis=1)
  return graph._replace(
    parents_TxK=jnp.where(none, NO_PARENT, ordered_TxK).astype(jnp.int32)
  )


def edges(graph: Graph) -> list[tuple[int, int]]:
  """The pairs (child, parent), by child and then by slot; not traceable."""
  parents_TxK = np.asarray(graph.parents_TxK)
  return [
    (child, int(parent))
    for child, row in enumerate(parents_TxK)
    for parent in row
    if parent != NO_PARENT
  ]


def adjacency(graph: Graph) -> jax.Array:
  """Boolean T x T, true at (child, parent)."""
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
  """The parents named by one entry, sorted, without the -1 of padding."""
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
        + (f" (0 to {limit - 1})" if limit else ", and none is earlier")
      )


def _check_random(T: int):
  if T < 2:
    raise ValueError(f"a graph needs T >= 2 positions, got {T}")
