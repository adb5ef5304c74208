"""The check of the order under joint training: its correlations, and a run."""

import numpy as np
import pytest

from experiments.theory import order
from tests.support import theory_checks

pytestmark = pytest.mark.slow


def test_correlations_by_hand():
  i_E, strength_E = np.array([4, 8, 8, 16]), np.array([1.0, 1.0, 0.25, 1.0])
  # Predicted order: 4, 8, 16, then the weak edge at 8.
  values = order.orders(np.array([1.0, 2.0, 4.0, 3.0]), i_E, strength_E)
  assert values[0] == pytest.approx(1)
  assert values[1] == pytest.approx(
    np.corrcoef([1, 2, 4, 3], [1, 2.5, 2.5, 4])[0, 1]
  )
  assert values[2] == pytest.approx(1, abs=0.1)
  reverse = order.orders(np.array([4.0, 3.0, 1.0, 2.0]), i_E, strength_E)
  assert reverse[0] == pytest.approx(-1)


def test_correlations_that_are_not_defined():
  i_E, equal = np.array([3, 4, 5, 6]), np.ones(4)
  steps = np.array([1.0, 2.0, np.inf, np.inf])
  assert order.orders(steps, i_E, equal)[2] is None
  assert order.orders(np.full(4, np.inf), i_E, equal) == (None,) * 3
  assert order.orders(steps[:3], i_E[:3], equal[:3]) == (None,) * 3


def test_a_chain_is_learned_from_its_start():
  config = theory_checks.config(
    "order",
    T=10,
    batch_size=128,
    num_graphs=2,
    num_prompts=32,
    cases=(
      ("chain", 3, "Adam", 0.02, 96, 4),
      ("strengths", 3, "Adam", 0.02, 8, 4),
    ),
  )
  chain, strengths = theory_checks.table(order.check(config))
  assert (chain["graphs"], chain["edges"]) == (2, 14)
  assert chain["order"] > 0.6
  assert chain["partial"] is None
  assert (strengths["missed"], strengths["order"]) == (8, None)
