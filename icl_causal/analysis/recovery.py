"""Compares the top entries of a score matrix with the edges of a graph.

Row i of a score has an entry for each candidate parent j < i of position i. The
query of Task 2.4, a last position without parents, is not part of the causal
graph, and its row is ignored.
"""

from typing import NamedTuple

import jax
import numpy as np

from icl_causal import graphs
from icl_causal.analysis import likelihood
from icl_causal.graphs import Graph

# Scores that know the prior, and a search by them.
likelihood_score = likelihood.likelihood_score
left_out_score = likelihood.left_out_score
likelihood_ascent = likelihood.likelihood_ascent


class Recovery(NamedTuple):
  """The edges of a graph that a score recovers, as pairs (child, parent).

  Attributes:
    edges: number of edges of the graph.
    recovered: number of edges that are the top entry of their row.
    false_parents: number of roots with an earlier position above the threshold.
    recovered_edges: the edges that are the top entry of their row.
    missed_edges: the other edges.
    false_edges: (root, its top earlier position) for each false parent.
    edge_scores: the score of each edge, in the order of `graphs.edges`.
    head_of_slot: the head that is matched to each parent slot.
    hamming_distance: the structural Hamming distance, the number of edges to
      add or delete to turn the predicted graph into the true one. The predicted
      parent is the top entry of a row, if it is above the threshold.
  """

  edges: int
  recovered: int
  false_parents: int
  recovered_edges: list[tuple[int, int]]
  missed_edges: list[tuple[int, int]]
  false_edges: list[tuple[int, int]]
  edge_scores: list[float]
  head_of_slot: tuple[int, ...]
  hamming_distance: int


class Ranking(NamedTuple):
  """The ranking of all candidate pairs by score, the highest first.

  Attributes:
    candidates: number of pairs j < i.
    edges: number of candidates that are edges.
    recovered: number of edges among the first `edges` pairs.
    average_precision: the precision at the rank of each edge, averaged over
      edges; 0 without edges. Tied pairs have the rank of the last of them.
    prevalence: the share of candidates that are edges. It is the average
      precision of a random ranking in the limit of many candidates.
  """

  candidates: int
  edges: int
  recovered: int
  average_precision: float
  prevalence: float


class Control(NamedTuple):
  """Recovery of random graphs by one score, as mean and standard deviation.

  Attributes:
    recall: the share of edges that are the top entry of their row.
    recall_deviation: the standard deviation of the recall over graphs.
    average_precision: of the ranking.
    average_precision_deviation: its standard deviation over graphs.
  """

  recall: float
  recall_deviation: float
  average_precision: float
  average_precision_deviation: float


