"""Trains on many graphs at once, and counts the edges that were found.

    python -m experiments.forests --config=configs/two_stage.py:forest

The g-th graph, from 0, has g added to every seed, of the graph, of the data and
of the test prompts; all are trained by one compiled program. Leaves result.json
and a figure.
"""

import time
from typing import NamedTuple

from absl import flags
import jax
import numpy as np

from experiments import build
from experiments import cli
from experiments import program
from experiments.train import ENOUGH
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import plotting
from icl_causal import recovery
from icl_causal import runs
from icl_causal import sweeps
from icl_causal.graphs import Graph


class Trained(NamedTuple):
  """What is left of the training on one graph.

  Attributes:
    graph: drawn for it.
    attention_HxTxT: of layer 1, averaged over the test prompts.
    loss: on the test prompts, in nats.
    edge_posterior_loss: of that predictor, on the same prompts.
    exact_gain: what the exact posterior's loss is below that, on the first
      `eval.posterior_prompts` of them; None where these are none.
    effective_samples: of the exact posterior.
  """

  graph: Graph
  attention_HxTxT: jax.Array
  loss: jax.Array
  edge_posterior_loss: jax.Array
  exact_gain: jax.Array | None = None
  effective_samples: jax.Array | None = None


def main():
  """The command."""
  cli.use_cores(cli.cores())
  config = cli.config()
  build.check(config)
  num_graphs = flags.FLAGS.num_graphs
  record = {**config.to_dict(), "num_graphs": num_graphs}
  workdir = cli.workdir(f"forests-{runs.digest(record)}")
  with runs.opened(workdir, record, flags.FLAGS.overwrite) as finished:
    if not finished:
      started = time.monotonic()
      result = count(train(config, num_graphs, flags.FLAGS.parallel))
      result["wall_seconds"] = time.monotonic() - started
      runs.save_figure(
        workdir,
        "attention_by_position",
        plotting.attention_by_position(
          result["parent_attention_by_position"],
          result["parent_attention_deviation_by_position"],
          result["roots_by_position"],
          result["false_parents_by_position"],
        ),
      )
      runs.write_result(workdir, result)
  if finished:
    print(f"{workdir} is finished; --overwrite runs it again")
  print(table(runs.read_result(workdir)))
  print(f"\n{workdir}/result.json has every count by position")


def train(config: build.Config, num_graphs: int, parallel: int) -> Trained:
  """Trains on G graphs, the g-th with g added to all seeds of the config.

  Args:
    config: checked.
    num_graphs: G.
    parallel: how many are trained side by side on a device.

  Returns:
    The arrays of `Trained`, with a leading axis G.
  """
  run = program.program(config)

  def one(g):
    own = program.member(config, build.graph(config, g))
    for name in ("seed", "eval.seed"):
      own.values[name] += g
    state, _ = jax.lax.scan(
      lambda state, _: run.take_steps(own, state),
      run.start(own),
      length=config.train.steps // config.train.eval_every,
    )
    test = run.draw_test(own)
    found = run.evaluate(own, state, test)
    edge_N = test.predictors["edge_posterior"]
    trained = Trained(
      own.graph,
      found.attention["attention_1"],
      found.loss_N.mean(),
      edge_N.mean(),
    )
    if not config.eval.posterior_prompts:
      return trained
    exact_M, effective_M = run.exact(own, test)
    return trained._replace(
      exact_gain=(edge_N[: len(exact_M)] - exact_M).mean(),
      effective_samples=1 / (1 / effective_M).mean(),
    )

  mesh = sweeps.local_mesh()
  seeds = sweeps.stack(
    list(np.arange(num_graphs, dtype=np.uint32)), mesh, parallel
  )
  trained = jax.jit(sweeps.over_runs(one, mesh, parallel))(seeds)
  return jax.tree.map(lambda leaf: leaf[:num_graphs], trained)


