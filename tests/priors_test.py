import fractions
import functools

import jax
from jax import numpy as jnp
import numpy as np
import pytest
from scipy import stats

from icl_causal import graphs
from icl_causal import priors
from icl_causal.analysis import information
from tests.support import laws


def _draw(prior, key, S, K):
  return jax.jit(lambda key: prior(key, S, K))(key)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 10.0])
def test_dirichlet_marginal_and_moments(alpha):
  S, num = 3, 200_000
  p_NxS = np.asarray(
    priors.dirichlet_rows(jax.random.key(3), alpha, num, S), np.float64
  )
  assert np.isfinite(p_NxS).all()
  np.testing.assert_allclose(p_NxS.sum(1), 1, atol=1e-6)
  for s in range(S):
    cdf = stats.beta(alpha, (S - 1) * alpha).cdf
    laws.assert_cdf(p_NxS[:, s], cdf, np.linspace(0.001, 0.999, 999))
  for i in range(S):
    for j in range(S):
      product = p_NxS[:, i] * p_NxS[:, j]
      exact = alpha * (alpha + (i == j)) / (S * alpha * (S * alpha + 1))
      error = product.std() / np.sqrt(num)
      assert abs(product.mean() - exact) < 4 * error


def test_dirichlet_rows_are_independent():
  keys = jax.random.split(jax.random.key(4), 50_000)
  kernel = jax.jit(jax.vmap(lambda key: priors.dirichlet(0.5)(key, 2, 2)))(keys)
  rows_NxM = np.asarray(kernel[..., 0]).reshape(len(keys), 9)[:, :8]
  correlation = np.corrcoef(rows_NxM.T) - np.eye(8)
  assert np.abs(correlation).max() < 5 / np.sqrt(len(keys))


def _exact_stationary(pi):
  """mu pi = mu by Gaussian elimination on fractions."""
  S = len(pi)
  pi = [[fractions.Fraction(float(p)) for p in row] for row in pi]
  for i, row in enumerate(pi):  # the diagonal absorbs the rounding
    row[i] += 1 - sum(row)
  system = [[pi[j][i] - (i == j) for j in range(S)] for i in range(S - 1)]
  system = [[*row, fractions.Fraction(0)] for row in system]
  system.append([fractions.Fraction(1)] * (S + 1))
  for i in range(S):
    pivot = next(r for r in range(i, S) if system[r][i] != 0)
    system[i], system[pivot] = system[pivot], system[i]
    system[i] = [x / system[i][i] for x in system[i]]
    for r in range(S):
      if r != i:
        factor = system[r][i]
        system[r] = [
          x - factor * y for x, y in zip(system[r], system[i], strict=True)
        ]
  return np.array([float(row[-1]) for row in system])


# For few states and for many.
LAWS = (priors.stationary, jax.jit(priors._stationary_in_loops))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("coupling", [1.0, 1e-3, 1e-9, 1e-18, 1e-30])
@pytest.mark.parametrize("S", [2, 3, 5])
def test_stationary_of_nearly_reducible_kernels(S, coupling, law):
  """Every entry is accurate to rounding, for any coupling between states."""
  random = np.random.default_rng(S)
  weights = random.gamma(1.0, size=(S, S)) * coupling
  weights[np.diag_indices(S)] = random.gamma(1.0, size=S)
  pi = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
  mu = law(jnp.asarray(pi))
  np.testing.assert_allclose(mu, _exact_stationary(pi), rtol=1e-5)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
  ("pi", "mu"),
  [
    ([[1, 0], [0.5, 0.5]], [1, 0]),
    ([[0.5, 0.5], [0, 1]], [0, 1]),
    ([[0, 1], [1, 0]], [0.5, 0.5]),
    ([[0.5, 0.25, 0.25], [0, 0.5, 0.5], [0, 1, 0]], [0, 2 / 3, 1 / 3]),
    ([[0.5, 0.5, 0], [0.5, 0.5, 0], [0.2, 0.2, 0.6]], [0.5, 0.5, 0]),
    ([[0.5, 0.4, 0.1], [0, 1, 0], [0, 0.3, 0.7]], [0, 1, 0]),
  ],
)
def test_stationary_of_reducible_kernels(pi, mu, law):
  for order in (np.arange(len(pi)), np.arange(len(pi))[::-1]):
    permuted = jnp.asarray(np.array(pi, np.float32)[np.ix_(order, order)])
    np.testing.assert_allclose(law(permuted), np.array(mu)[order], atol=1e-6)