def compare(
  score, graph: Graph, threshold=0.5, include_self: bool = False
) -> Recovery:
  """Compares the top entry of each row with the parent of that position.

  With several parents, heads are matched to parent slots such that the number
  of recovered edges is maximal.

  Args:
    score: T x T or H x T x T.
    graph: the true graph; or several along a leading axis: the edges are those
      that all have, and a false parent is a parent in none of them.
    threshold: an entry must be above it to count as a parent: one number, or
      one per row, such as a quantile of `estimators.permutation_null`. The
      default .5 is for attention.
    include_self: whether the diagonal is a candidate too, as for attention: a
      row that attends most to itself then misses its parent.

  Raises:
    ValueError: if the score is not finite, has another T than the graph, or
      fewer heads than the graph has parent slots.
  """
  num_nodes, in_any_TxT = _num_nodes(graph), _in_any(graph)
  graph = graphs.shared(graph)
  score_HxTxT = _checked(score, graph)
  parents_TxK = np.asarray(graph.parents_TxK)
  T, K = parents_TxK.shape
  if len(score_HxTxT) < K:
    shape = np.shape(score)
    raise ValueError(f"{K} parent slots need as many heads, got {shape}")
  threshold_T = np.broadcast_to(threshold, (T,))
  candidates = np.tri(T, k=0 if include_self else -1, dtype=bool)
  top_HxT = np.where(candidates, score_HxTxT, -np.inf).argmax(axis=2)
  is_edge_TxK = parents_TxK != graphs.NO_PARENT
  hits_HxTxK = (top_HxT[:, :, None] == parents_TxK) & is_edge_TxK
  from scipy import optimize  # slow to import

  heads, slots = optimize.linear_sum_assignment(-hits_HxTxK.sum(axis=1))
  head_of_slot = heads[np.argsort(slots)]

  all_edges, hit, edge_scores = [], [], []
  for i, k in np.argwhere(is_edge_TxK):
    head, parent = head_of_slot[k], parents_TxK[i, k]
    all_edges.append((int(i), int(parent)))
    hit.append(bool(hits_HxTxK[head, i, k]))
    edge_scores.append(float(score_HxTxT[head, i, parent]))

  false_edges, predicted = [], set()
  for i in range(1, num_nodes):
    rows_KxT = score_HxTxT[head_of_slot, i, :i]
    top = int(rows_KxT.max(axis=0).argmax())
    is_edge = is_edge_TxK[i].any() or in_any_TxT[i, top]
    if not is_edge and rows_KxT.max() > threshold_T[i]:
      false_edges.append((i, top))
    predicted |= {
      (i, int(j))
      for head, j in zip(head_of_slot, top_HxT[head_of_slot, i], strict=True)
      if j < i and score_HxTxT[head, i, j] > threshold_T[i]
    }
  return Recovery(
    edges=len(all_edges),
    recovered=sum(hit),
    false_parents=len(false_edges),
    recovered_edges=[e for e, h in zip(all_edges, hit, strict=True) if h],
    missed_edges=[e for e, h in zip(all_edges, hit, strict=True) if not h],
    false_edges=false_edges,
    edge_scores=edge_scores,
    head_of_slot=tuple(int(head) for head in head_of_slot),
    hamming_distance=len(predicted.symmetric_difference(all_edges)),
  )


def mean_softmax_on_parents(score_HxTxT, graph: Graph) -> float | None:
  """The mean over edges of the causal softmax of scores on the parent.

  With the scores of A1 between positions, this is the attention on the parent
  as the authors' code reports it. It leaves out the scores that depend on
  tokens, which the attention on prompts includes.

  Args:
    score_HxTxT: scores before the softmax; only the entries j <= i are read.
    graph: the true graph.

  Returns:
    The mean, None without edges. Heads are matched to slots as by `compare`.
  """
  score_HxTxT = _checked(score_HxTxT, graph)
  causal = np.tri(score_HxTxT.shape[-1], dtype=bool)
  masked_HxTxT = np.where(causal, score_HxTxT, -np.inf)
  weight_HxTxT = np.exp(masked_HxTxT - masked_HxTxT.max(axis=2, keepdims=True))
  attention_HxTxT = weight_HxTxT / weight_HxTxT.sum(axis=2, keepdims=True)
  edges = compare(attention_HxTxT, graph, include_self=True)
  return float(np.mean(edges.edge_scores)) if edges.edges else None


def rank(score, graph: Graph) -> Ranking:
  """Ranks all candidate pairs by score and compares the ranking with the edges.

  Args:
    score: T x T, or H x T x T, of which the maximum over heads is taken.
    graph: the true graph, with any number of parents.

  Raises:
    ValueError: if the score is not finite or has another T than the graph.
  """
  score_TxT = _checked(score, graph).max(axis=0)
  pairs = np.tril_indices(_num_nodes(graph), -1)
  is_edge = np.asarray(graphs.adjacency(graph))[pairs]
  descending = np.argsort(-score_TxT[pairs], kind="stable")
  values, is_edge = score_TxT[pairs][descending], is_edge[descending]
  edges = int(is_edge.sum())
  last_of_ties = np.searchsorted(-values, -values, side="right")
  precision = is_edge.cumsum()[last_of_ties - 1] / last_of_ties
  return Ranking(
    candidates=is_edge.size,
    edges=edges,
    recovered=int(is_edge[:edges].sum()),
    average_precision=float(precision[is_edge].mean()) if edges else 0.0,
    prevalence=edges / is_edge.size if is_edge.size else 0.0,
  )


