import json

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import priors
from icl_causal import running
from icl_causal import sampling
from icl_causal.analysis import recovery


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


def test_targets_of_probability_zero_add_no_loss():
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
  # In the first prompt a 1 follows a 0 once; in the second nothing follows.
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
  """They equal the losses of the estimates of single prompts."""
  graph, alpha = graphs.pairs(6), 0.5
  batch = sampling.sample_batch(
    jax.random.key(0), graph, priors.dirichlet(alpha), 3, 4
  )
  keys = jax.random.split(jax.random.key(1), 4)

  def posterior(key, x_T):
    return bayes.dirichlet_posterior(key, x_T, graph, alpha, 3, 32)

  losses = jax.jit(
    lambda *prompts: metrics.exact_posterior_losses(posterior, *prompts)
  )(keys, batch.x_T, batch.y_S)
  predict = jax.jit(posterior)
  for b in range(4):
    f_S, halves_2xS, effective = predict(keys[b], batch.x_T[b])
    np.testing.assert_allclose(losses.effective_M[b], effective, rtol=1e-5)
    np.testing.assert_allclose(
      losses.loss_M[b], -(batch.y_S[b] * np.log(f_S)).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(
      losses.half_loss_M[b],
      -(np.log(halves_2xS) @ batch.y_S[b]).mean(),
      rtol=1e-5,
    )


def test_standard_error():
  values_N = 3 + 2 * jax.random.normal(jax.random.key(0), (10_000,))
  mean, error = metrics.mean_and_standard_error(values_N)
  assert abs(mean - 3) < 4 * error
  assert abs(error / (2 / 100) - 1) < 0.05
  assert metrics.mean_and_standard_error([1, 3]) == pytest.approx((2.0, 1.0))


EDGE_N = np.array([1.0, 2.0, 3.0, 4.0])
LOSS_N = np.array([1.5, 2.5, 3.0, 5.0])
EXACT = metrics.ExactLosses(
  np.array([0.901, 1.701]), np.array([0.902, 1.702]), np.array([10.0, 40.0])
)


def test_excess_over_exact_by_hand():
  """The mean of the edge posterior, 2.5, minus a gain of .2 +- .1."""
  baselines = {"edge_posterior": EDGE_N}
  row = metrics.excess_over_exact(LOSS_N, baselines, EXACT)
  # The sum of two halves of independent prompts: x / 4 - gain / 2 on the first
  # two prompts, with gains of .1 and .3, and x / 4 on the others.
  exact_variance = 2 * np.var([0.2, 0.35], ddof=1)
  exact_variance += 2 * np.var(EDGE_N / 4, ddof=1)
  excess_variance = 2 * np.var([0.5 / 4 + 0.05, 0.5 / 4 + 0.15], ddof=1)
  excess_variance += 2 * np.var((LOSS_N - EDGE_N) / 4, ddof=1)
  assert row == pytest.approx(
    {
      "exact_posterior_loss": 2.3,
      "exact_posterior_loss_standard_error": exact_variance**0.5,
      "exact_gain": 0.2,
      "exact_gain_standard_error": 0.1,
      "excess_over_exact": 0.7,
      "excess_over_exact_standard_error": excess_variance**0.5,
      "exact_posterior_bias": 0.001,
      "exact_posterior_effective_samples": 16,
    }
  )
  other = {"dirichlet_edge_posterior": EDGE_N}
  assert metrics.excess_over_exact(LOSS_N, other, EXACT) == row


def test_errors_of_excess_over_exact_are_their_spread_over_test_sets():
  """Over 1000 test sets; the model, edge and exact losses are correlated."""
  rng = np.random.default_rng(0)
  repeats, N, M = 1000, 60, 20
  common = rng.normal(size=(repeats, N, 1))
  loss, edge, exact = np.moveaxis(
    common + rng.normal(size=(repeats, N, 3)) * [0.2, 0.5, 0.4], 2, 0
  )
  many = np.full(M, 100.0)
  rows = [
    metrics.excess_over_exact(
      loss[r],
      {"edge_posterior": edge[r]},
      metrics.ExactLosses(exact[r, :M], exact[r, :M], many),
    )
    for r in range(repeats)
  ]
  for name in ("exact_posterior_loss", "exact_gain", "excess_over_exact"):
    values = [row[name] for row in rows]
    variance = np.mean([row[f"{name}_standard_error"] ** 2 for row in rows])
    assert np.var(values) / variance == pytest.approx(1, abs=0.2)


def test_a_closed_form_is_reported_without_effective_samples():
  """They are infinite; and no warning is given."""
  loss_M = np.array([0.5, 0.7])
  exact = metrics.ExactLosses(loss_M, loss_M, np.array([np.inf, np.inf]))
  row = metrics.excess_over_exact(
    np.array([0.6, 0.9]), {"edge_posterior": np.array([0.6, 0.8])}, exact
  )
  assert row["exact_posterior_loss"] == pytest.approx(0.6)
  assert row["excess_over_exact"] == pytest.approx(0.15)
  assert row["exact_posterior_bias"] == 0
  assert row["exact_posterior_effective_samples"] is None


@pytest.mark.parametrize(
  ("loss", "half_loss", "effective"),
  [
    (1.7, 1.7, metrics.MIN_EFFECTIVE_SAMPLES / 2),
    (1.7, 1.71, 40.0),
    (np.inf, np.inf, 40.0),
    (np.nan, np.nan, np.nan),
  ],
)
def test_an_unreliable_exact_loss_is_not_reported(loss, half_loss, effective):
  exact = metrics.ExactLosses(
    np.array([0.9, loss]),
    np.array([0.9, half_loss]),
    np.array([10.0, effective]),
  )
  with np.errstate(invalid="ignore"):
    row = metrics.excess_over_exact(LOSS_N, {"edge_posterior": EDGE_N}, exact)
  effective = row.pop("exact_posterior_effective_samples")
  assert set(row.values()) == {None}
  json.dumps([row, effective], allow_nan=False)


def test_the_bias_may_reach_its_bound_at_two_standard_errors():
  many, third = np.full(3, 50.0), metrics.MAX_BIAS / 3
  # Mean 2 b and standard error b / sqrt(3): below 3.2 b, above 3.1 b.
  biases = np.array([1.0, 2.0, 3.0])
  assert metrics.small_bias(biases * third / 1.06, many) is not None
  assert metrics.small_bias(biases * third / 1.03, many) is None


def test_without_the_exact_posterior_all_values_are_none():
  row = metrics.excess_over_exact(LOSS_N, {"edge_posterior": EDGE_N}, None)
  assert set(row.values()) == {None}
  assert "excess_over_exact" in row


def test_measures_by_hand():
  loss_N = np.array([1.5, 2.5, 3.0, 5.0])
  edges = recovery.compare(np.eye(4, k=-1), graphs.chain(4))
  row = metrics.measures(loss_N, edges, {"edge_posterior": EDGE_N})
  assert row == pytest.approx(
    {
      "loss": 3.0,
      "loss_standard_error": np.std(loss_N, ddof=1) / 2,
      "excess_loss": 0.5,
      "excess_loss_standard_error": np.std([0.5, 0.5, 0, 1], ddof=1) / 2,
      "edges": 2,
      "edges_recovered": 2,
      "false_parents": 0,
      "parent_attention_mean": 1.0,
      "parent_attention_min": 1.0,
    }
  )


def test_another_prior_has_no_excess_over_the_edge_posterior():
  edges = recovery.compare(np.eye(4, k=-1), graphs.chain(4))
  baselines = {"dirichlet_edge_posterior": EDGE_N}
  row = metrics.measures(LOSS_N, edges, baselines)
  assert row["excess_loss"] is None
  assert row["excess_loss_standard_error"] is None
  assert metrics.reference_losses(baselines) == {
    "edge_posterior_loss": None,
    "dirichlet_edge_posterior_loss": 2.5,
  }


def test_measures_without_edges():
  graph = graphs.from_parents([-1, -1, -1])
  edges = recovery.compare(np.zeros((3, 3)), graph)
  row = metrics.measures(EDGE_N, edges, {"edge_posterior": EDGE_N})
  assert row["parent_attention_mean"] is None
  assert row["parent_attention_min"] is None


def test_reference_losses_are_means_by_name():
  baselines = {"uniform": np.array([1.0, 3.0]), "entropy": np.array([0.5, 1])}
  assert metrics.reference_losses(baselines) == {
    "edge_posterior_loss": None,
    "uniform_loss": 2.0,
    "entropy": 0.75,
  }


def test_the_record_of_a_failure():
  fine = np.linspace(2, 1, 20, dtype=np.float32)
  assert metrics.failure(fine, fine, 100) is None
  for bad in (np.nan, np.inf):
    broken = fine.copy()
    broken[12:] = bad
    failed = metrics.failure(fine, broken, 100)
    assert failed["step"] == 113
    assert failed["what"] == "the gradient is not finite"
    assert failed["last_gradient_norms"][-1] == str(bad)
    assert failed["last_losses"][-1] == f"{fine[12]:.6g}"
    assert len(failed["last_losses"]) == 8
    failed = metrics.failure(broken, broken, 0)
    assert failed["what"] == "the loss is not finite"


def test_loss_at_every_position_is_the_mean():
  f_TxS = jnp.array([[0.5, 0.25, 0.25], [1.0, 0, 0]])
  y_TxS = jnp.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
  np.testing.assert_allclose(
    metrics.loss(f_TxS, y_TxS, epsilon=0.5),
    (0.5 * np.log(1 / 1.0) + 0.5 * np.log(1 / 0.75) + np.log(2)) / 2,
    rtol=1e-6,
  )
  gradient = jax.grad(metrics.loss)(f_TxS, y_TxS, 0.5)
  np.testing.assert_allclose(
    gradient, [[-0.25, -1 / 3, 0], [0, 0, -1]], rtol=1e-6
  )
  for f, y in ((f_TxS[0], y_TxS), (f_TxS[:1], y_TxS), (f_TxS[None],) * 2):
    with pytest.raises(AssertionError):
      metrics.loss(f, y)


@pytest.mark.parametrize("every", [False, True])
def test_predictors_of_prompts_with_graphs_of_their_own(every):
  """As one prompt at a time, from the library's single-prompt functions."""
  graphs_M, alpha, S = graphs.lags(5, (1, 2)), 0.5, 2
  prior = priors.dirichlet(alpha, "uniform")
  batch = jax.jit(
    lambda key: sampling.sample_latent_batch(key, graphs_M, prior, S, 6, every)
  )(jax.random.key(0))
  of_B = jax.tree.map(lambda a: a[batch.graph_index], graphs_M)
  laws = metrics.predictor_laws(batch.x_T, of_B, alpha, S, "dirichlet", every)
  losses = metrics.predictor_losses(
    batch.x_T, batch.y_S, of_B, alpha, "dirichlet"
  )
  assert list(laws) == ["uniform", "unigram", "edge_posterior"]
  assert set(losses) == {*laws, "entropy"}
  for n in range(6):
    x_T = batch.x_T[n]
    graph = jax.tree.map(lambda a, n=n: a[n], of_B)
    if every:
      expected = {
        "uniform": np.full((5, S), 1 / S),
        "unigram": running.unigram(x_T, S),
        "edge_posterior": running.edge_posterior(
          x_T, graph, alpha, S, "dirichlet"
        ),
      }
    else:
      expected = {
        "uniform": np.full(S, 1 / S),
        "unigram": bayes.unigram(x_T, S),
        "edge_posterior": bayes.edge_posterior(x_T, graph, alpha, S),
      }
    for name, law in expected.items():
      np.testing.assert_allclose(laws[name][n], law, atol=1e-6)
      loss = -(batch.y_S[n] * np.log(law)).sum(axis=-1).mean()
      np.testing.assert_allclose(losses[name][n], loss, rtol=1e-4)
    y = np.asarray(batch.y_S[n])
    entropy = -(y * np.log(y)).sum(axis=-1).mean()
    np.testing.assert_allclose(losses["entropy"][n], entropy, rtol=1e-4)


def test_exact_posterior_losses_at_every_position():
  """The law is kept at the last position; the loss is the mean of all."""
  f_TxS = jnp.array([[0.5, 0.5], [0.25, 0.75]])
  y_TxS = jnp.array([[0.5, 0.5], [1.0, 0.0]])

  def posterior(key, x_T):
    del key, x_T
    other = jnp.stack([f_TxS, f_TxS[::-1]])
    return bayes.Posterior(f_TxS, other, jnp.float32(7))

  keys, x_MxT = jax.random.split(jax.random.key(0), 1), jnp.zeros((1, 2), int)
  found = metrics.exact_posterior_losses(posterior, keys, x_MxT, y_TxS[None])
  loss = (np.log(2) + np.log(4)) / 2
  reversed_loss = (0.5 * np.log(4) + 0.5 * np.log(4 / 3) + np.log(2)) / 2
  np.testing.assert_allclose(found.loss_M, [loss], rtol=1e-6)
  np.testing.assert_allclose(
    found.half_loss_M, [(loss + reversed_loss) / 2], rtol=1e-6
  )
  np.testing.assert_allclose(found.law_MxS, f_TxS[-1:], rtol=1e-6)
