"""How well models select a latent graph, and with what, from several seeds.

    python -m experiments.latent --config=configs/selection.py:lags

Trains each model from each seed, compares it with the Bayes predictor at every
position, its last layer with the posterior, and its second layer with the
log-likelihoods of the graphs. Runs are kept under --workdir and resume where
they were interrupted. Writes TASK.jsonl to results/latent, or --results, and
draws docs/latent/TASK.png, or to --pictures.
"""

import json
import pathlib

from absl import flags
import numpy as np

from experiments.harness import app
from experiments.harness import grid
from experiments.harness import selection
from experiments.harness import signals
from experiments.harness import suite
from experiments.harness import tables
from experiments.harness.grid import Run
from icl_causal import models
from icl_causal import runs
from icl_causal.config import build
from icl_causal.plotting import selection as plots


def main():
  """The command."""
  app.use_cores(app.cores())
  config = app.config()
  workdir = app.workdir(f"latent-{config.task}")
  runs_of = planned(config, workdir)
  stop = signals.install_handlers()
  suite.train(runs_of, stop)
  lines = [
    {"model": name} | line
    for name, group in runs_of.items()
    for run in group
    for line in measured(runs.load(run.workdir), config)
  ]
  results = app.output("results", "results/latent", workdir)
  results.mkdir(parents=True, exist_ok=True)
  path = results / f"{config.task}.jsonl"
  text = "".join(json.dumps(one, allow_nan=False) + "\n" for one in lines)
  runs.write_text(path, text)
  folder = app.output("pictures", "docs/latent", workdir)
  folder.mkdir(parents=True, exist_ok=True)
  draw(lines).savefig(folder / f"{config.task}.png", dpi=90)
  for table in (selection.table, selection.inside):
    print(tables.columns(*table(lines)), end="\n\n")
  print(path)


def planned(
  config: build.Config, workdir: pathlib.Path
) -> dict[str, list[Run]]:
  """The runs of each model; every seed has test prompts of its own."""
  return {
    name: [
      grid.run(config.models[name], {"seed": seed, "eval.seed": seed}, workdir)
      for seed in config.seeds
    ]
    for name in config.models
  }


def measured(run: runs.Run, config: build.Config) -> list[dict]:
  """The lines of a run: at its length, and at longer ones if it can do them."""
  lines = [selection.line(run, config.num_prompts)]
  if not isinstance(run.model, models.Relative):
    return lines
  for T in config.longer.T:
    longer = selection.at_length(run, T)
    after = selection.trained_longer(longer, config.longer)
    for stage, one in (("not trained at T", longer), ("short training", after)):
      line = selection.line(one, config.num_prompts // 4)
      lines.append(line | {"stage": stage})
  return lines


def draw(lines):
  """The gap, the attention and the temperature by position."""
  by_model = {}
  T = lines[0]["T"]
  lines = [line for line in lines if line["T"] == T]
  for line in lines:
    by_model.setdefault(f"{line['model']} {line['heads']}", []).append(line)
  return plots.selection(
    {
      name: {
        field: np.array([line[field] for line in group], float)
        for field in ("gap_by_position", "slope_by_position", "calibration")
      }
      for name, group in by_model.items()
    },
    np.array(lines[0]["positions"]),
    np.array(lines[0]["levels"]),
  )


if __name__ == "__main__":
  app.define_run_flags()
  flags.DEFINE_string(
    "results", None, "Where the lines go; by default results/latent."
  )
  flags.DEFINE_string(
    "pictures", None, "Where the picture goes; by default docs/latent."
  )
  app.run(main)