def count(trained: Trained) -> dict:
  """Edges and false parents over all graphs, and by position."""
  T = trained.attention_HxTxT.shape[-1]
  attention = [[] for _ in range(T)]
  roots, false_parents = np.zeros((2, T), int)
  missed, false_edges = [], []
  recovered = edges = 0
  arrays = jax.tree.map(np.asarray, trained)
  for g in range(len(arrays.loss)):
    graph = Graph(*(rows[g] for rows in arrays.graph))
    found = recovery.compare(
      arrays.attention_HxTxT[g], graph, include_self=True
    )
    edges += found.edges
    recovered += found.recovered
    for (child, _), score in zip(
      graphs.edges(graph), found.edge_scores, strict=True
    ):
      attention[child].append(score)
    is_root_T = (graph.parents_TxK == graphs.NO_PARENT).all(axis=1)
    roots[1:-1] += is_root_T[1:-1]
    false_parents[[child for child, _ in found.false_edges]] += 1
    missed += [[g, *edge] for edge in found.missed_edges]
    false_edges += [[g, *edge] for edge in found.false_edges]
  scores = np.concatenate(attention)
  excess_G = arrays.loss - arrays.edge_posterior_loss
  excess, error = metrics.mean_and_standard_error(excess_G)
  over_exact, over_exact_error = None, None
  if arrays.exact_gain is not None:
    effective = 1 / np.mean(1 / arrays.effective_samples)
    if effective >= ENOUGH:
      over_exact, over_exact_error = metrics.mean_and_standard_error(
        excess_G + arrays.exact_gain
      )
  return {
    "num_graphs": len(arrays.loss),
    "edges": edges,
    "edges_recovered": recovered,
    "parent_attention_mean": float(scores.mean()) if edges else None,
    "parent_attention_min": float(scores.min()) if edges else None,
    "roots": int(roots.sum()),
    "false_parents": int(false_parents.sum()),
    "loss": float(arrays.loss.mean()),
    "excess_loss": excess,
    "excess_loss_standard_error": error,
    "excess_over_exact": over_exact,
    "excess_over_exact_standard_error": over_exact_error,
    "parent_attention_by_position": _by_position(attention, np.mean),
    "parent_attention_deviation_by_position": _by_position(attention, np.std),
    "roots_by_position": roots.tolist(),
    "false_parents_by_position": false_parents.tolist(),
    "missed_edges": missed,
    "false_edges": false_edges,
  }


def table(result: dict) -> str:
  """The totals for a terminal, and false parents by position."""
  attention = "none"
  if result["edges"]:
    attention = (
      f"{result['parent_attention_mean']:.4f} on average, "
      f"{result['parent_attention_min']:.3f} at least"
    )
  by_position = "  ".join(
    f"{i}: {false}/{roots}"
    for i, (false, roots) in enumerate(
      zip(
        result["false_parents_by_position"],
        result["roots_by_position"],
        strict=True,
      )
    )
    if false
  )
  over_exact = "none"
  if result["excess_over_exact"] is not None:
    over_exact = (
      f"{result['excess_over_exact']:.4f} +- "
      f"{result['excess_over_exact_standard_error']:.4f}"
    )
  rows = [
    ("graphs", str(result["num_graphs"])),
    ("edges recovered", f"{result['edges_recovered']} of {result['edges']}"),
    ("attention on the parent", attention),
    ("false parents", f"{result['false_parents']} of {result['roots']} roots"),
    ("  by position", by_position or "none"),
    (
      "excess loss (nats)",
      f"{result['excess_loss']:.4f} +- "
      f"{result['excess_loss_standard_error']:.4f} over graphs",
    ),
    ("  over exact posterior", over_exact),
    ("seconds", f"{result['wall_seconds']:.1f}"),
  ]
  return "\n".join(f"{what:<26}{value}" for what, value in rows)


def _by_position(values, statistic) -> list[float | None]:
  return [float(statistic(v)) if v else None for v in values]


if __name__ == "__main__":
  cli.define_run_flags()
  flags.DEFINE_integer("num_graphs", 1000, "Graphs to train on.", 1)
  flags.DEFINE_integer(
    "parallel", 8, "Graphs trained side by side on a device.", 1
  )
  cli.run(main)
