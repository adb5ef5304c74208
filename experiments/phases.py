"""Trains a task from several seeds and records the phases of the training.

    python -m experiments.phases --config=configs/phases.py:forest

Each seed is trained twice, with the exact posterior among the predictors and
without. Runs are kept under --workdir and resume where they were interrupted.
Writes TASK.jsonl to results/phases, or --results, and prints its tables; draws
the phases of the first run to docs/phases/TASK.png, or --pictures.
"""

import json
import pathlib

from absl import flags

from experiments.harness import app
from experiments.harness import grid
from experiments.harness import phase_tables
from experiments.harness import signals
from experiments.harness import suite
from experiments.harness import tables
from experiments.harness.grid import Run
from icl_causal import runs
from icl_causal.config import build
from icl_causal.plotting import phases as stacks
from icl_causal.report import phases


def main():
  """The command."""
  app.use_cores(app.cores())
  config = app.config()
  workdir = app.workdir(f"phases-{config.task}")
  group = planned(config, workdir)
  stop = signals.install_handlers()
  suite.train({config.task: group}, stop)
  lines = [phase_tables.line(runs.load(run.workdir)) for run in group]
  results = app.output("results", "results/phases", workdir)
  results.mkdir(parents=True, exist_ok=True)
  path = results / f"{config.task}.jsonl"
  text = "".join(json.dumps(one, allow_nan=False) + "\n" for one in lines)
  runs.write_text(path, text)
  folder = app.output("pictures", "docs/phases", workdir)
  folder.mkdir(parents=True, exist_ok=True)
  first = runs.load(group[0].workdir)
  curves = phases.curves(first, list(first.snapshots))
  stacks.phases(*curves).savefig(folder / f"{config.task}.png", dpi=110)
  for table in (phase_tables.headlines, phase_tables.by_step):
    print(tables.columns(*table(lines)), end="\n\n")
  print(path)


def planned(config: build.Config, workdir: pathlib.Path) -> list[Run]:
  """The runs, with the exact posterior and without."""
  group = []
  for has_exact in (True, False):
    base = config.base.copy_and_resolve_references()
    if has_exact:
      base.eval.posterior_prompts = base.eval.batch_size
    else:
      base.eval.posterior_prompts = 0
    group += [
      grid.run(base, {"seed": seed, "eval.seed": seed}, workdir)
      for seed in config.seeds
    ]
  return group


if __name__ == "__main__":
  app.define_run_flags()
  flags.DEFINE_string(
    "results", None, "Where the lines go; by default results/phases."
  )
  flags.DEFINE_string(
    "pictures", None, "Where the picture goes; by default docs/phases."
  )
  app.run(main)
