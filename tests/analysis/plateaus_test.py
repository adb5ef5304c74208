"""Plateaus of curves that are made by hand."""

import numpy as np
import pytest

from icl_causal.analysis import plateaus

STEPS = 2.0 ** np.arange(0, 12, 0.25)


def _stairs(levels, ends):
  """A level up to each end, then the next one."""
  return np.array([levels[np.searchsorted(ends, s)] for s in STEPS])


def test_a_curve_that_falls_steadily_has_none():
  assert plateaus.plateaus(STEPS, 1 - 0.05 * np.log2(STEPS)) == []


def test_each_stair_but_the_last_is_a_plateau():
  loss = _stairs([0.9, 0.5, 0.2], [16, 256])
  first, second = plateaus.plateaus(STEPS, loss)
  assert (first.level, second.level) == pytest.approx((0.9, 0.5))
  assert (STEPS[first.first], STEPS[first.last]) == (1, 16)
  assert STEPS[second.first] == pytest.approx(16 * 2**0.25)
  assert STEPS[second.last] == 256


def test_a_constant_loss_is_not_left():
  assert plateaus.plateaus(STEPS, np.full(len(STEPS), 0.5)) == []


def test_a_short_stair_is_none():
  """From step 19 to 45: less than three times as many."""
  loss = _stairs([0.9, 0.5, 0.2], [16, 46])
  assert [p.level for p in plateaus.plateaus(STEPS, loss)] == pytest.approx(
    [0.9]
  )


def test_a_small_step_is_no_end():
  """The loss falls by .01, then by .3: one plateau with both levels."""
  loss = _stairs([0.9, 0.89, 0.59], [16, 256])
  (found,) = plateaus.plateaus(STEPS, loss)
  assert (found.first, STEPS[found.last]) == (0, 256)
  assert 0.89 < found.level < 0.9
  # Left only by as much as it may fall inside: no plateau.
  loss = _stairs([0.9, 0.89, 0.88], [16, 256])
  assert plateaus.plateaus(STEPS, loss) == []


def test_noise_below_the_tolerance_changes_nothing():
  loss = _stairs([0.9, 0.5, 0.2], [16, 256])
  noise = 0.008 * np.random.default_rng(0).uniform(-1, 1, len(STEPS))
  clean, noisy = (
    plateaus.plateaus(STEPS, curve) for curve in (loss, loss + noise)
  )
  assert [p[:2] for p in noisy] == [p[:2] for p in clean]


def test_step_0_starts_no_plateau():
  steps = np.array([0, 1, 2, 4, 8])
  loss = np.array([0.9, 0.9, 0.9, 0.9, 0.1])
  (found,) = plateaus.plateaus(steps, loss)
  assert (found.first, found.last) == (1, 3)
