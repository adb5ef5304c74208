"""The check of longer prompts, at small sizes."""

from jax import numpy as jnp
import numpy as np
import pytest

from experiments.theory import lengths
from tests.support import theory_checks

pytestmark = pytest.mark.slow

CONFIG = theory_checks.config(
  "lengths",
  T=8,
  lengths=(8, 12),
  cases=((2, 3, 0.1), (2, 0, 0.1)),
  steps=48,
  measured_every=8,
  batch_size=64,
  num_seeds=2,
  test_size=64,
)


@pytest.fixture(scope="module")
def outcome():
  return lengths.check(CONFIG)


def test_rows_of_both_models(outcome):
  rows = theory_checks.table(outcome)
  assert [(row["model"], row["reach"], row["T"]) for row in rows] == [
    ("relative", 3, 8),
    ("relative", 3, 12),
    ("absolute", None, 8),
  ]
  for row in rows:
    assert 0 < row["excess"] < np.log(2)
    assert 0.3 < row["parent attention"] < 1
  own, longer, absolute = rows
  assert own["parent attention"] > longer["parent attention"]
  assert (own["top distance"], absolute["top distance"]) == (1, None)
  assert longer["learned"] is longer["rank"] is None


def test_the_figure_has_losses_and_steps(outcome):
  losses, steps = outcome.figure.axes
  assert losses.get_title() == "S = 2, prompts of 12 tokens"
  names = [text.get_text() for text in losses.get_legend().get_texts()]
  assert names == ["relative, reach 3", "absolute", "length of training"]
  np.testing.assert_array_equal(losses.lines[0].get_xdata(), np.arange(2, 13))
  np.testing.assert_array_equal(losses.lines[1].get_xdata(), np.arange(2, 9))
  np.testing.assert_array_equal(steps.lines[0].get_xdata(), np.arange(3, 9))


def test_the_step_of_a_position():
  """Two positions cross 1/2 between measurements, one never does."""
  config = theory_checks.config("lengths", T=5, measured_every=10)
  curve_NxT = np.full((3, 5), 0.2)
  curve_NxT[1:, 2] = 0.8
  curve_NxT[2, 3] = 0.6
  (step_E,) = lengths.steps_of(config, curve_NxT[None])
  np.testing.assert_allclose(step_E, [5, 17.5, np.inf])


def test_cells_of_the_steps():
  position_E = 3.0 + np.arange(6)
  cells = lengths.times(np.stack([2 * position_E, 5 * position_E]))
  np.testing.assert_allclose(cells, [1, 1, 0, 1, 0, 10.5, 28], atol=1e-9)
  missed = np.stack([2 * position_E, 5 * position_E])
  missed[0, -1] = np.inf
  cells = lengths.times(missed)
  np.testing.assert_allclose(cells[:6], [11 / 12, 1, 0, 1, 0, 10.5], atol=1e-9)
  assert cells[6] is None
  assert lengths.times(np.full((2, 6), np.inf)) == [0.0, *[None] * 6]


def test_attention_on_the_previous_position():
  att_TxT = jnp.array([[1.0, 0, 0], [0.7, 0.3, 0], [0.2, 0.6, 0.2]])
  np.testing.assert_allclose(lengths.previous(att_TxT), [1, 0.7, 0.6])


def test_steps_divide_into_measurements():
  config = theory_checks.config("lengths", steps=10)
  (message,) = [need(config) for need in lengths.NEEDS]
  assert message == "steps = 10: must be a multiple of measured_every = 4"
