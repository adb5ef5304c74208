"""The check of the exact posterior, and its references."""

import jax
import numpy as np
import pytest

from experiments.theory import posterior
from icl_causal import graphs
from tests.support import theory_checks

pytestmark = pytest.mark.slow


def test_the_exact_posterior_against_both_references():
  cases = ((2, 4, 2, 32), (3, 2, 2, 32))
  config = theory_checks.config(
    "posterior", T=5, cases=cases, reference_samples=2**13
  )
  rows = theory_checks.table(posterior.check(config))
  for row, (S, num_keys, num_prompts, _) in zip(rows, cases, strict=True):
    assert row["keys"] == num_keys
    assert row["of"] == num_keys * num_prompts * (S - 1)
    assert row["largest z"] < 5
    assert 0.2 < row["mean z^2"] < 4
    assert row["largest z"] ** 2 >= row["mean z^2"]
    assert abs(row["loss - reference"]) < 0.05
    assert abs(row["estimated bias"]) < 0.02


def test_the_references_agree():
  """Compares integration over two rows with sampling of them."""
  graph = graphs.from_parents([-1, 0, -1, 1, -1])
  # The roots of a prompt, positions 0 and 2, have the same token.
  x_NxT = np.array([[0, 1, 0, 1, 0], [1, 1, 1, 0, 1]])
  integrated = posterior._integrated(x_NxT, graph, 0.3, size=500)
  sampled = posterior._sampled(
    jax.random.key(0), x_NxT, graph, 0.3, 2, num_samples=2**15
  )
  for one, other in zip(integrated, sampled, strict=True):
    assert (other.error_S < 0.01).all()
    assert (np.abs(one.f_S - other.f_S) < 4 * other.error_S + 1e-3).all()
