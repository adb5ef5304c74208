import jax
import numpy as np
import pytest
from scipy import special

from icl_causal import gammas
from tests.support import laws


def _log_gamma_cdf(x, alpha):
  """P(log G <= x), with the leading term where exp(x) underflows."""
  leading = np.exp(alpha * x - special.gammaln(alpha + 1))
  return np.where(x < -30, leading, special.gammainc(alpha, np.exp(x)))


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 10.0])
def test_log_gamma_law(alpha):
  draws = jax.jit(gammas.log_draws, static_argnums=2)(
    jax.random.key(1), alpha, 200_000
  )
  grid = np.quantile(draws, np.linspace(0.001, 0.999, 999))
  laws.assert_cdf(draws, lambda x: _log_gamma_cdf(x, alpha), grid)


def test_log_gamma_law_of_few_draws():
  keys = jax.random.split(jax.random.key(2), 100_000)
  draws_Nx1 = jax.jit(jax.vmap(lambda key: gammas.log_draws(key, 0.1, 1)))(keys)
  grid = np.quantile(draws_Nx1, np.linspace(0.001, 0.999, 999))
  laws.assert_cdf(draws_Nx1[:, 0], lambda x: _log_gamma_cdf(x, 0.1), grid)
