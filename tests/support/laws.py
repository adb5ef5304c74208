"""Tests of samples against their law."""

import numpy as np


def assert_cdf(samples, cdf, grid):
  """A Kolmogorov-Smirnov test; fails by chance once in 10^6 times.

  By the Dvoretzky-Kiefer-Wolfowitz inequality. The grid must avoid points where
  single precision accumulates mass, such as 1 - 10^-9.
  """
  empirical = np.searchsorted(np.sort(samples), grid, side="right")
  gap = np.abs(empirical / len(samples) - cdf(grid)).max()
  assert gap < np.sqrt(np.log(2e6) / (2 * len(samples)))
