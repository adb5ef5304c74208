"""The check of pooled sequences."""

import pytest

from experiments.theory import pooled
from tests.support import theory_checks

pytestmark = pytest.mark.slow


def test_pooling_fails_where_conditioning_does_not():
  config = theory_checks.config(
    "pooled",
    T=12,
    root_probability=0.4,
    num_graphs=2,
    num_sequences=(1024,),
    num_permutations=10,
  )
  rows = theory_checks.table(pooled.check(config))
  edges = {
    (row["sequences of"], row["method"]): [
      int(number) for number in row["edges"].split(" of ")
    ]
    for row in rows
    if row["N"] == 1024
  }
  false = {
    (row["sequences of"], row["method"]): row["false edges"] for row in rows
  }
  recovered, total = edges["one kernel", "Chow-Liu"]
  assert recovered == total > 4
  assert false["one kernel", "Chow-Liu"] == 0
  assert edges["a kernel each", "given the kernels"] == [total, total]
  assert edges["a kernel each", "Chow-Liu"][0] < total / 2
  limit = {
    row["method"]: float(row["edges"].split()[0])
    for row in rows
    if row["sequences of"] == "pooled in the limit"
  }
  assert limit["two roots"] > limit["child and parent"]
