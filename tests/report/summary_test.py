import json
import pathlib

from icl_causal.report import summary

ROOT = pathlib.Path(__file__).parents[2]
RESULT = json.loads((ROOT / "docs/demo/result.json").read_text())


def test_a_mean_comes_with_its_standard_error():
  changed = {"loss": 1.23456, "loss_standard_error": 0.0678}
  rows = dict(summary.rows(RESULT | changed))
  assert rows["loss (nats)"] == "1.2346 +- 0.0678"


def test_baselines_that_are_not_known_are_left_out():
  names = ["uniform", "unigram", "edge posterior", "exact posterior", "entropy"]
  assert list(summary.baselines(RESULT)) == names
  without = RESULT | {"exact_posterior_loss": None}
  names.remove("exact posterior")
  assert list(summary.baselines(without)) == names
