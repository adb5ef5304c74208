import json
import pathlib
from typing import NamedTuple

import pytest

from icl_causal import runs
from icl_causal.report import summary

ROOT = pathlib.Path(__file__).parents[2]
RESULT = json.loads((ROOT / "docs/demo/result.json").read_text())


def test_a_mean_comes_with_its_standard_error():
  changed = {"loss": 1.23456, "loss_standard_error": 0.0678}
  rows = dict(summary.rows(RESULT | changed))
  assert rows["loss (nats)"] == "1.2346 +- 0.0678"


def test_losses_of_snapshots_are_corrected_by_the_evaluations_around():
  """In steps of log2(1 + step); the part has .1 less at 3 and .4 less at 15."""

  class Run(NamedTuple):
    history: list
    snapshots: dict

  parts = {0: 2.0, 1: 1.9, 3: 1.8, 7: 1.5, 15: 1.0}
  snapshots = {
    step: runs.Snapshot(loss, None, {}, None) for step, loss in parts.items()
  }
  history = [{"step": 0, "loss": 2.0}, {"step": 3, "loss": 1.9}]
  history.append({"step": 15, "loss": 1.4})
  full, estimates = summary.losses(Run(history, snapshots))
  assert full == {0: 2.0, 3: 1.9, 15: 1.4}
  assert estimates == {1: pytest.approx(1.95), 7: pytest.approx(1.75)}


def test_baselines_that_are_not_known_are_left_out():
  names = ["uniform", "unigram", "edge posterior", "exact posterior", "entropy"]
  assert list(summary.baselines(RESULT)) == names
  without = RESULT | {"exact_posterior_loss": None}
  names.remove("exact posterior")
  assert list(summary.baselines(without)) == names
