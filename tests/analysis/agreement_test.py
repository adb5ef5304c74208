"""Agreement of measured with predicted changes, on changes drawn by a law."""

import numpy as np
import pytest

from icl_causal.analysis import agreement

G, B, P = 32, 16, 60


def _moments(measured_GxBxP, predicted_GxBxP):
  return agreement.Moments(
    *(
      np.stack(groups)
      for groups in zip(
        *map(agreement.moments, measured_GxBxP, predicted_GxBxP), strict=True
      )
    )
  )


def test_numbers_by_hand():
  """One prompt in each of three groups, two pairs."""
  m = np.array([[[1.0, 2.0]], [[2.0, 4.0]], [[3.0, 9.0]]])
  p = np.array([[[1.0, 1.0]], [[0.0, 2.0]], [[2.0, 3.0]]])
  found = agreement.agreement(_moments(m, p))
  means_m, means_p = np.array([2.0, 5.0]), np.array([1.0, 2.0])
  assert found.measured.value == pytest.approx(3.5)
  assert found.predicted.value == pytest.approx(1.5)
  assert found.through_zero.value == pytest.approx(
    means_m @ means_p / (means_p @ means_p)
  )
  assert found.slope.value == pytest.approx(3)
  assert found.correlation.value == pytest.approx(1)
  every = np.polyfit(p.ravel(), m.ravel(), 1)
  assert found.slope_of_prompts.value == pytest.approx(every[0])
  assert found.correlation_of_prompts.value == pytest.approx(
    np.corrcoef(p.ravel(), m.ravel())[0, 1]
  )


def test_noise_of_prompts_is_subtracted():
  """Slope .5 of the means; the noise is common, with slope 2."""
  random, repetitions = np.random.default_rng(0), 40
  mean_P = random.normal(size=P)
  found = []
  for _ in range(repetitions):
    noise = 4 * random.normal(size=(G, B, P))
    rest = 2 * random.normal(size=(G, B, P))
    measured = 1 + 0.5 * mean_P + 2 * noise + rest
    found.append(agreement.agreement(_moments(measured, mean_P + noise)))

  def values(name):
    return np.array([getattr(one, name).value for one in found])

  assert values("slope").mean() > 0.52  # towards the slope of the noise
  corrected = values("slope_of_means")
  error = corrected.std(ddof=1) / repetitions**0.5
  assert abs(corrected.mean() - 0.5) < 4 * error
  errors = [one.slope_of_means.error for one in found]
  assert np.mean(errors) == pytest.approx(corrected.std(ddof=1), rel=0.35)
  assert values("correlation_of_means").mean() == pytest.approx(1, abs=0.1)
  for name, own, added in (
    ("noise", 0.25, 8**2 + 2**2),
    ("predicted_noise", 1, 4**2),
  ):
    share = added / (G * B)
    share /= share + own * mean_P.var()
    assert values(name).mean() == pytest.approx(share, rel=0.1)


def test_equal_changes_agree():
  m = np.random.default_rng(1).normal(size=(G, B, P))
  found = agreement.agreement(_moments(m, m))
  for name in ("slope", "through_zero", "correlation", "slope_of_prompts"):
    value, error = getattr(found, name)
    assert value == pytest.approx(1)
    assert error == pytest.approx(0, abs=1e-9)


def test_what_is_not_defined_is_none():
  """Predicted changes of zero; and noise alone, whose variance may be less."""
  random = np.random.default_rng(2)
  m = random.normal(size=(G, B, P))
  found = agreement.agreement(_moments(m, np.zeros_like(m)))
  assert found.slope == (None, None)
  assert found.correlation_of_means == (None, None)
  assert found.measured.value == pytest.approx(m.mean())


def test_few_groups_or_pairs_are_refused():
  for shape in ((2, B, P), (G, B, 1)):
    m = np.ones(shape)
    with pytest.raises(ValueError, match="at least 3 x 2"):
      agreement.agreement(_moments(m, m))


def test_moments_of_some_pairs():
  m = np.random.default_rng(3).normal(size=(3, 2, 4, 4))
  of = _moments(m, 2 * m)
  chosen = np.tri(4, k=-1, dtype=bool)
  some = of.of_pairs(chosen)
  assert some.products.shape == (3, 6)
  np.testing.assert_allclose(some.products, 2 * some.measured_squares)
