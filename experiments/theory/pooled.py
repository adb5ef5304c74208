"""Edges found in pooled sequences and by scores given the kernel.

The kernel of a sequence is a common cause of its tokens. If every sequence has
a new kernel, two roots depend on each other through it, often more than a child
depends on its parent. Pooled information then does not identify the edges, and
scores given the kernel do.

The methods are the row argmax, the tree of Chow and Liu and, if causal-learn is
installed, the PC algorithm. Takes ten minutes on two cores, half of them for
PC.
"""

import importlib.util

import jax
import numpy as np

from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import estimators
from icl_causal.analysis import information
from icl_causal.analysis import recovery
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph
from icl_causal.plotting import curves

FIELDS = {
  "T": fields.at_least(3),
  "S": fields.at_least(2),
  "alpha": fields.ALPHA,
  "epsilon": fields.NOT_NEGATIVE,
  "root_probability": fields.SHARE,
  "num_graphs": fields.at_least(1),
  "num_sequences": fields.tuple_of(fields.at_least(2)),
  "num_permutations": fields.at_least(1),
  "pc_sequences": fields.at_least(0),
  "pc_alpha": fields.SHARE,
}

_FRESH = "a kernel each"
_FIXED = "one kernel"


def check(config: build.Config) -> Outcome:
  """Edges found by each method from N sequences, over several forests."""
  methods = ["pooled argmax", "Chow-Liu", "given the kernels"]
  if has_pc := importlib.util.find_spec("causallearn") is not None:
    methods.append("PC")
  counts = {}
  in_limit = []
  for g in range(config.num_graphs):
    graph_key, data_key = jax.random.split(
      jax.random.fold_in(jax.random.key(config.seed), g)
    )
    graph = graphs.random_forest(graph_key, config.T, config.root_probability)
    in_limit.append(_pooled_limit(config, graph, data_key))
    for source in (_FRESH, _FIXED):
      for N in config.num_sequences:
        edges, x_NxT = _edges(config, graph, source, N, data_key)
        if has_pc and N <= config.pc_sequences:
          edges["PC"] = skeleton(x_NxT, config.pc_alpha)
        for method in methods:
          if method in edges:
            total = counts.setdefault((source, method, N), np.zeros(3, int))
            total += _score(edges[method], graph)
  rows = [
    [source, method, N, f"{hits} of {edges}", int(extra)]
    for (source, method, N), (hits, edges, extra) in sorted(counts.items())
  ]
  rows += [
    ["pooled in the limit", what, "-", f"{np.mean(values):.4f} nats", "-"]
    for what, values in _by_relation(in_limit).items()
    if values
  ]
  recall = {
    f"{method}, {source}": [
      counts[source, method, N][0] / counts[source, method, N][1]
      for N in config.num_sequences
    ]
    for source in (_FRESH, _FIXED)
    for method in methods[:3]
  }
  figure = curves.recall(config.num_sequences, recall)
  header = ["sequences of", "method", "N", "edges", "false edges"]
  return Outcome(header, rows, figure)


def _edges(config: build.Config, graph: Graph, source: str, N: int, key):
  """The edges that each method finds in N sequences, and the sequences."""
  prior = priors.dirichlet(config.alpha)
  kernel_key, draw_key, null_key = jax.random.split(key, 3)
  if source == _FIXED:
    prior = priors.fixed(prior(kernel_key, config.S, 1))
  batch = _draw(draw_key, graph, prior, config.S, N)
  I_TxT = np.asarray(_estimate(batch.x_T, config.S, information.shannon))
  null_MxT = _null(
    null_key,
    batch.x_T[None],
    config.S,
    information.shannon,
    config.num_permutations,
  )
  threshold = float(np.max(null_MxT))
  R_TxT, error_TxT = map(
    np.asarray, _score_given(batch.x_T, batch.kernel, config.epsilon)
  )
  edges = {
    "pooled argmax": _row_argmax(I_TxT, threshold),
    "Chow-Liu": recovery.chow_liu(I_TxT, graph, threshold),
    "given the kernels": _row_argmax(R_TxT, 4 * error_TxT),
  }
  return edges, np.asarray(batch.x_T)


def _row_argmax(score_TxT, threshold) -> list[tuple[int, int]]:
  """Pairs (i, j): the top entry j < i of each row i, if above the threshold.

  The row of the query is left out.
  """
  above_TxT = score_TxT > threshold
  return [
    (i, j)
    for i in range(1, len(score_TxT) - 1)
    for j in [int(score_TxT[i, :i].argmax())]
    if above_TxT[i, j]
  ]


def skeleton(x_NxT, alpha: float) -> list[tuple[int, int]]:
  """The skeleton that the PC algorithm of causal-learn finds."""
  from causallearn.search.ConstraintBased.PC import pc  # pyright: ignore

  skeleton = pc(x_NxT[:, :-1], alpha, "chisq", show_progress=False).G.graph
  return [(int(i), int(j)) for i, j in np.argwhere(np.tril(skeleton, -1) != 0)]


def _score(pairs: list[tuple[int, int]], graph: Graph) -> tuple[int, int, int]:
  """True edges found, all true edges, and false edges found."""
  edges = set(graphs.edges(graph))
  hits = len(edges.intersection(pairs))
  return hits, len(edges), len(set(pairs)) - hits


def _pooled_limit(config: build.Config, graph: Graph, key):
  """Shannon information of the mean pair law, the limit of pooling."""
  prior = priors.dirichlet(config.alpha)

  @jax.jit
  def limit(key, graph):
    P = jax.lax.map(
      lambda key: information.pair_laws(graph, prior(key, config.S, 1)),
      jax.random.split(key, 2**14),
      batch_size=256,
    )
    return information.shannon(P.mean(axis=0))

  return graph, np.asarray(limit(key, graph))


def _by_relation(in_limit) -> dict[str, list[float]]:
  """Pooled information, grouped by the relation of the two positions."""
  values = {"child and parent": [], "two roots": [], "other pairs": []}
  for graph, I_TxT in in_limit:
    edges = set(graphs.edges(graph))
    is_root_T = np.asarray(graph.parents_TxK)[:, 0] < 0
    for i in range(1, len(I_TxT) - 1):
      for j in range(i):
        if (i, j) in edges:
          values["child and parent"].append(I_TxT[i, j])
        elif is_root_T[i] and is_root_T[j]:
          values["two roots"].append(I_TxT[i, j])
        else:
          values["other pairs"].append(I_TxT[i, j])
  return values


_draw = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))
_estimate = jax.jit(estimators.pooled, static_argnums=(1, 2))
_null = jax.jit(estimators.permutation_null, static_argnums=(2, 3, 4))
_score_given = jax.jit(estimators.gradient_score)
