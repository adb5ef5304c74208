"""A sweep of tiny runs, and how tests train it."""

import pathlib

from configs import single_parent
from experiments.harness import batches
from experiments.harness import grid
from experiments.harness import loop
from icl_causal import runs

# Six runs; those with the second learning rate fail.
GRID = {
  "graph": {"seed": (0, 1, 2)},
  "train": {"learning_rate": (0.1, 1e38)},
}


def config(axes=GRID, random=None, samples=1, steps=4):
  """Of a sweep over T = 6, S = 3, with an evaluation every 2 steps."""
  made = single_parent.get_config("random")
  made.graph.T, made.prior.S = 6, 3
  made.train.update(steps=steps, eval_every=2, batch_size=32)
  made.eval.update(test_size=64, batch_size=8, posterior_prompts=16)
  made.sweep = {
    "grid": axes,
    "random": random or {},
    "samples": samples,
    "seed": 0,
  }
  return made


def train(made, workdir: pathlib.Path, largest=4, at_once=2) -> list[grid.Run]:
  """Trains every run of a sweep, as `experiments.sweep` does."""
  planned = grid.every_run(made, workdir)
  runs.prepare(workdir, made.to_dict(), overwrite=False)
  for batch in grid.divide(planned, largest):
    loop.train_batch(batch, at_once)
  return planned


def stop_at(num_evaluations: int):
  """A `stop` that requests a stop after this many evaluations."""
  calls = []

  def stop() -> bool:
    calls.append(None)
    return len(calls) >= num_evaluations

  return stop


def count_calls(monkeypatch) -> list:
  """Records calls of `Trainer.take_steps` of stacked runs from now on."""
  calls, stacked = [], batches.stacked

  def counted(*arguments):
    trainer = stacked(*arguments)

    def take_steps(state, num_steps):
      calls.append(int(trainer.to_host(state).step[0]))
      return trainer.take_steps(state, num_steps)

    return trainer._replace(take_steps=take_steps)

  monkeypatch.setattr(batches, "stacked", counted)
  return calls
