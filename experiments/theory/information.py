"""The data-processing inequality, on exact information matrices.

The parent is the largest entry j < i of every row, and no pair has more
information than any edge on the path between them. Both follow from the
inequality, so this tests the code that computes information. `key_lemma` tests
the gradient. Three minutes.
"""

import functools

import jax
import numpy as np

from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal import priors
from icl_causal.analysis import information
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph

FIELDS = {
  "num_forests": fields.at_least(1),
  "T": fields.at_least(2),
  "S": fields.tuple_of(fields.at_least(2)),
  "alpha": fields.ALPHA,
  "root_probability": fields.SHARE,
  "num_kernels": fields.at_least(1),
  "tolerance": fields.NOT_NEGATIVE,
}

_MEASURES = {"shannon": information.shannon_of, "chi2": information.chi2_of}


def _as_many_forests_for_each_S(config: build.Config) -> str | None:
  if config.num_forests % len(config.S):
    return (
      f"num_forests = {config.num_forests}: must be a multiple of "
      f"{len(config.S)}, the number of S"
    )
  return None


NEEDS = (_as_many_forests_for_each_S,)


def check(config: build.Config) -> Outcome:
  """Row argmax and data processing, exact, in float64."""
  prior, T = priors.dirichlet(config.alpha), config.T

  def measure(key, S: int):
    graph_key, kernel_key = jax.random.split(key)
    graph = graphs.random_forest(graph_key, T, config.root_probability)
    return graph, [
      information.expected(
        kernel_key, graph, prior, S, of_pairs, config.num_kernels
      )[0]
      for of_pairs in _MEASURES.values()
    ]

  rows = []
  with jax.enable_x64(True):
    for S in config.S:
      key = jax.random.fold_in(jax.random.key(config.seed), S)
      keys = jax.random.split(key, config.num_forests // len(config.S))
      many = jax.jit(
        functools.partial(jax.lax.map, functools.partial(measure, S=S))
      )
      batch, matrices = jax.tree.map(np.asarray, many(keys))
      for kind, I_GxTxT in zip(_MEASURES, matrices, strict=True):
        rows.append([S, kind, *count_argmax(batch, I_GxTxT, config.tolerance)])
  total = np.array([row[2:] for row in rows])
  rows.append(["all", "both", *total.sum(axis=0).tolist()])
  header = ["S", "kind", "forests", "edges", "argmax", "violations"]
  return Outcome(header, rows, None)


def count_argmax(batch: Graph, I_GxTxT, tolerance: float) -> list[int]:
  """Forests, edges, edges that are the top of their row, violations."""
  edges = top = violations = 0
  for g, I_TxT in enumerate(I_GxTxT):
    graph = Graph(*(rows[g] for rows in batch))
    violations += len(
      information.data_processing_violations(I_TxT, graph, tolerance)
    )
    for child, parent in graphs.edges(graph):
      edges += 1
      top += int(I_TxT[child, :child].argmax() == parent)
  return [len(I_GxTxT), edges, top, violations]
