"""What a run is summed up in."""

import json

import numpy as np
import pytest

from experiments import train

EDGE_N = np.array([1.0, 2.0, 3.0, 4.0])
ROW = {"excess_loss": 0.5, "excess_loss_standard_error": 0.3}


def test_against_exact_by_hand():
  """The edge posterior's mean, 2.5, less a gain of .2 +- .1."""
  exact = np.array([0.9, 1.7]), np.array([10.0, 40.0])
  found = train.against_exact(ROW, {"edge_posterior": EDGE_N}, exact)
  assert found == pytest.approx(
    {
      "exact_posterior_loss": 2.3,
      "exact_posterior_loss_standard_error": 0.1,
      "excess_over_exact": 0.7,
      "excess_over_exact_standard_error": np.hypot(0.1, 0.3),
      "exact_posterior_effective_samples": 16,
    }
  )


@pytest.mark.parametrize(
  ("loss", "effective"), [(1.7, 4.0), (np.inf, 40.0), (np.nan, np.nan)]
)
def test_no_loss_comes_of_too_few_samples(loss, effective):
  exact = np.array([0.9, loss]), np.array([10.0, effective])
  found = train.against_exact(ROW, {"edge_posterior": EDGE_N}, exact)
  assert found["exact_posterior_loss"] is None
  assert found["excess_over_exact"] is None
  json.dumps(found, allow_nan=False)  # result.json can hold it


def test_no_loss_where_none_is_asked_for():
  found = train.against_exact(ROW, {"edge_posterior": EDGE_N}, None)
  assert set(found.values()) == {None}
