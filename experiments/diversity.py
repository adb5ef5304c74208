"""How many kernels it takes until a model learns the graph, from three seeds.

    python -m experiments.diversity --config=configs/diversity.py:chain

Trains each model on pools of each size from each seed. Compares it at its
checkpoints with predictors that memorise the kernels or not, on prompts of its
pool and on prompts with fresh kernels. Runs are kept under --workdir and resume
where they were interrupted. Writes TASK.jsonl to results/diversity, or
--results, and draws docs/diversity/TASK.png, or to --pictures. Four minutes on
two cores.
"""

import json
import pathlib

from absl import flags

from experiments.harness import app
from experiments.harness import diversity
from experiments.harness import diversity_tables
from experiments.harness import grid
from experiments.harness import signals
from experiments.harness import suite
from experiments.harness import tables
from experiments.harness.grid import Run
from icl_causal import runs
from icl_causal.config import build
from icl_causal.plotting import diversity as plots


def main():
  """The command."""
  app.use_cores(app.cores())
  config = app.config()
  workdir = app.workdir(f"diversity-{config.task}")
  runs_of = planned(config, workdir)
  stop = signals.install_handlers()
  longest = max(
    model.train.steps // model.train.eval_every
    for model in config.models.values()
  )
  suite.train(runs_of, stop, keep=longest)
  lines = []
  for group in zip(*runs_of.values(), strict=True):
    trained = [runs.load(run.workdir) for run in group]
    lines += diversity.lines(
      dict(zip(runs_of, trained, strict=True)),
      config.num_prompts,
      config.posterior_samples,
    )
  lines.sort(key=lambda line: list(runs_of).index(line["model"]))
  results = app.output("results", "results/diversity", workdir)
  results.mkdir(parents=True, exist_ok=True)
  path = results / f"{config.task}.jsonl"
  text = "".join(json.dumps(one, allow_nan=False) + "\n" for one in lines)
  runs.write_text(path, text)
  folder = app.output("pictures", "docs/diversity", workdir)
  folder.mkdir(parents=True, exist_ok=True)
  plots.weights(*diversity_tables.panels(lines)).savefig(
    folder / f"{config.task}.png", dpi=90
  )
  for table in diversity_tables.TABLES.values():
    print(tables.columns(*table(lines)), end="\n\n")
  print(path)


def planned(
  config: build.Config, workdir: pathlib.Path
) -> dict[str, list[Run]]:
  """The runs of each model, by size of the pool and then by seed."""
  points = grid.points(
    {"prior.num_kernels": config.sizes, "seed": config.seeds}
  )
  return {
    name: [
      grid.run(
        model,
        point | {"eval.seed": point["seed"], "prior.seed": point["seed"]},
        workdir,
      )
      for point in points
    ]
    for name, model in config.models.items()
  }


if __name__ == "__main__":
  app.define_run_flags()
  flags.DEFINE_string(
    "results", None, "Where the lines go; by default results/diversity."
  )
  flags.DEFINE_string(
    "pictures", None, "Where the picture goes; by default docs/diversity."
  )
  app.run(main)
