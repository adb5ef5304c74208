"""The priors of the check of the theorems, and its slopes."""

import jax
import numpy as np

from experiments.theory import theorems
from tests.support import theory_checks


def test_kernel_families_are_what_their_names_say():
  S, gamma = 4, 0.2
  families = theorems.kernel_families(1.0, gamma)
  draws = {
    name: np.asarray(
      jax.jit(jax.vmap(lambda key, prior=prior: prior(key, S, 1)))(
        jax.random.split(jax.random.key(0), 200)
      )
    )
    for name, prior in families.items()
  }
  for name, kernel in draws.items():
    assert kernel.shape == (200, S + 1, S)
    np.testing.assert_allclose(kernel.sum(-1), 1, atol=1e-5, err_msg=name)
    pi, mu = kernel[:, :S], kernel[:, S]
    np.testing.assert_allclose(
      np.einsum("ns,nst->nt", mu, pi), mu, atol=1e-5, err_msg=name
    )
    if name != "deterministic, no floor":
      assert pi.min() >= gamma / S - 1e-6
    assert len(np.unique(pi.round(4), axis=0)) > 10
  for name in ("permutations", "doubly stochastic"):
    np.testing.assert_allclose(draws[name][:, :S].sum(1), 1, atol=1e-5)
  assert set(np.unique(draws["deterministic, no floor"][:, :S])) == {0, 1}
  high = 1 - gamma + gamma / S
  assert set(np.unique(draws["permutations"][:, :S].round(4))) == {
    np.float32(gamma / S).round(4),
    np.float32(high).round(4),
  }


def test_slopes_of_theorems(monkeypatch):
  """Errors of 3/T and 2/sqrt(T) have slopes of -1 and -1/2."""

  def measure(config, make, T, families):
    graph = make(jax.random.key(0), T)
    assert len(graph.parents_TxK) == T
    return {"edges missed": [0, 0], "L - L*": [2 / T, 4 / T], "sup": [T**-0.5]}

  monkeypatch.setattr(theorems, "_measure", measure)
  rows = theory_checks.table(
    theorems.check(theory_checks.config("theorems", T=(8, 16, 32)))
  )
  assert [row["graph"] for row in rows[::3]] == ["chain", "pairs", "forest"]
  assert rows[0]["slope"] == "-"
  assert rows[1]["T = 16"] == 3 / 16
  for row, slope in ((rows[1], -1), (rows[2], -0.5)):
    np.testing.assert_allclose(row["slope"], slope)
    np.testing.assert_allclose(row["std. error"], 0, atol=1e-9)
