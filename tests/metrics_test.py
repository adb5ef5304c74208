import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import priors
from icl_causal import sampling


def test_loss_by_hand():
  f_S, y_S = jnp.array([0.5, 0.25, 0.25]), jnp.array([0.5, 0.5, 0.0])
  np.testing.assert_allclose(
    metrics.loss(f_S, y_S), 0.5 * np.log(2) + 0.5 * np.log(4), rtol=1e-6
  )
  np.testing.assert_allclose(
    metrics.loss(f_S, y_S, epsilon=0.5),
    0.5 * np.log(1 / 1.0) + 0.5 * np.log(1 / 0.75),
    rtol=1e-6,
  )


def test_impossible_targets_cost_nothing():
  f_S, y_S = jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0])
  assert metrics.loss(f_S, y_S) == 0
  assert metrics.loss(y_S, jnp.array([0.5, 0.5])) == np.inf
  assert np.isfinite(metrics.loss(y_S, jnp.array([0.5, 0.5]), epsilon=1e-6))


def test_predictor_losses():
  graph = graphs.chain(4)
  x_BxT = jnp.array([[0, 1, 0, 0], [1, 1, 1, 0]])
  y_BxS = jnp.array([[0.2, 0.8], [1.0, 0.0]])
  losses = metrics.predictor_losses(x_BxT, y_BxS, graph, 1.0)
  assert set(losses) == {"uniform", "unigram", "edge_posterior", "entropy"}
  np.testing.assert_allclose(losses["uniform"], np.log(2), rtol=1e-6)
  # After a 0 comes a 1 once in the first prompt, nothing in the second.
  np.testing.assert_allclose(
    losses["edge_posterior"],
    [-0.2 * np.log(1 / 3) - 0.8 * np.log(2 / 3), np.log(2)],
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    losses["unigram"],
    [-0.2 * np.log(4 / 6) - 0.8 * np.log(2 / 6), -np.log(2 / 6)],
    rtol=1e-6,
  )
  np.testing.assert_allclose(losses["entropy"], bayes.entropy(y_BxS))


def test_exact_posterior_losses():
  """Prompt by prompt those of the predictor."""
  graph, alpha = graphs.pairs(6), 0.5
  batch = sampling.sample_batch(
    jax.random.key(0), graph, priors.dirichlet(alpha), 3, 4
  )
  keys = jax.random.split(jax.random.key(1), 4)
  loss_B, effective_B = jax.jit(
    lambda *prompts: metrics.exact_posterior_losses(*prompts, graph, alpha, 32)
  )(keys, batch.x_T, batch.y_S)
  predict = jax.jit(
    lambda key, x_T: bayes.exact_posterior(key, x_T, graph, alpha, 3, 32)
  )
  for b in range(4):
    f_S, effective = predict(keys[b], batch.x_T[b])
    np.testing.assert_allclose(effective_B[b], effective, rtol=1e-5)
    np.testing.assert_allclose(
      loss_B[b], -(batch.y_S[b] * np.log(f_S)).sum(), rtol=1e-5
    )


def test_standard_error():
  values_N = 3 + 2 * jax.random.normal(jax.random.key(0), (10_000,))
  mean, error = metrics.mean_and_standard_error(values_N)
  assert abs(mean - 3) < 4 * error
  assert abs(error / (2 / 100) - 1) < 0.05
  assert metrics.mean_and_standard_error([1, 3]) == (2.0, 1.0)
