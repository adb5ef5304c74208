"""Tables of phases: by hand, and of small trainings."""

import json

import numpy as np
import pytest

from configs import phases as phases_configs
from experiments import phases
from experiments.harness import phase_tables
from experiments.harness import signals
from experiments.harness import suite
from icl_causal import runs

pytestmark = pytest.mark.slow


def _line(seed, unigram, edge, exact=None):
  weights = {"uniform": [1.0, 0.3, 0.0], "unigram": [0.0, *unigram]}
  weights |= {"wrong graph": [0.0, 0.0, 0.01], "edge posterior": [0.0, *edge]}
  if exact is not None:
    weights["exact posterior"] = [0.0, *exact]
  return {
    "run": f"{seed:012x}",
    "seed": seed,
    "steps": [0, 16, 1024],
    "weights": weights,
    "left": [0.0, 0.01, 0.03],
    "layer_1": [0.5, 0.009, 0.02 * seed],
    "layer_2": [0.1, 0.2, 0.3],
  }


LINES = [
  _line(0, (0.6, 0.1), (0.1, 0.4), (0.0, 0.5)),
  _line(1, (0.4, 0.5), (0.1, 0.2), (0.0, 0.5)),
  _line(0, (0.6, 0.1), (0.1, 0.9)),
  _line(1, (0.4, 0.5), (0.1, 0.7)),
]


def test_headlines_by_hand():
  rows = dict(phase_tables.headlines(LINES)[1])
  assert list(rows.values()) == [
    "0.550 +- 0.050",
    "16, 1024",
    "0.800 +- 0.100",
    "0.800 +- 0.100",
    "0.010 +- 0.000",
    "0.030 +- 0.000",
    "16, never",
  ]


def test_steps_by_hand():
  header, rows = phase_tables.by_step(LINES)
  assert [row[0] for row in rows] == [0, 16, 1024]
  last = dict(zip(header, rows[-1], strict=True))
  assert last["unigram"] == "0.300 +- 0.200"
  assert last["edge posterior"] == "0.300 +- 0.100"
  assert last["exact posterior"] == "0.500 +- 0.000"
  assert last["edge posterior, without the exact one"] == "0.800 +- 0.100"
  assert last["layer 1 lacks"] == "0.010 +- 0.010"
  assert last["left"] == "0.030 +- 0.000"


@pytest.mark.parametrize("task", phases_configs.TASKS)
def test_small_trainings_are_recorded(task, tmp_path):
  """Twice from each seed: with the exact posterior and without."""
  config = phases_configs.get_config(task).unlock()
  config.seeds = (3, 4)
  config.base.prior.S = 2
  config.base.train.update(steps=16, eval_every=8, batch_size=16)
  config.base.eval.update(test_size=64, batch_size=32, posterior_samples=512)
  group = phases.planned(config, tmp_path)
  assert len({run.name for run in group}) == len(group) == 4
  suite.train({task: group}, signals.never)
  lines = [phase_tables.line(runs.load(run.workdir)) for run in group]
  assert [line["seed"] for line in lines] == [3, 4, 3, 4]
  has_exact = ["exact posterior" in line["weights"] for line in lines]
  assert has_exact == [True, True, False, False]
  path = tmp_path / "lines.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert runs.read_table(path, phase_tables.FIELDS) == lines
  for line in lines:
    total = np.sum([*line["weights"].values()], axis=0)
    np.testing.assert_allclose(total, 1, atol=1e-3)
  assert len(phase_tables.by_step(lines)[1]) == 2
  assert len(phase_tables.headlines(lines)[1]) == 7
  # Both trainings of a seed are the same.
  for one, other in zip(lines[:2], lines[2:], strict=True):
    np.testing.assert_allclose(one["layer_2"], other["layer_2"], atol=2e-3)
  phase_tables.headlines(lines[2:])
