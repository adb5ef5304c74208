"""The check of the assumptions, against numpy's own kernels."""

import numpy as np
import pytest

from experiments.theory import assumptions
from tests.support import theory_checks

pytestmark = pytest.mark.slow


def _norms(S, alpha, gamma, num):
  """||pi - 1 mu^T|| of kernels drawn by numpy, mu from the eigenvector."""
  random = np.random.default_rng(0)
  pi_NxSxS = (1 - gamma) * random.dirichlet([alpha] * S, (num, S)) + gamma / S
  mu_NxS = np.linalg.matrix_power(pi_NxSxS, 200)[:, 0]
  return np.linalg.norm(pi_NxSxS - mu_NxS[:, None], axis=(1, 2))


@pytest.mark.parametrize(("alpha", "gamma"), [(1.0, 0.3), (10.0, 0.1)])
def test_assumptions_against_numpy(alpha, gamma):
  config = theory_checks.config(
    "assumptions", cases=((3, alpha, gamma),), num_kernels=4096
  )
  (row,) = theory_checks.table(assumptions.check(config))
  norms = _norms(3, alpha, gamma, 4096)
  error = norms.std() / 64
  assert abs(row["mean norm"] - norms.mean()) < 5 * np.sqrt(2) * error
  assert 0.01 < row["share below gamma"] < 0.9
  gap = row["share below gamma"] - (norms < gamma).mean()
  assert abs(gap) < 5 * np.sqrt(2) * row["std. error"]
  assert row["least entry times S"] > gamma - 1e-6
  assert row["mean entry, largest |z|"] < 5
