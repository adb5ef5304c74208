"""The estimate of the time of a tier, with a clock that work sets forward."""

import types

import jax
import pytest

from configs import single_parent
from experiments.benchmark import tiers
from experiments.harness import batches
from experiments.harness import grid
from experiments.harness import suite


@pytest.mark.parametrize("one_by_one", [True, False])
def test_the_estimate_is_that_of_the_whole_training(
  one_by_one, monkeypatch, tmp_path
):
  """3 runs of 96 steps, evaluated every 32 steps; the first calls are slow."""
  clock, calls = [0.0], []
  monkeypatch.setattr(tiers.time, "perf_counter", lambda: clock[0])
  monkeypatch.setattr(suite, "one_by_one", lambda batch, num: one_by_one)

  def spend(seconds, first=0.0, result=None):
    clock[0] += seconds + (0 if seconds in calls else first)
    calls.append(seconds)
    return result

  def take_steps(state, num_steps):
    assert num_steps <= 32
    clock[0] += 0.5 * num_steps
    return spend(0, 100, (state, None))

  def trainer():
    return types.SimpleNamespace(
      start=0,
      take_steps=take_steps,
      evaluate=lambda state, num: spend(2.0 * num, 1.0),
      exact=lambda: spend(7),
    )

  monkeypatch.setattr(
    batches, "single", lambda run: spend(11, 89, result=trainer())
  )
  monkeypatch.setattr(
    batches, "stacked", lambda batch, at_once: spend(11, 89, result=trainer())
  )
  monkeypatch.setattr(jax, "block_until_ready", lambda tree: tree)
  config = single_parent.get_config("manual")
  config.train.update(steps=96, eval_every=32)
  config.eval.update(test_size=2**12, batch_size=2**10)
  planned = [grid.run(config, {"seed": seed}, tmp_path) for seed in range(3)]
  training = 96 * 0.5 + 3 * 2 * 4 + 7
  total = 100 + 2 * 11 + 3 * training if one_by_one else 100 + training
  steps = 3 * 48 if one_by_one else 48
  assert tiers.seconds(planned, repeats=2) == (total, steps)


def test_every_experiment_of_every_tier_has_minutes(monkeypatch):
  monkeypatch.setattr(
    tiers,
    "seconds",
    lambda batch, repeats: tiers.Estimate(36.0 * len(batch), 9.0 * len(batch)),
  )
  found = tiers.hours(repeats=1, num_seeds=2)
  totals = {name: found.pop(name) for name in list(found) if "hours" in name}
  # 9 experiments from 2 seeds; forests has 20 graphs besides.
  assert totals == pytest.approx(
    {
      "hours of quick, all trainings": (9 + 20) * 2 / 100,
      "hours of paper, all trainings": (9 + 20) * 2 / 100,
    }
  )
  shares = [found.pop(name) for name in list(found) if "share" in name]
  assert shares == pytest.approx([0.25, 0.25])
  assert sum(found.values()) == pytest.approx(2 * (9 + 20) * 2 * 0.6)
  assert any("standard chain" in name for name in found)
