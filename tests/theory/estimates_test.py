"""The check of estimated information."""

import pytest

from experiments.theory import estimates
from tests.support import theory_checks

pytestmark = pytest.mark.slow


def test_correction_leaves_no_bias():
  config = theory_checks.config(
    "estimates",
    T=6,
    priors=((1.0, 0.1),),
    num_kernels=64,
    num_sequences=512,
  )
  rows = theory_checks.table(estimates.check(config))
  assert [(row["kind"], row["estimate"]) for row in rows] == [
    (kind, estimate)
    for kind in ("shannon", "chi2")
    for estimate in ("plug-in", "corrected")
  ]
  for plain, corrected in (rows[:2], rows[2:]):
    assert plain["of pairs"] == 10
    assert plain["beyond 3"] > 5 > corrected["beyond 3"]
    assert abs(corrected["mean error"]) < 0.2 * plain["mean error"]
