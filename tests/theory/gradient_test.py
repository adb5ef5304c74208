"""The check of the gradient at the start."""

import pytest

from experiments.theory import gradient
from tests.support import theory_checks

pytestmark = pytest.mark.slow


def test_gradient_gap_falls_with_T():
  config = theory_checks.config(
    "gradient",
    T=(8, 24),
    cases=((3, 1.0, 0.1),),
    num_prompts=2**13,
    num_kernels=64,
  )
  check = gradient.check(config)
  rows = theory_checks.table(check)
  assert [(row["graph"], row["T"]) for row in rows] == [
    (graph, T) for graph in ("chain", "forest") for T in (8, 24)
  ]
  for short, long in (rows[:2], rows[2:]):
    assert short["correlation"] < long["correlation"] < 1
    recovered, edges = long["argmax"].split(" of ")
    assert int(recovered) == int(edges) > 5
  assert check.figure is not None