@pytest.mark.parametrize("S", [10, 16, 17, 50])
def test_stationary_of_dirichlet_kernels(S):
  """mu pi = mu for any alpha, also for kernels with zeros."""
  for alpha in (0.01, 0.1, 1.0):
    keys = jax.random.split(jax.random.key(5), 10_000 // S)
    rows = functools.partial(priors.dirichlet_rows, num_rows=S, S=S)
    pi = jax.jit(jax.vmap(rows, (0, None)))(keys, alpha)
    mu = jax.jit(jax.vmap(priors.stationary))(pi)
    assert (mu >= 0).all()
    np.testing.assert_allclose(mu.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(jnp.einsum("ns,nst->nt", mu, pi), mu, atol=1e-6)


def test_root_laws():
  key = jax.random.key(6)
  stationary = _draw(priors.dirichlet(0.5), key, 4, 1)
  assert stationary.shape == (5, 4)
  np.testing.assert_allclose(
    stationary[4], priors.stationary(stationary[:4]), atol=1e-6
  )
  for K in (1, 2, 3):
    uniform = _draw(priors.dirichlet(0.5, "uniform"), key, 4, K)
    assert uniform.shape == (5,) * K + (4,)
    np.testing.assert_allclose(uniform[(4,) * K], 0.25)
  np.testing.assert_array_equal(
    priors.dirichlet(0.5)(key, 4, 2),
    priors.dirichlet(0.5, "uniform")(key, 4, 2),
  )
  keys = jax.random.split(key, 100_000)
  drawn = priors.dirichlet(0.5, "dirichlet")
  roots = jax.jit(jax.vmap(lambda key: drawn(key, 2, 2)))(keys)
  cdf = stats.beta(0.5, 0.5).cdf
  laws.assert_cdf(roots[:, 2, 2, 0], cdf, np.linspace(0.001, 0.999, 999))


def test_floored_dirichlet():
  key = jax.random.key(7)
  kernel = _draw(priors.floored_dirichlet(0.1, 0.2), key, 5, 1)
  assert kernel.min() >= 0.2 / 5 - 1e-7
  np.testing.assert_allclose(kernel.sum(-1), 1, atol=1e-6)
  np.testing.assert_allclose(
    kernel[:5],
    0.8 * _draw(priors.dirichlet(0.1), key, 5, 1)[:5] + 0.04,
    atol=1e-6,
  )
  np.testing.assert_allclose(
    kernel[5], priors.stationary(kernel[:5]), atol=1e-6
  )


def test_assumptions_of_floored_dirichlet():
  """Bound, constant mean, symmetry; degenerate only at gamma = 1."""
  S, alpha, gamma, num = 3, 0.5, 0.3, 50_000
  keys = jax.random.split(jax.random.key(8), num)

  def draw(gamma):
    prior = priors.floored_dirichlet(alpha, gamma)
    kernels = jax.jit(jax.vmap(lambda key: prior(key, S, 1)))(keys)
    return np.asarray(kernels, np.float64)[:, :S]

  def largest_z(values):
    error = values.std(axis=0) / np.sqrt(num)
    return np.abs(values.mean(axis=0) / error).max()

  pi = draw(gamma)
  assert pi.min() >= gamma / S - 1e-6
  assert largest_z(pi - 1 / S) < 5
  relabelled = pi[:, [1, 2, 0]][:, :, [1, 2, 0]]
  for power in (2, 3):
    assert largest_z(pi**power - relabelled**power) < 5
  mixed, of_relabelled = (
    np.einsum("nst,ns->n", a, a[:, 0]) for a in (pi, relabelled)
  )
  assert largest_z(mixed - of_relabelled) < 5
  distance = np.linalg.norm(pi - pi.mean(axis=1, keepdims=True), axis=(1, 2))
  assert 0 < distance.min() < 0.05 < distance.mean()
  assert np.abs(draw(1.0) - 1 / S).max() < 1e-6


def test_fixed():
  pi = jnp.array([[0.9, 0.1], [0.3, 0.7]])
  kernel = priors.fixed(pi)(jax.random.key(0), 2, 1)
  np.testing.assert_allclose(kernel, [[0.9, 0.1], [0.3, 0.7], [0.75, 0.25]])
  np.testing.assert_allclose(
    priors.fixed(pi, "uniform")(jax.random.key(0), 2, 1)[2], [0.5, 0.5]
  )
  table = jnp.full((3, 3, 2), 0.5)
  assert (priors.fixed(table)(jax.random.key(0), 2, 2) == table).all()
  with pytest.raises(AssertionError):
    priors.fixed(table)(jax.random.key(0), 2, 1)


def test_a_pool_draws_its_kernels_equally_often():
  S, K, M, N = 2, 2, 3, 3000
  prior = priors.dirichlet(1.0)
  kernels = priors.draws(jax.random.key(0), prior, S, K, M)
  assert kernels.shape == (M, S + 1, S + 1, S)
  pool = priors.pool(kernels)
  keys = jax.random.split(jax.random.key(1), N)
  drawn = jax.vmap(lambda key: pool(key, S, K))(keys)
  is_m = (drawn[:, None] == kernels[None]).all(axis=(2, 3, 4))
  counts_M = np.asarray(is_m.sum(axis=0))
  assert counts_M.sum() == N
  assert (np.abs(counts_M - N / M) < 5 * (N / M * (1 - 1 / M)) ** 0.5).all()
  with pytest.raises(AssertionError):
    pool(keys[0], S, 1)


def test_a_smaller_list_of_draws_is_the_start_of_a_larger_one():
  prior, key = priors.dirichlet(0.3), jax.random.key(0)
  few, many = (priors.draws(key, prior, 3, 1, num) for num in (3, 7))
  np.testing.assert_array_equal(few, many[:3])
  assert (many[:, None] == many[None]).all(axis=(2, 3)).sum() == 7


def test_alpha_may_be_traced():
  draw = jax.jit(lambda alpha: priors.dirichlet(alpha)(jax.random.key(0), 3, 1))
  np.testing.assert_allclose(
    draw(0.3), _draw(priors.dirichlet(0.3), jax.random.key(0), 3, 1), atol=1e-6
  )


@pytest.mark.parametrize(
  ("construct", "message"),
  [
    (
      lambda: priors.dirichlet(0.0),
      "alpha must be positive and finite, got 0.0",
    ),
    (
      lambda: priors.dirichlet(float("inf")),
      "alpha must be positive and finite, got inf",
    ),
    (lambda: priors.dirichlet(-1), "alpha must be positive and finite, got -1"),
    (
      lambda: priors.dirichlet(float("nan")),
      "alpha must be positive and finite, got nan",
    ),
    (lambda: priors.floored_dirichlet(1.0, 1.5), "gamma must be from 0 to 1"),
    (
      lambda: priors.dirichlet(1.0, "zipf")(jax.random.key(0), 3, 1),
      "root_law must be",
    ),
    (
      lambda: priors.dirichlet(1.0, "stationary")(jax.random.key(0), 3, 2),
      "for single parents, got K = 2",
    ),
    (lambda: priors.fixed([[0.5, 0.4], [0.5, 0.5]]), "that sum to 1"),
    (lambda: priors.pool(jnp.full((2, 4, 3), 0.5)), "of a pool must have"),
    (
      lambda: priors.mixture_transition(priors.dirichlet(1.0), (0.5, 1.5)),
      "weights must be from 0 to 1",
    ),
  ],
)
def test_refuses(construct, message):
  with pytest.raises(ValueError, match=message):
    construct()


@pytest.mark.parametrize(
  ("kernel", "message"),
  [
    (np.full((4, 3), 1 / 3), None),
    (np.full((4, 3), np.nan), "in row 0 of 4 .* the least entry is nan"),
    (np.full((4, 3), 0.5), "in row 0 of 4 .* and the sum is 1.5"),
    (
      np.array([[1, 0, 0], [0, 1, 0], [-0.5, 1, 0.5], [0, 0, 1]]),
      "in row 2 of 4 .* the least entry is -0.5 and the sum is 1",
    ),
    (np.eye(3), r"kernels of shape \(4, 3\), got \(3, 3\)"),
  ],
)
def test_check_refuses_a_prior_that_draws_no_laws(kernel, message):
  def prior(key, S, K):
    return jnp.asarray(kernel)

  if message is None:
    priors.check(prior, 3, 1)
  else:
    with pytest.raises(ValueError, match=message):
      priors.check(prior, 3, 1)


def test_check_accepts_the_priors_of_the_library():
  for prior in (
    priors.dirichlet(0.05),
    priors.floored_dirichlet(1.0, 0.3),
    priors.fixed(jnp.full((3, 3), 1 / 3)),
  ):
    priors.check(prior, 3, 1)
  priors.check(priors.dirichlet(0.5, "uniform"), 3, 2)


def test_mixture_transition_by_hand():
  pi = np.array([[0.9, 0.1], [0.4, 0.6]])
  mu = np.array([0.8, 0.2])
  prior = priors.mixture_transition(priors.fixed(pi), (0.5, 0.75))
  kernel = np.asarray(prior(None, 2, 2))
  np.testing.assert_allclose(kernel[2, 2], mu, atol=1e-6)
  np.testing.assert_allclose(kernel[0, 2], 0.5 * pi[0] + 0.5 * mu, atol=1e-6)
  np.testing.assert_allclose(kernel[2, 1], 0.75 * pi[1] + 0.25 * mu, atol=1e-6)
  both = 0.4 * pi[0] + 0.6 * pi[1]
  np.testing.assert_allclose(kernel[0, 1], both, atol=1e-6)


def test_mixture_transition_of_one_full_slot_is_the_prior():
  base, key = priors.floored_dirichlet(0.5, 0.2), jax.random.key(4)
  mixed = priors.mixture_transition(base, (1.0,))
  np.testing.assert_allclose(mixed(key, 3, 1), base(key, 3, 1), atol=1e-6)


def test_an_edge_of_a_weaker_slot_has_its_weight_squared_of_the_information():
  """By enumeration: all tokens keep the stationary law."""
  base, key, S = priors.dirichlet(1.0), jax.random.key(5), 3
  weights = (1.0, 0.6, 0.3)
  kernel = priors.mixture_transition(base, weights)(key, S, 3)
  graph = graphs.in_slots(graphs.chain(4), [0, 1, 2, 0], 3)
  laws = information.pair_laws(graph, kernel)
  mu_S = base(key, S, 1)[S]
  for i in range(3):
    np.testing.assert_allclose(np.diag(laws[i, i]), mu_S, atol=1e-6)
  chi2_TxT = np.asarray(information.chi2(laws))
  full = information.chi2_of(graphs.chain(4), base(key, S, 1))[1, 0]
  np.testing.assert_allclose(
    [chi2_TxT[1, 0], chi2_TxT[2, 1]], [0.36 * full, 0.09 * full], rtol=1e-4
  )
