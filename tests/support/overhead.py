"""What snapshots cost in the time of a training.

    python -m tests.support.overhead --repeats=9

Trains the demo without compiling, in turn: as it is; without phases; and
without phases and without the snapshots between evaluations. Prints the medians
of the seconds and of the ratios to the last of the three, by the clock and by
the time of the processors, which other programs disturb less.
"""

from collections.abc import Callable
import pathlib
import statistics
import tempfile
import time
from typing import NamedTuple

from absl import app as absl
from absl import flags
import jax
from jax import numpy as jnp

from experiments.harness import app
from experiments.harness import batches
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from experiments.harness import program
from icl_causal import config
from icl_causal import phases
from icl_causal import runs
from icl_causal.config import build

_REPEATS = flags.DEFINE_integer("repeats", 9, "Number of rounds.", 2)
_DEMO = {"train.steps": 2048, "train.learning_rate": 0.05}
NAMES: tuple[str, ...] = ("maps and phases", "maps", "neither")


class Times(NamedTuple):
  """Seconds of a training, by the clock and of the processors."""

  wall: float
  processor: float


def measure(repeats: int, changes: dict) -> list[dict[str, Times]]:
  """The times of a training in each round, by the names in `NAMES`."""
  made = config.load("configs.single_parent", "chain", **_DEMO | changes)
  run = grid.Run(made, build.graph(made), {}, pathlib.Path("none"))
  full, next_step = batches.single(run), loop._next_step
  bare, start = _without_phases(run), full.to_host(full.start)

  def seconds(trainer: batches.Trainer, choose: Callable) -> Times:
    """A training copies the start, since its steps donate their argument."""
    loop._next_step = choose
    with tempfile.TemporaryDirectory() as folder:
      own = run._replace(workdir=pathlib.Path(folder) / "run")
      runs.prepare(own.workdir, made.to_dict(), overwrite=False)
      fresh = trainer._replace(start=trainer.to_devices(start))
      job = loop.Job([own], fresh, distributed.this_process())
      before = Times(time.perf_counter(), time.process_time())
      loop.train(job, time.monotonic())
      after = Times(time.perf_counter(), time.process_time())
    return Times(*(b - a for a, b in zip(before, after, strict=True)))

  variants = (full, next_step), (bare, next_step), (bare, lambda s, e: s + e)
  try:
    rounds = [
      dict(zip(NAMES, (seconds(*one) for one in variants), strict=True))
      for _ in range(repeats + 1)
    ]
  finally:
    loop._next_step = next_step
  return rounds[1:]  # the first round compiles


def _without_phases(run: grid.Run) -> batches.Trainer:
  """The trainer of a run whose phases are constants."""
  whole = program.program

  def without(*arguments):
    constant = jnp.zeros(())
    phase = phases.Phase({"uniform": constant + 1}, *[constant] * 3)
    return whole(*arguments)._replace(phase=lambda *_: phase)

  program.program = without
  try:
    return batches.single(run)
  finally:
    program.program = whole


def main(_):
  """The command."""
  app.use_cores(app.cores())
  rounds = measure(_REPEATS.value, {"eval.posterior_prompts": 0})
  print(f"{jax.device_count()} devices, {len(rounds)} rounds")
  for name in NAMES:
    print(f"{name:<16}", end="")
    for kind in Times._fields:
      times = [getattr(one[name], kind) for one in rounds]
      ratios = [
        getattr(one[name], kind) / getattr(one["neither"], kind)
        for one in rounds
      ]
      print(f"{kind} {statistics.median(times):.2f} s,", end=" ")
      print(f"ratio {statistics.median(ratios):.4f}", end=" ")
      print(f"({min(ratios):.3f} to {max(ratios):.3f})", end="   ")
    print()


if __name__ == "__main__":
  absl.run(main)
