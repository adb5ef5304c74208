"""How measured changes of a loss agree with predicted ones (ours).

The changes are T x T on each prompt, and the prompts are common to all pairs.
Two questions differ. Do the *means* over prompts agree, from pair to pair? The
noise of the prompts is in both means, and can be most of their spread. And do
the changes agree *prompt by prompt*?
"""

from typing import Any, NamedTuple

import chex
import numpy as np


class Moments(NamedTuple):
  """Means over prompts; the axes are G groups of prompts and P pairs.

  Attributes:
    measured: of the measured changes, in nats.
    predicted: of the predicted changes, in nats.
    measured_squares: of the squares of the measured changes.
    predicted_squares: of the squares of the predicted changes.
    products: of measured times predicted.
  """

  measured: Any
  predicted: Any
  measured_squares: Any
  predicted_squares: Any
  products: Any

  def of_pairs(self, chosen) -> "Moments":
    """Those of some pairs: an index of the axes after the first."""
    return Moments(*(np.asarray(a)[:, chosen] for a in self))


def moments(measured_B, predicted_B) -> Moments:
  """The means over the first axis, of a group of B prompts."""
  chex.assert_equal_shape([measured_B, predicted_B])
  m, p = measured_B, predicted_B
  return Moments(*(a.mean(axis=0) for a in (m, p, m**2, p**2, m * p)))


class Number(NamedTuple):
  """A number and its standard error over prompts; None if not defined."""

  value: float | None
  error: float | None


_NONE = Number(None, None)


class Agreement(NamedTuple):
  """The agreement of measured with predicted changes.

  Attributes:
    measured: the mean of the measured changes, in nats.
    predicted: the mean of the predicted changes, in nats.
    through_zero: the slope of the regression of the measured means on the
      predicted means, without an intercept.
    slope: with an intercept.
    correlation: Pearson's r of the means, over pairs.
    slope_of_means: the slope if there were infinitely many prompts: the noise
      of the means, estimated between groups, is subtracted from the covariance
      and from the variances. None if a variance that is left is not above 0, in
      all groups or without one of them: then it is all noise.
    correlation_of_means: Pearson's r, likewise. It can exceed 1 by its error.
    noise: the share of noise in the variance of the measured means.
    predicted_noise: the share of noise in that of the predicted means.
    slope_of_prompts: of the regression with an intercept over all prompts and
      pairs.
    correlation_of_prompts: Pearson's r over all prompts and pairs.
  """

  measured: Number
  predicted: Number
  through_zero: Number
  slope: Number
  correlation: Number
  slope_of_means: Number
  correlation_of_means: Number
  noise: Number
  predicted_noise: Number
  slope_of_prompts: Number
  correlation_of_prompts: Number


def agreement(of: Moments) -> Agreement:
  """The agreement over P >= 2 pairs, with jackknife errors over G >= 3 groups.

  Args:
    of: means over each of G groups of prompts of one size, G x P.

  Raises:
    ValueError: if there are too few groups or pairs.
  """
  every = [np.asarray(a, float) for a in of]
  chex.assert_equal_shape(every)
  G, P = every[0].shape
  if G < 3 or P < 2:
    raise ValueError(f"the moments must be at least 3 x 2, got {G} x {P}")
  values = _numbers(*every)
  left_out = np.array(
    [_numbers(*(np.delete(a, g, axis=0) for a in every)) for g in range(G)]
  )
  deviation = left_out - left_out.mean(axis=0)
  errors = np.sqrt((G - 1) / G * (deviation**2).sum(axis=0))
  numbers = []
  for value, error in zip(values, errors, strict=True):
    is_defined = np.isfinite(value) and np.isfinite(error)
    numbers.append(Number(*map(float, (value, error))) if is_defined else _NONE)
  return Agreement(*numbers)


def _numbers(m_GxP, p_GxP, mm_GxP, pp_GxP, mp_GxP) -> np.ndarray:
  """The values of an Agreement; NaN if not defined."""
  m_P, p_P = m_GxP.mean(axis=0), p_GxP.mean(axis=0)
  seen = _covariances(m_P - m_P.mean(), p_P - p_P.mean())
  noise = _noise(m_GxP, p_GxP)
  left = [a - b for a, b in zip(seen, noise, strict=True)]
  left = [left[0], *(a if a > 0 else np.nan for a in left[1:])]
  m, p = m_P.mean(), p_P.mean()
  of_prompts = (
    mp_GxP.mean() - m * p,
    mm_GxP.mean() - m**2,
    pp_GxP.mean() - p**2,
  )
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.array(
      [
        *(m, p, (m_P * p_P).sum() / (p_P**2).sum()),
        *_fit(*seen),
        *_fit(*left),
        *(noise[1] / seen[1], noise[2] / seen[2]),
        *_fit(*of_prompts),
      ]
    )


def _covariances(m, p) -> tuple[float, float, float]:
  """Covariance and variances over all entries of centred arrays."""
  return (m * p).mean(), (m**2).mean(), (p**2).mean()


def _noise(m_GxP, p_GxP) -> list[float]:
  """What the noise of means over G groups adds to the covariances."""
  G = len(m_GxP)
  m, p = (a - a.mean(axis=0) for a in (m_GxP, p_GxP))
  m, p = (a - a.mean(axis=1, keepdims=True) for a in (m, p))
  return [a / (G - 1) for a in _covariances(m, p)]


def _fit(covariance, variance_m, variance_p) -> tuple[float, float]:
  """Slope and correlation."""
  return covariance / variance_p, covariance / np.sqrt(variance_m * variance_p)
