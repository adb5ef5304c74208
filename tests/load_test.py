"""Small sizes of `tests.support.load`: nothing grows with the steps so far."""

import tracemalloc

import numpy as np
import pytest

from experiments.harness import loop
from tests.support import load
from tests.support import overhead

pytestmark = pytest.mark.slow


def test_an_evaluation_costs_the_same_after_many(tmp_path):
  """In memory, and in what it reads and writes."""
  load.append(tmp_path, range(100))
  tracemalloc.start()
  load.append(tmp_path, range(100, 200))
  first, _ = tracemalloc.get_traced_memory()
  load.append(tmp_path, range(200, 2200))
  second, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert second - first < 20_000
  assert peak < 10**6
  sizes = [
    len(line)
    for name in ("metrics.jsonl", "snapshots.jsonl")
    for line in (tmp_path / name).read_bytes().splitlines()
  ]
  assert len(sizes) == 2 * 2200
  assert np.ptp(sizes[:2200]) < 40


def test_a_long_history_is_opened(tmp_path):
  measured = dict(load.history(tmp_path / "run", 1000))
  assert set(measured) == {
    "first tenth of the rows",
    "last tenth of the rows",
    "opening the run",
  }


def test_memory_does_not_grow_with_evaluations(tmp_path):
  measured = load.evaluations(tmp_path, 2000)
  memory = [float(what.split()[-2]) for what, _ in measured]
  assert len(memory) == 2
  assert memory[1] - memory[0] < 20  # megabytes


def test_overhead_trains_in_rounds():
  small = {"train.steps": 4, "train.eval_every": 2, "train.batch_size": 8}
  small |= {"eval.test_size": 64, "eval.batch_size": 64}
  small |= {"eval.posterior_prompts": 0, "train.learning_rate": 0.1}
  (times,) = overhead.measure(1, small)
  assert tuple(times) == overhead.NAMES
  assert min(min(one) for one in times.values()) > 0
  assert loop._next_step(0, 2) == 1
