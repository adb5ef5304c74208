"""Weights of mixtures: true ones, other solvers, EM, and hard laws."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import mixtures
from icl_causal import priors
from icl_causal import sampling

N = 2048
_solved = jax.jit(mixtures.mixture_weights)


def solved(f_NxS, p_KxNxS) -> tuple[np.ndarray, float]:
  """The weights and the divergence that is left."""
  w_K, left = _solved(f_NxS, p_KxNxS)
  return np.asarray(w_K), float(left)


def _laws(rng, K, N, S, concentration=0.5):
  """Random laws, of which none is 0."""
  laws = rng.dirichlet(np.full(S, concentration), size=(K, N))
  laws = np.maximum(laws, 1e-12)
  return laws / laws.sum(-1, keepdims=True)


def _mixed(w_K, p_KxNxS):
  return np.einsum("k,kns->ns", w_K, p_KxNxS)


def _divergence(w_K, f_NxS, p_KxNxS):
  """mean_n KL(f_n || sum_k w_k p_kn), from the definition, in float64."""
  m_NxS = _mixed(w_K, np.asarray(p_KxNxS, np.float64))
  f_NxS = np.asarray(f_NxS, np.float64)
  terms = np.where(f_NxS > 0, f_NxS * np.log(np.maximum(f_NxS, 1e-300)), 0)
  return (terms - f_NxS * np.log(m_NxS)).sum(-1).mean()


def _em(w_K, f_NxS, p_KxNxS):
  ratio_NxS = f_NxS / _mixed(w_K, p_KxNxS)
  return w_K * np.einsum("ns,kns->k", ratio_NxS, p_KxNxS) / len(f_NxS)


@pytest.fixture(scope="module")
def predictors():
  """The laws of five predictors on a chain, of which two are similar."""
  graph, alpha, S = graphs.chain(12), 0.1, 3
  wrong = graphs.pairs(12)
  batch = sampling.sample_batch(
    jax.random.key(0), graph, priors.dirichlet(alpha), S, N
  )

  @jax.jit
  @jax.vmap
  def laws(key, x_T):
    return jnp.stack(
      [
        bayes.uniform(S),
        bayes.unigram(x_T, S),
        bayes.edge_posterior(x_T, wrong, alpha, S),
        bayes.edge_posterior(x_T, graph, alpha, S),
        bayes.dirichlet_posterior(key, x_T, graph, alpha, S, 32).f_S,
      ],
      axis=0,
    )

  keys = jax.random.split(jax.random.key(1), N)
  return np.moveaxis(np.asarray(laws(keys, batch.x_T)), 1, 0)


def test_weights_of_true_mixtures_are_recovered(predictors):
  """To 1e-3 from 2,048 prompts, and nothing is left."""
  rng = np.random.default_rng(0)
  for concentration in (0.3, 1.0, 1.0, 3.0):
    true_K = rng.dirichlet(np.full(5, concentration))
    w_K, left = solved(_mixed(true_K, predictors), predictors)
    np.testing.assert_allclose(w_K, true_K, rtol=0, atol=1e-3)
    assert 0 <= left < 1e-7
  for k in range(5):
    w_K, left = solved(predictors[k], predictors)
    np.testing.assert_allclose(w_K, np.eye(5)[k], rtol=0, atol=1e-3)
    assert 0 <= left < 1e-7


@pytest.mark.parametrize(("K", "S"), [(2, 2), (2, 5), (3, 3)])
def test_weights_are_those_of_a_fine_grid(K, S):
  rng = np.random.default_rng(1)
  p_KxNxS, f_NxS = _laws(rng, K, 50, S), _laws(rng, 1, 50, S, 2.0)[0]
  ticks = np.linspace(0, 1, 201)
  grid = np.stack(np.meshgrid(*[ticks] * (K - 1)), -1).reshape(-1, K - 1)
  grid = np.concatenate([grid, 1 - grid.sum(1, keepdims=True)], axis=1)
  grid = grid[(grid >= 0).all(1) & ((grid @ p_KxNxS[:, 0]) > 0).all(1)]
  values = [_divergence(w_K, f_NxS, p_KxNxS) for w_K in grid]
  w_K, left = solved(f_NxS, p_KxNxS)
  np.testing.assert_allclose(w_K, grid[np.argmin(values)], atol=1 / 200)
  assert 0 <= np.min(values) - left < 1e-3
  assert _divergence(w_K, f_NxS, p_KxNxS) == pytest.approx(left, abs=1e-6)


@pytest.mark.parametrize("concentration", [0.3, 1.0, 5.0])
def test_weights_are_those_of_a_general_solver(concentration):
  rng = np.random.default_rng(2)
  p_KxNxS = _laws(rng, 4, 200, 4)
  p_KxNxS[0] = 1 / 4
  f_NxS = rng.dirichlet(np.full(4, concentration), size=200)
  found = optimize.minimize(
    lambda w_K: _divergence(w_K, f_NxS, p_KxNxS),
    np.full(4, 1 / 4),
    bounds=[(1e-12, 1)] * 4,
    constraints={"type": "eq", "fun": lambda w_K: w_K.sum() - 1},
    method="SLSQP",
    options={"ftol": 1e-14, "maxiter": 500},
  )
  w_K, left = solved(f_NxS, p_KxNxS)
  np.testing.assert_allclose(w_K, found.x, atol=1e-3)
  assert left == pytest.approx(found.fun, abs=1e-6)


def test_em_descends_to_the_minimum_and_stays_there():
  rng = np.random.default_rng(3)
  p_KxNxS, f_NxS = _laws(rng, 3, 100, 4), rng.dirichlet(np.ones(4), size=100)
  w_K, left = solved(f_NxS, p_KxNxS)
  np.testing.assert_allclose(_em(w_K, f_NxS, p_KxNxS), w_K, atol=1e-5)
  values, w_of_em_K = [], np.array([0.98, 0.01, 0.01])
  for _ in range(300):
    values.append(_divergence(w_of_em_K, f_NxS, p_KxNxS))
    w_of_em_K = _em(w_of_em_K, f_NxS, p_KxNxS)
  assert (np.diff(values) < 1e-12).all()
  assert left - 1e-6 < values[-1] < left + 1e-4
  np.testing.assert_allclose(w_K.sum(), 1, atol=1e-6)


def test_a_predictor_that_is_twice_in_the_list_shares_its_weight():
  rng = np.random.default_rng(4)
  p_KxNxS, f_NxS = _laws(rng, 3, 100, 4), rng.dirichlet(np.ones(4), size=100)
  once_K, left = solved(f_NxS, p_KxNxS)
  twice_K, left_of_twice = solved(f_NxS, p_KxNxS[[0, 1, 1, 2, 1]])
  np.testing.assert_allclose(
    [twice_K[0], twice_K[1] + twice_K[2] + twice_K[4], twice_K[3]],
    once_K,
    atol=1e-4,
  )
  np.testing.assert_allclose(twice_K[1], twice_K[2], atol=1e-3)
  assert left_of_twice == pytest.approx(left, abs=1e-6)


def test_one_predictor_has_all_the_weight():
  rng = np.random.default_rng(5)
  p_KxNxS, f_NxS = _laws(rng, 1, 20, 3), rng.dirichlet(np.ones(3), size=20)
  w_K, left = solved(f_NxS, p_KxNxS)
  assert w_K == pytest.approx([1.0])
  assert left == pytest.approx(_divergence([1], f_NxS, p_KxNxS), rel=1e-5)


def test_a_predictor_of_zeros_is_left_out():
  rng = np.random.default_rng(6)
  p_KxNxS, f_NxS = _laws(rng, 3, 100, 4), rng.dirichlet(np.ones(4), size=100)
  alone_K, left = solved(f_NxS, p_KxNxS[[0, 2]])
  p_KxNxS[1] = 0
  w_K, left_of_three = solved(f_NxS, p_KxNxS)
  np.testing.assert_allclose(w_K, [alone_K[0], 0, alone_K[1]], atol=1e-5)
  assert left_of_three == pytest.approx(left, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_zeros_and_tiny_probabilities(seed):
  """No predictor gains by more weight: sum_s f p / m is at most 1 on average.

  That bounds the distance to the minimum.
  """
  rng = np.random.default_rng(seed)
  for K, num, S in ((2, 1, 2), (3, 40, 2), (4, 1, 3), (6, 500, 10)):
    f_NxS = rng.dirichlet(np.full(S, 0.05), size=num).astype(np.float32)
    f_NxS[f_NxS < 1e-4] = 0
    f_NxS /= f_NxS.sum(-1, keepdims=True)
    p_KxNxS = rng.dirichlet(np.full(S, 0.05), size=(K, num))
    p_KxNxS = np.maximum(p_KxNxS, 1e-30).astype(np.float32)
    p_KxNxS[0] = 1 / S
    p_KxNxS[-1] = p_KxNxS[-2]
    w_K, left = solved(f_NxS, p_KxNxS)
    assert (w_K >= 0).all()
    assert np.isfinite(left)
    gain_K = _em(np.asarray(w_K, np.float64), f_NxS, p_KxNxS) / w_K
    assert gain_K.max() < 1 + 1e-5


def test_a_state_that_no_predictor_allows_has_infinite_divergence():
  p_KxNxS = jnp.array([[[0.5, 0.5, 0.0]], [[0.1, 0.9, 0.0]]])
  w_K, left = solved(jnp.array([[0.2, 0.3, 0.5]]), p_KxNxS)
  assert left == np.inf
  assert np.isfinite(w_K).all()


def test_laws_that_are_not_finite_end_the_iteration(predictors):
  f_NxS = np.full(predictors.shape[1:], np.nan)
  assert np.isnan(solved(f_NxS, predictors)[1])


def test_many_runs_at_once(predictors):
  rng = np.random.default_rng(7)
  f_RxNxS = np.stack([_mixed(rng.dirichlet(np.ones(5)), predictors)] * 3)
  f_RxNxS[1] = predictors[1]
  w_RxK, left_R = jax.jit(jax.vmap(mixtures.mixture_weights, (0, None)))(
    f_RxNxS, predictors
  )
  for f_NxS, w_K, left in zip(f_RxNxS, w_RxK, left_R, strict=True):
    alone_K, left_alone = solved(f_NxS, predictors)
    np.testing.assert_allclose(w_K, alone_K, atol=1e-5)
    np.testing.assert_allclose(left, left_alone, atol=1e-7)


def test_it_is_a_metric():
  assert metrics.mixture_weights is mixtures.mixture_weights
  with pytest.raises(AssertionError):
    metrics.mixture_weights(np.ones((2, 3)), np.ones((2, 2, 2)))


def test_the_divergence_is_that_of_the_definition():
  p_KxNxS = jnp.array([[[0.5, 0.5]], [[0.25, 0.75]]])
  w_K, left = solved(jnp.array([[1.0, 0.0]]), p_KxNxS)
  np.testing.assert_allclose(w_K, [1, 0], atol=1e-4)
  np.testing.assert_allclose(left, np.log(2), rtol=1e-4)
