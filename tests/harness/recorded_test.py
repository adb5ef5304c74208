import numpy as np
import pytest

from experiments.harness import recorded
from icl_causal import training

FINE = training.Evaluation(np.array([1.0, 2.0]), {}, {})
NAN = training.Evaluation(np.array([1.0, np.nan]), {}, {})


def _steps(*losses):
  return training.Steps(np.array(losses), np.ones(len(losses)))


@pytest.mark.parametrize(
  ("evaluation", "steps", "expected"),
  [
    (FINE, None, None),
    (FINE, _steps(1.0, 2.0), None),
    (FINE, _steps(3.0, np.nan, np.nan), (9, "the loss is not finite")),
    (NAN, _steps(3.0, np.inf, 1.0), (9, "the loss is not finite")),
    (NAN, _steps(3.0, 1.0), (10, "the test loss is not finite")),
    (NAN, None, (10, "the test loss is not finite")),
  ],
)
def test_the_first_number_that_is_not_finite(evaluation, steps, expected):
  """Of an evaluation at step 10 and of the steps before it."""
  failed = recorded.failure(evaluation, steps, 10)
  if expected is None:
    assert failed is None
    return
  assert failed is not None
  assert (failed["step"], failed["what"]) == expected
  if steps is not None:
    assert failed["last_losses"][0] == "3"


def test_steps_are_joined_in_order():
  taken = [
    training.Steps(np.array([[1.0], [4.0]]), np.zeros((2, 1))),
    training.Steps(np.array([[2.0, 3.0], [5.0, 6.0]]), np.ones((2, 2))),
  ]
  joined = recorded.joined(taken)
  np.testing.assert_array_equal(joined.loss_N, [[1, 2, 3], [4, 5, 6]])
  np.testing.assert_array_equal(joined.gradient_norm_N[0], [0, 1, 1])
