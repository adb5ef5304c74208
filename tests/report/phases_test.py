"""The phases of a run as curves, and in words."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from icl_causal import runs
from icl_causal.report import phases
from tests.support import recorded_run

CURVES = phases.Curves(
  steps=[0, 4, 16, 64],
  weights={
    "uniform": [0.9, 0.3, 0.1, 0.0],
    "unigram": [0.1, 0.6, 0.2, 0.1],
    "wrong graph": [0.0, 0.1, 0.0, 0.0],
    "edge posterior": [0.0, 0.0, 0.5, 0.4],
    "exact posterior": [0.0, 0.0, 0.2, 0.5],
  },
  left=[0.0, 0.01, 0.03, 0.02],
  layer_1=[0.5, 0.02, 0.005, -0.002],
  layer_2=[0.0, 0.3, 0.1, 0.0512],
)


def test_the_lines_sum_to_the_loss_above_the_edge_posterior(tmp_path):
  recorded_run.write(tmp_path / "run", T=6, S=3, heads=1)
  run = runs.load(tmp_path / "run")
  steps = [0, 3, 8, 32]
  of = phases.curves(run, steps)
  assert of.steps == steps
  total = np.add(of.layer_1, of.layer_2)
  # The recorded losses are the same on the part and on the test set.
  losses = [2 / (1 + step) for step in steps]
  np.testing.assert_allclose(total, np.subtract(losses, 0.04), atol=1e-6)
  assert of.layer_1 == [
    run.snapshots[step].phase.decided_loss - 0.04 for step in steps
  ]
  assert list(of.weights)[2] == "wrong graph"
  assert of.weights["unigram"][1] == run.snapshots[3].phase.weights["unigram"]


def test_another_prior_has_the_loss_of_the_dirichlet_edge_posterior():
  class Run(NamedTuple):
    history: list
    snapshots: dict
    result: Any

  phase = runs.Phase({"dirichlet_edge_posterior": 1.0}, 0.1, 1.5, 1.25)
  snapshot = runs.Snapshot(2.0, np.zeros((1, 2, 2)), {}, phase)
  result = {"edge_posterior_loss": None, "dirichlet_edge_posterior_loss": 1.5}
  run: Any = Run([{"step": 0, "loss": 2.25}], {0: snapshot}, result)
  of = phases.curves(run, [0])
  assert of.weights == {"dirichlet edge posterior": [1.0]}
  assert (of.left, of.layer_1, of.layer_2) == ([0.1], [0.25], [0.5])


def test_words_name_the_predictors_by_their_largest_weights():
  text = phases.in_words(CURVES)
  assert "uniform (0.90 at step 0), unigram (0.60 at step 4), edge" in text
  assert "edge posterior (0.50 at step 16), exact posterior (0.50 at st" in text
  assert "wrong graph" not in text
  assert "the posteriors have 0.90 together" in text
  assert "A divergence of 0.020 nats from the mix is left." in text
  assert "From step 16 on, the graph that layer 1 has decided on" in text
  assert text.endswith("is layer 2's, 0.051 nats at the end.")


@pytest.mark.parametrize("last", [0.2, -0.2])
def test_words_of_a_layer_1_that_has_not_decided(last):
  of = CURVES._replace(layer_1=[0.5, 0.0, 0.0, last])
  text = phases.in_words(of)
  assert f"At the end, layer 1 lacks {last:.3f} nats, and layer 2 0.051" in text
  assert "From step" not in text


def test_words_of_a_layer_1_that_lacks_nothing_from_the_start():
  text = phases.in_words(CURVES._replace(layer_1=[0.0] * 4))
  assert "From step 0 on" in text
