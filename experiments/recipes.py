"""Compares training recipes on a task, from several seeds, in one table.

    python -m experiments.recipes --config=configs/recipes.py:chain

Runs are kept under --workdir and resume where they were interrupted. Writes
TASK.md and TASK.jsonl to results/recipes, or --results. With --films it draws
the layer-1 attention of the first run of each recipe during training instead,
to docs/recipes/TASK.png.
"""

from collections.abc import Mapping, Sequence
import pathlib

from absl import flags
import jax
from ml_collections import ConfigDict
import numpy as np

from experiments.harness import app
from experiments.harness import grid
from experiments.harness import signals
from experiments.harness import suite
from experiments.harness import tables
from experiments.harness import verdicts
from experiments.harness.grid import Run
from icl_causal import graphs
from icl_causal import models
from icl_causal import runs
from icl_causal import symmetry
from icl_causal.config import build
from icl_causal.plotting import matrices

_FIRST_STEP = 16  # of a film


def main():
  """The command."""
  app.use_cores(app.cores())
  config = app.config()
  workdir = app.workdir(f"recipes-{config.task}")
  if flags.FLAGS.films and is_latent(config.base):
    raise app.Refused("--films: layer 1 of a latent graph has no graph to show")
  runs_of = planned(config, workdir)
  stop = signals.install_handlers()
  if flags.FLAGS.films:
    suite.train({name: group[:1] for name, group in runs_of.items()}, stop)
    folder = app.output("pictures", "docs/recipes", workdir)
    path = folder / f"{config.task}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    films = {name: group[0] for name, group in runs_of.items()}
    draw(films).savefig(path, dpi=110)
    print(path)
    return
  suite.train(runs_of, stop)
  results = app.output("results", "results/recipes", workdir)
  header, rows = table(runs_of)
  every = [run for group in runs_of.values() for run in group]
  suite.write_results(results, config.task, every)
  runs.write_text(results / f"{config.task}.md", tables.markdown(header, rows))
  print(tables.columns(header, rows))
  print(f"\n{results}/{config.task}.md")


def planned(
  config: build.Config, workdir: pathlib.Path
) -> dict[str, list[Run]]:
  """The runs of each recipe."""
  axes = {"seed": config.seeds}
  if config.graph_seeds:
    axes["graph.seed"] = config.graph_seeds
  runs_of = {}
  for name, model, train in config.recipes:
    recipe = config.base.copy_and_resolve_references()
    with recipe.unlocked():
      recipe.model, recipe.train = ConfigDict(model), ConfigDict(train)
    points = grid.points(axes)
    if is_latent(config.base):  # errors over seeds include those of prompts
      points = [point | {"eval.seed": point["seed"]} for point in points]
    runs_of[name] = [grid.run(recipe, point, workdir) for point in points]
  return runs_of


def is_latent(config: build.Config) -> bool:
  """Whether prompts draw their graph from a list."""
  return build.graph(config).parents_TxK.ndim == 3


def table(runs_of: dict[str, list[Run]]) -> tuple[list[str], list[list]]:
  """Header and rows: means, with the standard error over graphs or seeds."""
  if is_latent(next(iter(runs_of.values()))[0].config):
    return _table_of_latent(runs_of)
  header = ["recipe", "runs", "edges", "attention", "false parents"]
  header += ["excess", "std. error", "over exact", "asymmetry", "steps"]
  header += ["seconds a run"]
  rows = []
  for name, group in runs_of.items():
    results = suite.read_results(group)

    def mean(field, results=results) -> float | str:
      values = [row[field] for row in results]
      return "-" if None in values else float(np.mean(values))

    excess = excess_of(results)
    is_alone = suite.one_by_one(group, jax.device_count())
    seconds = np.mean([row["wall_seconds"] for row in results])
    recovered, edges, false_parents = (
      sum(row[field] for row in results)
      for field in ("edges_recovered", "edges", "false_parents")
    )
    rows.append(
      [
        name,
        len(results),
        f"{recovered} of {edges}",
        mean("parent_attention_mean"),
        false_parents,
        excess.value,
        excess.error,
        mean("excess_over_exact"),
        _asymmetry(group),
        results[0]["steps"],
        float(seconds if is_alone else seconds / len(results)),
      ]
    )
  return header, rows


def _table_of_latent(
  runs_of: dict[str, list[Run]],
) -> tuple[list[str], list[list]]:
  """Header and rows for a latent graph: the excess over the Bayes predictor."""
  header = ["recipe", "runs", "gap to Bayes", "std. error", "least", "largest"]
  header += ["steps"]
  rows = []
  for name, group in runs_of.items():
    results = suite.read_results(group)
    gap = verdicts.mean_over(results, "excess_over_exact", "seeds")
    gaps = [row["excess_over_exact"] for row in results]
    cells = [name, len(results), gap.value, gap.error, min(gaps), max(gaps)]
    rows.append([*cells, results[0]["steps"]])
  return header, rows


def excess_of(results: Sequence[Mapping]) -> verdicts.Estimate:
  """The mean excess of a recipe; runs of one graph are averaged first."""
  unit = "graphs" if "graph.seed" in results[0] else "seeds"
  return verdicts.mean_over(results, "excess_loss", unit)


def film_steps(steps: int) -> list[int]:
  """16 times powers of 4, and the last step."""
  ladder = [_FIRST_STEP * 4**k for k in range(20)]
  return [*(step for step in ladder if step < steps), steps]


def draw(films: dict[str, Run]):
  """The layer-1 attention of each run after 16, 64, .. steps."""
  rows = {}
  for name, run in films.items():
    snapshots = runs.read_snapshots(run.workdir)
    steps: Sequence[int] = film_steps(run.config.train.steps)
    rows[name] = {step: snapshots[step].attention for step in steps}
  first = next(iter(films.values()))
  return matrices.attention_over_training(graphs.adjacency(first.graph), rows)


def _asymmetry(group: list[Run]) -> float | str:
  """The mean over runs; for the disentangled transformer alone."""
  model = build.model(group[0].config, group[0].graph)
  if not isinstance(model, models.Disentangled):
    return "-"
  params = [suite.final_params(run) for run in group]
  return float(np.mean([symmetry.asymmetry(p) for p in params]))


if __name__ == "__main__":
  app.define_run_flags()
  flags.DEFINE_string(
    "results", None, "Where the table goes; by default results/recipes."
  )
  flags.DEFINE_bool(
    "films", False, "Draw the attention during training instead of the table."
  )
  flags.DEFINE_string(
    "pictures", None, "Where the films go; by default docs/recipes."
  )
  app.run(main)
