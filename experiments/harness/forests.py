"""One run on each of many graphs, trained by a single compiled program."""

from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
import numpy as np

from experiments.harness import program
from experiments.harness import traced
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import parallel
from icl_causal.analysis import recovery
from icl_causal.config import build
from icl_causal.graphs import Graph


class Trained(NamedTuple):
  """The outcome of training on one graph.

  Attributes:
    graph: the causal graph.
    attention_HxTxT: of layer 1, averaged over the test prompts.
    loss_N: on the test prompts, in nats.
    baselines: losses of the baselines on the same prompts, by name.
    exact: losses of the exact posterior on the first `eval.posterior_prompts`
      test prompts; None if there are none.
  """

  graph: Graph
  attention_HxTxT: Any
  loss_N: Any
  baselines: dict[str, Any]
  exact: metrics.ExactLosses | None


def train(config: build.Config, num_graphs: int, at_once: int) -> Trained:
  """Trains on G graphs, the g-th with g added to all seeds of the config.

  Args:
    config: checked; its graph has a seed.
    num_graphs: G.
    at_once: how many a device trains at once.

  Returns:
    The arrays of `Trained`, with a leading axis G.
  """
  config = config.copy_and_resolve_references()
  config.train.eval_every = config.train.steps  # one call takes all steps
  run = program.program(config)

  def one(g):
    graph_seed = jnp.uint32(config.graph.seed) + g
    with_seed = traced.fill(config, {"graph.seed": graph_seed})
    inputs = traced.run_inputs(config, build.graph(with_seed))
    for name in ("seed", "eval.seed"):
      inputs.values[name] += g
    state, _ = run.take_steps(inputs, run.start(inputs))
    test = run.draw_test(inputs)
    evaluation = run.evaluate(inputs, state, test)
    exact = None
    if config.eval.posterior_prompts:
      exact = run.exact(inputs, test)._replace(law_MxS=None)
    return Trained(
      inputs.graph,
      evaluation.attention["attention_1"],
      evaluation.loss_N,
      test.baselines,
      exact,
    )

  mesh = parallel.runs_mesh()
  seeds = parallel.stack(
    list(np.arange(num_graphs, dtype=np.uint32)), mesh, at_once
  )
  trained = jax.jit(parallel.over_runs(one, mesh, at_once))(seeds)
  return jax.tree.map(lambda leaf: leaf[:num_graphs], trained)


def count(trained: Trained) -> dict:
  """Edges and false parents over all graphs, and by position."""
  T = trained.attention_HxTxT.shape[-1]
  attention: list[list[float]] = [[] for _ in range(T)]
  roots, false_parents = np.zeros((2, T), int)
  missed, false_edges = [], []
  recovered = edges = 0
  arrays = jax.tree.map(np.asarray, trained)
  for g in range(len(arrays.loss_N)):
    graph = Graph(*(rows[g] for rows in arrays.graph))
    of_graph = recovery.compare(
      arrays.attention_HxTxT[g], graph, include_self=True
    )
    edges += of_graph.edges
    recovered += of_graph.recovered
    for (child, _), score in zip(
      graphs.edges(graph), of_graph.edge_scores, strict=True
    ):
      attention[child].append(score)
    is_root_T = (graph.parents_TxK == graphs.NO_PARENT).all(axis=1)
    roots[1:-1] += is_root_T[1:-1]
    false_parents[[child for child, _ in of_graph.false_edges]] += 1
    missed += [[g, *edge] for edge in of_graph.missed_edges]
    false_edges += [[g, *edge] for edge in of_graph.false_edges]
  scores = np.concatenate(attention)
  return {
    "num_graphs": len(arrays.loss_N),
    "edges": edges,
    "edges_recovered": recovered,
    "parent_attention_mean": float(scores.mean()) if edges else None,
    "parent_attention_min": float(scores.min()) if edges else None,
    "roots": int(roots.sum()),
    "false_parents": int(false_parents.sum()),
    **_losses(arrays),
    "parent_attention_by_position": _by_position(attention, np.mean),
    "parent_attention_deviation_by_position": _by_position(attention, np.std),
    "roots_by_position": roots.tolist(),
    "false_parents_by_position": false_parents.tolist(),
    "missed_edges": missed,
    "false_edges": false_edges,
  }


def _losses(arrays: Trained) -> dict:
  """Means over graphs, with standard errors over graphs; in nats."""
  loss_G = arrays.loss_N.mean(axis=1)
  edge_GxN = metrics.edge_losses(arrays.baselines)
  excess_G = loss_G - edge_GxN.mean(axis=1)
  found = dict.fromkeys(
    [
      *("excess_loss", "excess_loss_standard_error"),
      *("excess_over_exact", "excess_over_exact_standard_error"),
      "exact_posterior_bias",
    ]
  )
  if "edge_posterior" in arrays.baselines:
    mean, error = metrics.mean_and_standard_error(excess_G)
    found |= {"excess_loss": mean, "excess_loss_standard_error": error}
  if arrays.exact is not None:
    loss_GxM, half_loss_GxM, effective_GxM = arrays.exact[:3]
    bias_GxM = half_loss_GxM - loss_GxM
    edge_GxM = edge_GxN[:, : loss_GxM.shape[1]]
    over_exact_G = excess_G + (edge_GxM - loss_GxM + bias_GxM).mean(axis=1)
    bias = metrics.small_bias(bias_GxM.mean(axis=1), effective_GxM)
    if bias is not None:
      mean, error = metrics.mean_and_standard_error(over_exact_G)
      found |= {
        "excess_over_exact": mean,
        "excess_over_exact_standard_error": error,
        "exact_posterior_bias": bias,
      }
  return {"loss": float(loss_G.mean()), **found}


def _by_position(values, statistic) -> list[float | None]:
  return [float(statistic(v)) if v else None for v in values]
