"""The information check, also on a matrix that breaks the inequality."""

import jax
import numpy as np
import pytest

from experiments.theory import information
from icl_causal import graphs
from tests.support import theory_checks

pytestmark = pytest.mark.slow


def test_information_of_a_few_forests():
  config = theory_checks.config("information", num_forests=12, T=10, S=(3,))
  rows = theory_checks.table(information.check(config))
  assert [(row["S"], row["kind"]) for row in rows[:-1]] == [
    (3, "shannon"),
    (3, "chi2"),
  ]
  total = rows[-1]
  assert total["forests"] == 24
  assert total["argmax"] == total["edges"] > 24
  assert total["violations"] == 0


def test_a_wrong_matrix_is_counted():
  graph = graphs.from_parents([-1, 0, 1, -1])
  batch = jax.tree.map(lambda a: np.asarray(a)[None], graph)
  I_TxT = np.zeros((4, 4))
  I_TxT[1, 0], I_TxT[2, 1], I_TxT[2, 0] = 0.5, 0.4, 0.45
  assert information.count_argmax(batch, I_TxT[None], 1e-9) == [1, 2, 1, 1]
