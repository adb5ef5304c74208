"""Compares training recipes on a task, from several seeds, in one table.

    python -m experiments.recipes --config=configs/recipes.py:chain

Runs are kept under --workdir and go on where they were cut off. Leaves
TASK.md and TASK.jsonl under results/recipes, or --results.
"""

import pathlib

from absl import flags
from ml_collections import ConfigDict
import numpy as np

from experiments import build
from experiments import cli
from experiments import figures
from experiments import paper
from experiments import plan
from experiments import show
from experiments import stopping
from experiments.batch import Run
from icl_causal import runs
from icl_causal import symmetry


def main():
  """The command."""
  cli.use_cores(cli.cores())
  config = cli.config()
  name = config.task
  workdir = cli.workdir(f"recipes-{name}")
  results = pathlib.Path(flags.FLAGS.results)
  runs_of = planned(config)
  paper.train(runs_of, workdir, stopping.when_asked())
  header, rows = table(runs_of, workdir)
  figures.write_results(
    results,
    name,
    [run for group in runs_of.values() for run in group],
    workdir,
  )
  runs.write_text(results / f"{name}.md", show.markdown(header, rows))
  print(show.columns(header, rows))
  print(f"\n{results}/{name}.md")


def planned(config: build.Config) -> dict[str, list[Run]]:
  """The runs of each recipe."""
  runs_of = {}
  for name, model, train in config.recipes:
    own = config.base.copy_and_resolve_references()
    with own.unlocked():
      own.model, own.train = ConfigDict(model), ConfigDict(train)
    runs_of[name] = [
      plan.run(own, {"seed": seed} | of_graph)
      for seed in config.seeds
      for of_graph in [{"graph.seed": g} for g in config.graph_seeds] or [{}]
    ]
  return runs_of


def table(runs_of: dict[str, list[Run]], workdir: pathlib.Path):
  """Header and rows: means over seeds and graphs, with standard errors."""
  header = ["recipe", "runs", "edges", "attention", "false parents"]
  header += ["excess", "std. error", "over exact", "asymmetry", "steps"]
  header += ["seconds a run"]
  rows = []
  for name, group in runs_of.items():
    found = figures.read_results(group, workdir)

    def mean(field, found=found) -> float:
      return float(np.mean([row[field] for row in found]))

    excess = [row["excess_loss"] for row in found]
    asymmetry = "-"
    if group[0].config.model.name == "disentangled":
      params = [figures.final_params(run, workdir) for run in group]
      asymmetry = float(np.mean([symmetry.asymmetry(p) for p in params]))
    recovered, edges, false_parents = (
      sum(row[field] for row in found)
      for field in ("edges_recovered", "edges", "false_parents")
    )
    rows.append(
      [
        name,
        len(found),
        f"{recovered} of {edges}",
        mean("parent_attention_mean"),
        false_parents,
        mean("excess_loss"),
        float(np.std(excess, ddof=1) / len(excess) ** 0.5),
        mean("excess_over_exact"),
        asymmetry,
        found[0]["steps"],
        mean("wall_seconds") / len(found),  # they are trained side by side
      ]
    )
  return header, rows


if __name__ == "__main__":
  cli.define_run_flags()
  flags.DEFINE_string("results", "results/recipes", "Where the table goes.")
  cli.run(main)
