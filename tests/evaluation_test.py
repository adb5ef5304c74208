import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from icl_causal import evaluation
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import parallel
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training

S, T = 3, 6
GRAPH = graphs.chain(T)
MODEL = models.Disentangled(S, T, (1, 1), beta0=0.5)
ADAM = optax.adam(0.03)


def _draw(key, batch_size=64):
  return sampling.sample_batch(key, GRAPH, priors.dirichlet(0.1), S, batch_size)


def test_evaluation_uses_the_full_test_set():
  params = training.init(jax.random.key(0), MODEL, ADAM).params
  test = jax.jit(_draw, static_argnums=1)(jax.random.key(2), 48)
  result = jax.jit(evaluation.evaluate, static_argnums=(1, 4))(
    params, MODEL, test.x_T, test.y_S, 16
  )
  f_NxS, out = jax.vmap(lambda x_T: MODEL.apply({"params": params}, x_T))(
    test.x_T
  )
  loss_N = jax.vmap(metrics.loss)(f_NxS, test.y_S)
  np.testing.assert_allclose(result.loss_N, loss_N, rtol=1e-5)
  assert set(result.attention) == {"attention_1", "attention_2"}
  for name, att in result.attention.items():
    np.testing.assert_allclose(att, out[name].mean(axis=0), atol=1e-6)
  with pytest.raises(ValueError, match="48 test prompts do not divide"):
    evaluation.evaluate(params, MODEL, test.x_T, test.y_S, batch_size=32)


def test_evaluation_of_the_first_batches():
  state = training.init(jax.random.key(0), MODEL, ADAM)
  test = _draw(jax.random.key(2), 12)
  params = jax.tree.map(lambda a: a + 0.3, state.params)

  def evaluate(num_batches, x_NxT, y_NxS):
    return jax.jit(
      lambda num: evaluation.evaluate(
        params, MODEL, x_NxT, y_NxS, 4, num_batches=num, num_first=3
      )
    )(num_batches)

  some = evaluate(2, test.x_T, test.y_S)
  alone = evaluate(2, test.x_T[:8], test.y_S[:8])
  np.testing.assert_array_equal(some.loss_N[:8], alone.loss_N)
  assert np.isnan(some.loss_N[8:]).all()
  for name, array in alone.attention.items():
    np.testing.assert_array_equal(some.attention[name], array)
  f_BxS, out = jax.vmap(lambda x_T: MODEL.apply({"params": params}, x_T))(
    test.x_T[:3]
  )
  expected = {name: a for name, a in out.items() if name.startswith("att")}
  expected["law"] = f_BxS
  assert some.first.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_allclose(some.first[name], array, atol=1e-6)


def test_evaluation_uses_the_smoothed_law():
  model = models.Reduced(S, T, beta0=0.1)
  params = training.init(jax.random.key(0), model, ADAM).params
  test = jax.jit(_draw, static_argnums=1)(jax.random.key(2), 16)
  result = evaluation.evaluate(params, model, test.x_T, test.y_S, 16, 0.1)
  f_NxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
    test.x_T
  )
  trained_N = jax.vmap(lambda f, y: metrics.loss(f, y, 0.1))(f_NxS, test.y_S)
  np.testing.assert_allclose(
    result.loss_N, trained_N + np.log(1 + 0.1 * S), rtol=1e-5
  )


def test_evaluation_at_every_position():
  """The loss of a prompt is the mean over positions; maps are T x T."""
  model = models.Disentangled(S, T, (2, 1), noise=1.0, every=True)
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros(T, int))["params"]
  params["W"] = jax.random.normal(jax.random.key(1), params["W"].shape)
  prior = priors.dirichlet(0.5, "uniform")
  batch = jax.jit(
    lambda key: sampling.sample_batch(key, GRAPH, prior, S, 8, every=True)
  )(jax.random.key(2))
  evaluate = jax.jit(
    lambda params: evaluation.evaluate(
      params, model, batch.x_T, batch.y_S, 4, epsilon=0.1, num_first=3
    )
  )
  found = evaluate(params)
  f_NxTxS, out = jax.jit(
    jax.vmap(lambda x_T: model.apply({"params": params}, x_T))
  )(batch.x_T)
  law_NxTxS = (f_NxTxS + 0.1) / (1 + S * 0.1)
  expected_N = -(batch.y_S * np.log(law_NxTxS)).sum(axis=2).mean(axis=1)
  np.testing.assert_allclose(found.loss_N, expected_N, rtol=1e-5)
  np.testing.assert_allclose(found.law_NxS, law_NxTxS[:, -1], rtol=1e-5)
  np.testing.assert_allclose(found.first["law"], law_NxTxS[:3, -1], rtol=1e-5)
  for name in ("attention_1", "attention_2"):
    mean = np.asarray(out[name]).mean(axis=0)
    np.testing.assert_allclose(found.attention[name], mean, atol=1e-6)
    np.testing.assert_allclose(found.first[name], out[name][:3], atol=1e-6)


@pytest.mark.parametrize("num_first", [0, 2, 5, 8])
@pytest.mark.parametrize("chunk_size", [1, 4, 8])
def test_chunks_add_up_to_the_test_set(chunk_size, num_first):
  """For a first part of the test set, and on a mesh."""
  model = models.Disentangled(S, T, (2, 1), noise=1.0)
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros(T, int))["params"]
  params["W"] = jax.random.normal(jax.random.key(1), params["W"].shape)
  test = jax.jit(_draw, static_argnums=1)(jax.random.key(2), 24)

  def evaluate(params, **options):
    return evaluation.evaluate(
      params,
      model,
      test.x_T,
      test.y_S,
      batch_size=8,
      epsilon=0.1,
      num_batches=2,
      num_first=num_first,
      **options,
    )

  whole = jax.jit(evaluate)(params)
  assert np.isfinite(whole.law_NxS[:16]).all()
  assert np.isnan(whole.law_NxS[16:]).all()
  mesh = parallel.batch_mesh(1)
  for options in ({}, {"mesh": mesh}):
    chunked = jax.jit(
      lambda params, o=options: evaluate(params, chunk_size=chunk_size, **o)
    )(params)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      chunked,
      whole,
    )


def test_chunks_must_divide_a_batch():
  params = training.init(jax.random.key(0), MODEL, ADAM).params
  test = jax.jit(_draw, static_argnums=1)(jax.random.key(2), 24)
  with pytest.raises(ValueError, match="8 prompts do not divide into chunks"):
    evaluation.evaluate(params, MODEL, test.x_T, test.y_S, 8, chunk_size=6)


def test_the_first_prompts_are_of_one_batch():
  params = training.init(jax.random.key(0), MODEL, ADAM).params
  test = jax.jit(_draw, static_argnums=1)(jax.random.key(2), 24)
  with pytest.raises(ValueError, match="num_first is 9, above 8 prompts"):
    evaluation.evaluate(params, MODEL, test.x_T, test.y_S, 8, num_first=9)
