"""Top entries of a score matrix against the edges of the graph."""

from typing import NamedTuple

import numpy as np
from scipy import optimize

from icl_causal import graphs
from icl_causal.graphs import Graph


class Recovery(NamedTuple):
  """What a score says of a graph; edges are pairs (child, parent).

  Attributes:
    edges: how many the graph has.
    recovered: of these, how many are the top entry of their row.
    false_parents: how many roots have one earlier position above the threshold.
    recovered_edges: which.
    missed_edges: which are not recovered.
    false_edges: each such root with its top earlier position.
    edge_scores: the score of every edge, in the order of `graphs.edges`.
    head_of_slot: the head that each parent slot was matched to.
  """

  edges: int
  recovered: int
  false_parents: int
  recovered_edges: list[tuple[int, int]]
  missed_edges: list[tuple[int, int]]
  false_edges: list[tuple[int, int]]
  edge_scores: list[float]
  head_of_slot: tuple[int, ...]


def compare(
  score, graph: Graph, threshold: float = 0.5, include_self: bool = False
) -> Recovery:
  """Compares the top entry of each row with the parent of that position.

  With several parents, heads are matched to parent slots so that the most
  edges are recovered. The query of Task 2.4, a last position without parents,
  is not part of the causal graph and not counted as a root.

  Args:
    score: T x T or H x T x T; row i holds the candidates j < i as parents of i.
    graph: to compare with.
    threshold: a root whose top earlier entry is above it has a false parent;
      .5 suits attention.
    include_self: whether the diagonal is a candidate too, as it is for
      attention: a row that attends most to itself has then missed its parent.

  Raises:
    ValueError: if the score is not finite, has another T than the graph, or
      fewer heads than the graph has parent slots.
  """
  score_HxTxT = np.asarray(score, np.float64)
  if score_HxTxT.ndim == 2:
    score_HxTxT = score_HxTxT[None]
  parents_TxK = np.asarray(graph.parents_TxK)
  T, K = parents_TxK.shape
  if score_HxTxT.ndim != 3 or score_HxTxT.shape[1:] != (T, T):
    raise ValueError(f"expected scores {T} x {T}, got {np.shape(score)}")
  if len(score_HxTxT) < K:
    raise ValueError(f"{K} parent slots need as many heads, got {score.shape}")
  if not np.isfinite(score_HxTxT).all():
    raise ValueError("scores must be finite")

  earlier = np.tri(T, k=-1, dtype=bool)
  candidates = np.tri(T, dtype=bool) if include_self else earlier
  top_HxT = np.where(candidates, score_HxTxT, -np.inf).argmax(axis=2)
  is_edge_TxK = parents_TxK != graphs.NO_PARENT
  hits_HxTxK = (top_HxT[:, :, None] == parents_TxK) & is_edge_TxK
  heads, slots = optimize.linear_sum_assignment(-hits_HxTxK.sum(axis=1))
  head_of_slot = heads[np.argsort(slots)]

  all_edges, hit, edge_scores = [], [], []
  for i, k in np.argwhere(is_edge_TxK):
    head, parent = head_of_slot[k], parents_TxK[i, k]
    all_edges.append((int(i), int(parent)))
    hit.append(bool(hits_HxTxK[head, i, k]))
    edge_scores.append(float(score_HxTxT[head, i, parent]))

  false_edges = []
  for i in np.flatnonzero(~is_edge_TxK[:-1].any(axis=1)):
    row_T = score_HxTxT[head_of_slot, i, :i].max(axis=0) if i else np.empty(0)
    if row_T.size and row_T.max() > threshold:
      false_edges.append((int(i), int(row_T.argmax())))
  return Recovery(
    edges=len(all_edges),
    recovered=sum(hit),
    false_parents=len(false_edges),
    recovered_edges=[e for e, h in zip(all_edges, hit, strict=True) if h],
    missed_edges=[e for e, h in zip(all_edges, hit, strict=True) if not h],
    false_edges=false_edges,
    edge_scores=edge_scores,
    head_of_slot=tuple(int(head) for head in head_of_slot),
  )
