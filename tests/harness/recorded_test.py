import numpy as np
import pytest

from experiments.harness import grid
from experiments.harness import recorded
from icl_causal import config
from icl_causal import phases
from icl_causal import training
from icl_causal.config import build

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


@pytest.mark.parametrize(
  ("prior", "name"),
  [
    ("dirichlet", "edge_posterior"),
    ("floored_dirichlet", "dirichlet_edge_posterior"),
  ],
)
def test_a_snapshot_has_the_weights_of_the_predictors_that_are_there(
  prior, name, tmp_path
):
  changes = {"prior.name": prior, "eval.batch_size": 2, "eval.test_size": 4}
  if prior != "dirichlet":
    changes["prior.gamma"] = 0.1
  made = config.load("configs.single_parent", "chain", **changes)
  run = grid.Run(made, build.graph(made), {}, tmp_path)
  evaluation = training.Evaluation(
    np.array([1.0, 2.0, 9.0, 9.0]), {"attention_1": np.ones((1, 2, 2))}, {}
  )
  weights = {"edge_posterior": 0.25, "uniform": 0.75, "wrong_graph": np.nan}
  weights = {of: np.float32(weight) for of, weight in weights.items()}
  phase = phases.Phase(weights, np.float32(0.5), np.float32(2), np.float32(1))
  snapshot = recorded.snapshot(run, evaluation, phase)
  assert snapshot.loss == 1.5
  assert snapshot.phase == phases.Phase(
    {"uniform": 0.75, name: 0.25}, 0.5, 2, 1
  )
  assert list(snapshot.phase.weights) == ["uniform", name]


def test_steps_are_joined_in_order():
  taken = [
    training.Steps(np.array([[1.0], [4.0]]), np.zeros((2, 1))),
    training.Steps(np.array([[2.0, 3.0], [5.0, 6.0]]), np.ones((2, 2))),
  ]
  joined = recorded.joined(taken)
  np.testing.assert_array_equal(joined.loss_N, [[1, 2, 3], [4, 5, 6]])
  np.testing.assert_array_equal(joined.gradient_norm_N[0], [0, 1, 1])