def chow_liu(I_TxT, graph: Graph, threshold=-np.inf) -> list[tuple[int, int]]:
  """The maximum-information spanning tree, as edges (later, earlier) position.

  For Shannon information this is the tree of the closest tree-shaped law (Chow
  and Liu, 1968). Edges that are not above a threshold are removed, which
  separates independent trees.

  Args:
    I_TxT: information; only the entries j < i are read.
    graph: determines the nodes: all positions, or all except the query.
    threshold: one number.
  """
  (I_TxT,) = _checked(I_TxT, graph)
  num_nodes = _num_nodes(graph)
  I_NxN = I_TxT[:num_nodes, :num_nodes]
  # csgraph minimizes the total weight and reads a weight of 0 as no edge.
  weights = np.tril(I_NxN.max() - I_NxN + 1, -1)
  from scipy.sparse import csgraph

  tree = csgraph.minimum_spanning_tree(weights).tocoo()
  return sorted(
    (int(i), int(j))
    for i, j in zip(tree.row, tree.col, strict=True)
    if I_NxN[i, j] > threshold
  )


def control(
  key, score, graph: Graph, num_graphs: int, include_self: bool = False
) -> Control:
  """Recovery of random graphs by a score: the chance level.

  Args:
    key: of the graphs, which are drawn by `graphs.rewire`.
    score: as for `compare`.
    graph: with at least one edge.
    num_graphs: number of graphs, at least 2.
    include_self: as for `compare`.
  """
  if num_graphs < 2:
    raise ValueError(f"num_graphs must be at least 2, got {num_graphs}")
  recalls, precisions = [], []
  random_graphs = jax.vmap(graphs.rewire, (0, None))(
    jax.random.split(key, num_graphs), graph
  )
  for rows in zip(*map(np.asarray, random_graphs), strict=True):
    edges = compare(score, Graph(*rows), include_self=include_self)
    recalls.append(edges.recovered / edges.edges)
    precisions.append(rank(score, Graph(*rows)).average_precision)
  return Control(
    float(np.mean(recalls)),
    float(np.std(recalls, ddof=1)),
    float(np.mean(precisions)),
    float(np.std(precisions, ddof=1)),
  )


def _checked(score, graph: Graph) -> np.ndarray:
  """The score as H x T x T."""
  score_HxTxT = np.asarray(score, np.float64)
  if score_HxTxT.ndim == 2:
    score_HxTxT = score_HxTxT[None]
  T = graph.parents_TxK.shape[0]
  if score_HxTxT.ndim != 3 or score_HxTxT.shape[1:] != (T, T):
    raise ValueError(f"expected scores {T} x {T}, got {np.shape(score)}")
  if not np.isfinite(score_HxTxT).all():
    raise ValueError("scores must be finite")
  return score_HxTxT


def _num_nodes(graph: Graph) -> int:
  """The number of nodes of the graph, or graphs: T, or T - 1 with a query."""
  last_K = np.asarray(graph.parents_TxK)[..., -1, :]
  is_query = (last_K == graphs.NO_PARENT).all()
  return graph.parents_TxK.shape[-2] - int(is_query)


def _in_any(graph: Graph) -> np.ndarray:
  """T x T, whether (child, parent) is an edge of the graph, or of any graph."""
  if graph.parents_TxK.ndim == 2:
    return np.asarray(graphs.adjacency(graph))
  return np.asarray(jax.vmap(graphs.adjacency)(graph).any(axis=0))
