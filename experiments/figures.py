"""Draws the paper's figures from runs, and trains the runs that are missing.

    python -m experiments.figures --figure=2 --tier=quick

Tier quick uses our recipes and takes about ten minutes on two cores for all
figures. Tier paper uses the authors' settings and takes hours. Runs are kept
under runs/TIER, or --workdir; interrupted runs resume. Figures are written to
results/TIER, or --results, with a line of JSON for the result of each run.
"""

from absl import flags
import jax
import numpy as np

from configs import paper
from experiments.harness import app
from experiments.harness import forests
from experiments.harness import signals
from experiments.harness import smoke
from experiments.harness import suite
from experiments.harness import tables
from experiments.harness.grid import Run
from icl_causal import graphs
from icl_causal import runs
from icl_causal.analysis import recovery
from icl_causal.plotting import curves
from icl_causal.plotting import matrices
from icl_causal.report import summary


def main():
  """The command."""
  app.use_cores(app.cores())
  tier, figure = flags.FLAGS.tier, flags.FLAGS.figure
  numbers = list(paper.FIGURES) if figure == "all" else [figure]
  workdir = app.workdir(tier)
  results = app.output("results", f"results/{tier}", workdir)
  names = [n for number in numbers for n in paper.FIGURES[number].experiments]
  runs_of = {
    name: suite.planned(name, tier, flags.FLAGS.seeds, workdir, smoke.is_on())
    for name in names
  }
  suite.train(runs_of, signals.install_handlers())
  for name, group in runs_of.items():
    suite.write_results(results, name, group)
  for number in numbers:
    for stem, drawn in figures_of(number, runs_of).items():
      runs.save_figure(results, stem, drawn)
      print(f"{results}/figures/{stem}.png")
  print()
  print(tables.columns(*table(runs_of)))


def table(runs_of: dict[str, list[Run]]) -> tuple[list[str], list[list]]:
  """Header and rows: every experiment, means over its runs."""
  header = ["experiment", "runs", "edges", "recovered", "attention"]
  header += ["false parents", "loss", "excess", "over exact", "seconds"]
  rows = []
  for name, group in runs_of.items():
    results = suite.read_results(group)

    def mean(field, results=results):
      values = [row[field] for row in results if row[field] is not None]
      return float(np.mean(values)) if len(values) == len(results) else "-"

    rows.append(
      [
        name,
        len(results),
        sum(row["edges"] for row in results),
        sum(row["edges_recovered"] for row in results),
        mean("parent_attention_mean"),
        sum(row["false_parents"] for row in results),
        mean("loss"),
        mean("excess_loss"),
        mean("excess_over_exact"),
        mean("wall_seconds"),
      ]
    )
  return header, rows


def figures_of(number: str, runs_of: dict[str, list[Run]]) -> dict:
  """The plots of a figure of the paper, by file name without suffix."""
  figure = paper.FIGURES[number]
  groups = {name: runs_of[name] for name in figure.experiments}
  panels = {
    name: (_histories(group), _baselines(group))
    for name, group in groups.items()
  }
  return {
    f"figure_{number}_loss": curves.losses(panels),
    f"figure_{number}": _DRAWINGS[figure.drawing](groups),
  }


def _draw_weights(groups: dict[str, list[Run]]):
  """The graph, layer-1 attention and other parameters of each first run."""
  rows = {}
  for name, (run, *_) in groups.items():
    opened = runs.load(run.workdir)
    parameters = opened.model.parameter_blocks(suite.final_params(run))
    maps = suite.final_attention(run)
    edges = recovery.compare(maps, run.graph, include_self=True)
    rows[name] = (
      np.asarray(graphs.adjacency(run.graph)),
      maps,
      edges.false_edges,
      [block for block in parameters if "A1" not in block.title],
    )
  return matrices.weights(rows)


def _draw_positions(groups: dict[str, list[Run]]):
  """Attention on the parent by position, over all runs."""
  group = [run for runs_of_name in groups.values() for run in runs_of_name]
  results = suite.read_results(group)
  counts = forests.count(
    forests.Trained(
      jax.tree.map(lambda *leaves: np.stack(leaves), *(r.graph for r in group)),
      np.stack([suite.final_attention(run) for run in group]),
      np.array([[row["loss"]] for row in results]),
      {
        "edge_posterior": np.array(
          [[r["edge_posterior_loss"]] for r in results]
        )
      },
      None,
    )
  )
  return curves.attention_by_position(
    counts["parent_attention_by_position"],
    counts["parent_attention_deviation_by_position"],
    counts["roots_by_position"],
    counts["false_parents_by_position"],
  )


_DRAWINGS = {"weights": _draw_weights, "positions": _draw_positions}


def _histories(group: list[Run]) -> list[tuple[list, list]]:
  """(steps, test losses) of every run."""
  histories = [runs.read_metrics(run.workdir) for run in group]
  return [
    ([row["step"] for row in rows], [row["loss"] for row in rows])
    for rows in histories
  ]


def _baselines(group: list[Run]) -> dict[str, float]:
  """The mean loss over runs of each baseline that all runs have."""
  losses = [summary.baselines(row) for row in suite.read_results(group)]
  return {
    name: float(np.mean([of_run[name] for of_run in losses]))
    for name in losses[0]
    if all(name in of_run for of_run in losses)
  }


if __name__ == "__main__":
  flags.DEFINE_enum(
    "figure", "all", [*paper.FIGURES, "all"], "Number of the figure."
  )
  suite.define_flags(num_seeds=1)
  app.run(main)
