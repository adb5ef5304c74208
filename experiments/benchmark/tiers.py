"""How long the trainings of a tier take, estimated from a few steps of each."""

from collections.abc import Sequence
import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np

from configs import paper
from configs import variants
from experiments.harness import batches
from experiments.harness import grid
from experiments.harness import suite
from experiments.harness.grid import Run

_TIMED_STEPS = 8


class Estimate(NamedTuple):
  """Seconds of trainings.

  Attributes:
    total: all.
    steps: those of the training steps alone.
  """

  total: float
  steps: float


def hours(
  repeats: int, num_seeds: int, small: bool = False
) -> dict[str, float]:
  """Hours of all trainings of each tier, and minutes of each experiment.

  As `experiments.verify` trains them from nothing: compiling, steps,
  evaluations and the exact posterior, but no checks of the theory and no files.
  Also the share of the steps in the hours.

  Args:
    repeats: timings of a step and of an evaluation.
    num_seeds: of each experiment.
    small: whether the runs are shrunk, as with --smoke.
  """
  result = {}
  for tier in variants.TIERS:
    runs_of = {
      name: suite.planned(name, tier, num_seeds, pathlib.Path("unused"), small)
      for name in paper.EXPERIMENTS
    }
    every = [run for group in runs_of.values() for run in group]
    total = steps = 0.0
    for batch in grid.divide(every, largest=256):
      spent = seconds(batch, repeats)
      names = suite.names_of(batch, runs_of)
      result[f"minutes of {tier}: {names}"] = spent.total / 60
      total, steps = total + spent.total, steps + spent.steps
    result[f"hours of {tier}, all trainings"] = total / 3600
    result[f"share of {tier}, training steps"] = steps / total
  return result


def seconds(batch: Sequence[Run], repeats: int) -> Estimate:
  """The estimate for runs of one program.

  A step and an evaluation take the median of `repeats` timings; what precedes
  the first step and what follows the last are timed once.
  """
  config = batch[0].config
  one_by_one = suite.one_by_one(batch, jax.device_count())

  def started():
    if one_by_one:
      return batches.single(batch[0])
    return batches.stacked(batch, suite.AT_ONCE)

  setup, trainer = _timed(started)
  again = _timed(started)[0] if one_by_one and len(batch) > 1 else 0.0
  num_steps = min(_TIMED_STEPS, config.train.eval_every)
  num_batches = config.eval.test_size // config.eval.batch_size
  state, steps, evaluations = trainer.start, [], []
  for _ in range(1 + repeats):
    spent, (state, _) = _timed(lambda s=state: trainer.take_steps(s, num_steps))
    steps.append(spent / num_steps)
    evaluations.append(
      _timed(lambda s=state: trainer.evaluate(s, num_batches))[0]
    )
  end, _ = _timed(trainer.exact)
  in_steps = config.train.steps * float(np.median(steps[1:]))
  num_evaluations = config.train.steps / config.train.eval_every
  each = in_steps + end + num_evaluations * float(np.median(evaluations[1:]))
  rounds = len(batch) if one_by_one else 1
  total = setup + (rounds - 1) * again + rounds * each
  return Estimate(total, rounds * in_steps)


def _timed(function):
  started = time.perf_counter()
  result = jax.block_until_ready(function())
  return time.perf_counter() - started, result
