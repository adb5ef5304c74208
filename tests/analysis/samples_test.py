"""Curves of the share of edges, and what is predicted from moments."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest
from scipy import stats

from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import likelihood
from icl_causal.analysis import samples

GRAPH = graphs.from_parents([-1, 0, 1, -1, 0, -1])


def test_hits_by_hand():
  """A tie of m entries counts 1 / m; later entries are no candidates."""
  score_TxT = np.full((6, 6), 9.0)
  score_TxT[1, 0] = -5.0  # the only candidate
  score_TxT[2, :2] = [1.0, 1.0]
  score_TxT[4, :4] = [0.0, 2.0, 0.0, 0.0]
  hits_T = samples.hits(jnp.asarray(score_TxT), GRAPH)
  np.testing.assert_array_equal(hits_T, [0, 1, 0.5, 0, 0, 0])
  score_TxT[4, :4] = [2.0, 2.0, 2.0, 1.0]
  np.testing.assert_allclose(
    samples.hits(jnp.asarray(score_TxT), GRAPH)[4], 1 / 3, rtol=1e-6
  )


def test_without_information_the_share_is_that_of_a_guess():
  """Large alpha: kernels are uniform, and all candidates are tied."""
  kernel = jnp.ones((4, 3)) / 3
  score_TxT = likelihood.likelihood_score(jnp.array([0, 2, 1, 1, 0, 2]), kernel)
  np.testing.assert_allclose(
    samples.hits(score_TxT, GRAPH), [0, 1, 1 / 2, 0, 1 / 4, 0], rtol=1e-6
  )


def test_crossing_is_linear_in_log_N_and_for_good():
  N = [1, 2, 4, 8]
  assert samples.crossing([0.2, 0.4, 0.8, 1.0], N, 0.6) == pytest.approx(8**0.5)
  assert samples.crossing([0.2, 0.7, 0.4, 1.0], N, 0.7) == pytest.approx(
    4 * 2**0.5
  )
  assert samples.crossing([0.8, 0.9, 0.9, 1.0], N, 0.6) == 1
  assert np.isnan(samples.crossing([0.2, 0.4, 0.5, 0.6], N, 0.9))


def _saturating(seed, num_graphs, scale):
  """Hits with error exp(-N / scale) on graphs of 5 to 15 edges."""
  rng = np.random.default_rng(seed)
  N = 2 ** np.arange(12)
  edges_G = rng.integers(5, 16, num_graphs)
  found_at = [rng.exponential(scale, num) for num in edges_G]
  hits_GxN = np.array([(a[:, None] < N).sum(axis=0) for a in found_at])
  return hits_GxN, edges_G, N


def test_needed_has_the_spread_of_repetitions_as_its_error():
  values, errors = [], []
  for seed in range(40):
    of = samples.needed(*_saturating(seed, 60, 50), 0.9, num_resamples=50)
    values.append(of.prompts)
    errors.append(of.error)
  spread = np.std(values)
  # A spread of 40 values is right to 1 / sqrt(80) = 11 %; 3 errors.
  assert np.mean(errors) == pytest.approx(spread, rel=0.34)
  # Linear in log N between powers of two, so not exactly 50 log(10).
  assert np.mean(values) == pytest.approx(50 * np.log(10), rel=0.1)


def test_needed_without_a_crossing():
  assert all(np.isnan(samples.needed(np.ones((3, 2)), [2, 2, 2], [1, 2], 0.9)))
  assert samples.needed(np.ones((3, 2)), [1, 1, 1], [1, 2], 0.9) == (1, 0)


def test_factor_is_paired():
  """A method that needs twice as many prompts on the same draws."""
  hits_GxN, edges_G, N = _saturating(0, 60, 50)
  other_GxN = np.concatenate([np.zeros((60, 1)), hits_GxN[:, :-1]], axis=1)
  value, error = samples.factor(other_GxN, hits_GxN, edges_G, N, 0.9)
  assert value == pytest.approx(2)
  assert error < 1e-9
  assert samples.needed(hits_GxN, edges_G, N, 0.9).error > 1
  assert all(np.isnan(samples.factor(0 * hits_GxN, hits_GxN, edges_G, N, 0.9)))
  at_once = np.tile(edges_G[:, None], len(N))
  assert all(np.isnan(samples.factor(hits_GxN, at_once, edges_G, N, 0.9)))


def test_share_and_its_error_over_graphs():
  """By the jackknife, which a ratio of sums approaches."""
  hits_GxN, edges_G, _ = _saturating(1, 50, 50)
  mean_N, error_N = samples.share(hits_GxN, edges_G)
  np.testing.assert_allclose(mean_N, hits_GxN.sum(axis=0) / edges_G.sum())
  without = [
    np.delete(hits_GxN, g, 0).sum(axis=0) / np.delete(edges_G, g).sum()
    for g in range(50)
  ]
  np.testing.assert_allclose(
    error_N, (49 * np.var(without, axis=0)) ** 0.5, rtol=0.05, atol=1e-9
  )


def test_largest_z_by_hand():
  best_GxN = np.array([[1, 2], [2, 2], [1, 2], [2, 2]])
  above_GxN = best_GxN + np.array([[1, 0], [0, 0], [1, 0], [0, 0]])
  z, n = samples.largest_z(above_GxN, best_GxN, [4, 4, 4, 4])
  assert n == 0
  assert z == pytest.approx(0.5 / stats.sem([1, 0, 1, 0]))
  assert samples.largest_z(best_GxN, best_GxN, [4] * 4)[0] == 0
  assert samples.largest_z(best_GxN + 1, best_GxN, [4] * 4)[0] == np.inf
  assert samples.largest_z(best_GxN - 1, best_GxN, [4] * 4)[0] == -np.inf


def test_the_saddlepoint_of_a_normal_variable_is_exact():
  """Quantiles of a normal law of mean m: w = u = -m, and z = -sqrt(N) m."""
  quantiles_N = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
  means = np.array([0.3, 0.1, -0.2])
  saddle = samples.saddlepoint(jnp.asarray(quantiles_N[:, None] + means))
  np.testing.assert_allclose(saddle.w, -means, rtol=2e-3)
  np.testing.assert_allclose(saddle.u, -means, rtol=2e-3)
  z = samples.saddlepoint_level(saddle, 10.0)
  np.testing.assert_allclose(z, -10 * means, rtol=1e-2)


@pytest.mark.parametrize("mean", [0.15, 0.4])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_saddlepoint_of_a_gamma_sum(mean, sign):
  """Sums of N exponential variables, skewed to either side; exact to 2 %."""
  quantiles_N = -np.log1p(-(np.arange(100_000) + 0.5) / 100_000)
  d_N = sign * (quantiles_N - 1) + mean
  saddle = samples.saddlepoint(jnp.asarray(d_N)[:, None])
  for N in (4, 16, 64):
    z = float(samples.saddlepoint_level(saddle, N**0.5)[0])
    below = N * (1 - sign * mean)
    law = stats.gamma(N)
    exact = law.cdf(below) if sign == 1 else law.sf(below)
    assert stats.norm.cdf(z) == pytest.approx(exact, rel=0.03)
  if mean == 0.4:  # the normal law is far off in the tail
    assert abs(stats.norm.cdf(-8 * mean) / exact - 1) > 0.3


def test_the_rate_of_a_coin_is_that_of_chernoff():
  """d = 1 or -1 with P(d = 1) = q: min_t E exp(t d) = 2 sqrt(q (1 - q))."""
  q = 0.7
  d_N = np.repeat([1.0, -1.0], [700, 300]) / np.sqrt(1 - (2 * q - 1) ** 2)
  saddle = samples.saddlepoint(jnp.asarray(d_N)[:, None])
  rate = np.exp(-(np.asarray(saddle.w) ** 2) / 2)
  np.testing.assert_allclose(rate, 2 * np.sqrt(q * (1 - q)), rtol=1e-4)


def test_the_saddlepoint_without_a_negative_sample():
  d_N = np.repeat([0.0, 1.0], [30, 70]) / 0.7**0.5 / 0.3**0.5
  saddle = samples.saddlepoint(jnp.asarray(d_N)[:, None])
  rate = float(np.exp(-(saddle.w[0] ** 2) / 2))
  assert rate == pytest.approx(0.3, rel=1e-3)  # all samples are 0
  zero = samples.saddlepoint(jnp.zeros((10, 1)))
  assert np.isfinite(samples.saddlepoint_level(zero, 2.0)).all()


def _skewed_scores(key, N):
  """Scores of T = 5, whose margins in row 2 and row 3 are skewed."""
  e_Nx4 = jax.random.exponential(key, (N, 4)) - 0.7
  score_NxTxT = jnp.zeros((N, 5, 5))
  score_NxTxT = score_NxTxT.at[:, 2, 0].set(e_Nx4[:, 0])
  score_NxTxT = score_NxTxT.at[:, 3, 1].set(e_Nx4[:, 1])
  return score_NxTxT.at[:, 3, 2].set(0.6 * e_Nx4[:, 2] + 0.2 * e_Nx4[:, 1])


def test_predicted_shares_against_sums_of_scores():
  """Gamma sums: the saddlepoint is right, the normal law is not."""
  graph = graphs.from_parents([-1, 0, 0, 1, -1])
  sizes, repetitions = (4, 12, 30), 10_000
  predicted = jax.jit(
    lambda key, a: samples.predicted_shares(key, a, graph, sizes, 4096)
  )(jax.random.key(0), _skewed_scores(jax.random.key(1), 2**15))
  for m, N in enumerate(sizes):
    sums = _skewed_scores(jax.random.key(2 + m), repetitions * N)
    sums = sums.reshape(repetitions, N, 5, 5).sum(axis=1)
    measured_T = jax.vmap(samples.hits, (0, None))(sums, graph).mean(axis=0)
    saddlepoint_T = np.asarray(predicted.saddlepoint_TxM[:, m])
    # 4096 draws and 10000 repetitions: 4 errors of a share are .037.
    np.testing.assert_allclose(saddlepoint_T, measured_T, atol=0.037)
    union_T = np.asarray(predicted.union_TxM[:, m])
    assert (union_T <= predicted.normal_TxM[:, m] + 0.03).all()
  assert (
    abs(predicted.normal_TxM[2, 0] - predicted.saddlepoint_TxM[2, 0]) > 0.02
  )
  np.testing.assert_array_equal(
    predicted.saddlepoint_TxM[1], 1
  )  # one candidate
  np.testing.assert_array_equal(predicted.saddlepoint_TxM[::4], 0)


def test_predicted_shares_of_a_negative_margin_fall_with_N():
  """A rival with a higher mean: the share goes from a guess to 0."""
  graph = graphs.from_parents([-1, 0, 0, -1])
  noise_N = jax.random.normal(jax.random.key(0), (4096,))
  score_NxTxT = jnp.zeros((4096, 4, 4)).at[:, 2, 1].set(0.2 + noise_N)
  shares = samples.predicted_shares(
    jax.random.key(1), score_NxTxT, graph, (1, 16, 256), 4096
  )
  expected = stats.norm.cdf(-0.2 * np.sqrt([1, 16, 256]))
  np.testing.assert_allclose(shares.normal_TxM[2], expected, atol=0.04)
  np.testing.assert_allclose(shares.saddlepoint_TxM[2], expected, atol=0.04)
  np.testing.assert_allclose(shares.union_TxM[2], expected, atol=0.04)


@pytest.mark.parametrize(("T", "S", "alpha"), [(6, 3, 0.5), (9, 4, 0.2)])
def test_no_score_is_above_the_best_possible(T, S, alpha):
  """On average over parents uniform on j < i, at every N, within 4 errors."""
  prior = priors.dirichlet(alpha)

  @jax.jit
  @jax.vmap
  def measure(key):
    graph_key, prompt_key = jax.random.split(key)
    graph = graphs.random_forest(graph_key, T, 0.3)
    batch = sampling.sample_batch(prompt_key, graph, prior, S, 8)
    scores = {
      "best": jax.vmap(likelihood.likelihood_score)(batch.x_T, batch.kernel),
      "query": jax.vmap(likelihood.query_row_score)(batch.x_T, batch.kernel),
      "genie": jax.vmap(likelihood.left_out_score, (0, 0, None, None))(
        batch.x_T, batch.y_S, graph, alpha
      ),
    }
    hits = {
      name: jax.vmap(samples.hits, (0, None))(
        jnp.cumsum(score, axis=0), graph
      ).sum(axis=1)
      for name, score in scores.items()
    }
    return hits, (graph.parents_TxK >= 0).sum()

  hits, edges_G = measure(jax.random.split(jax.random.key(0), 400))
  best = hits.pop("best")
  for hits_GxN in hits.values():
    z, _ = samples.largest_z(hits_GxN, best, edges_G)
    assert z < 4
    assert np.sum(best) > np.sum(hits_GxN)
