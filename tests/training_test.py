import functools

import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from experiments.benchmark import textbook
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import recovery

S, T = 3, 6
GRAPH = graphs.chain(T)
MODEL = models.Disentangled(S, T, (1, 1), beta0=0.5)
ADAM = optax.adam(0.03)


def _draw(key, batch_size=64):
  return sampling.sample_batch(key, GRAPH, priors.dirichlet(0.1), S, batch_size)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _train(state, key, num_steps, optimizer=ADAM):
  return training.train(state, key, num_steps, MODEL, optimizer, _draw)


def _equal(one, other):
  return all(
    (a == b).all()
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  )


def test_one_step_equals_the_textbook_implementation():
  """Plain gradient descent on the mean cross-entropy of the batch."""
  key, rate = jax.random.key(1), 0.5
  optimizer = optax.sgd(rate)
  state = training.init(jax.random.key(0), MODEL, optimizer)
  after, steps = _train(state, key, 1, optimizer)
  batch = jax.jit(_draw)(jax.random.fold_in(key, 0))

  def mean_loss(params):
    f_BxS = jax.vmap(lambda x_T: textbook.disentangled(params, x_T, S)[0])(
      batch.x_T
    )
    return -(batch.y_S * jnp.log(f_BxS)).sum(1).mean()

  loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(state.params)
  np.testing.assert_allclose(steps.loss_N, [loss], rtol=1e-5)
  norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
  np.testing.assert_allclose(steps.gradient_norm_N, [norm], rtol=1e-5)
  for name, param in state.params.items():
    np.testing.assert_allclose(
      after.params[name], param - rate * gradient[name], atol=1e-6
    )
  assert after.step == 1


@pytest.mark.parametrize("chunk_size", [1, 16, 64])
def test_chunks_add_up_to_the_batch(chunk_size):
  state = training.init(jax.random.key(0), MODEL, ADAM)
  params = jax.tree.map(
    lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(1), leaf.shape),
    state.params,
  )
  batch = jax.jit(_draw)(jax.random.key(2))
  full, chunked = (
    jax.jit(
      lambda params, size=size: training.loss_and_gradient(
        params, batch, MODEL, 0.1, size
      )
    )(params)
    for size in (None, chunk_size)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), full, chunked
  )
  assert all(jnp.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(chunked))


def test_chunks_must_divide_the_batch():
  params = training.init(jax.random.key(0), MODEL, ADAM).params
  batch = jax.jit(_draw)(jax.random.key(2))
  with pytest.raises(ValueError, match="64 prompts do not divide into chunks"):
    training.loss_and_gradient(params, batch, MODEL, chunk_size=48)


def test_mean_gradient_is_the_mean_over_batches():
  params = training.init(jax.random.key(0), MODEL, ADAM).params
  key, num = jax.random.key(1), 4
  mean, error = jax.jit(training.mean_gradient, static_argnums=(2, 3, 4))(
    params, key, num, MODEL, _draw
  )

  @jax.jit
  @jax.grad
  def gradient(params, batch):
    f_BxS = jax.vmap(lambda x_T: MODEL.apply({"params": params}, x_T)[0])(
      batch.x_T
    )
    return -(batch.y_S * jnp.log(f_BxS)).sum(1).mean()

  each = [
    gradient(params, jax.jit(_draw)(k)) for k in jax.random.split(key, num)
  ]
  for name in params:
    values = np.array([g[name] for g in each])
    np.testing.assert_allclose(mean[name], values.mean(0), atol=1e-6)
    np.testing.assert_allclose(error[name], stats.sem(values), atol=1e-5)


def test_a_resumed_run_equals_an_uninterrupted_run():
  start = training.init(jax.random.key(0), MODEL, ADAM)
  uninterrupted, steps = _train(start, jax.random.key(1), 6)
  half, first = _train(start, jax.random.key(1), 3)
  resumed, second = _train(half, jax.random.key(1), 3)
  assert _equal(uninterrupted, resumed)
  assert _equal(steps, jax.tree.map(lambda *a: jnp.hstack(a), first, second))


def test_a_traced_number_of_steps_gives_the_same_run():
  start = training.init(jax.random.key(0), MODEL, ADAM)
  expected, steps = _train(start, jax.random.key(1), 3)
  some = jax.jit(
    lambda num: training.train(
      start,
      jax.random.key(1),
      num,
      model=MODEL,
      optimizer=ADAM,
      draw=_draw,
      max_steps=5,
    )
  )
  state, taken = some(3)
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  np.testing.assert_array_equal(taken.loss_N[:3], steps.loss_N)
  assert np.isnan(taken.loss_N[3:]).all()
  assert taken.gradient_norm_N.shape == (5,)
  assert int(some(0)[0].step) == 0


def test_a_run_is_determined_by_its_key():
  start = training.init(jax.random.key(0), MODEL, ADAM)
  one, again, other = (
    _train(start, jax.random.key(seed), 3)[0] for seed in (1, 1, 2)
  )
  assert _equal(one, again)
  assert not _equal(one, other)


def test_each_step_draws_fresh_data():
  frozen = optax.sgd(0.0)
  start = training.init(jax.random.key(0), MODEL, frozen)
  _, steps = _train(start, jax.random.key(1), 4, frozen)
  assert len(np.unique(steps.loss_N)) == 4


def test_evaluation_uses_the_full_test_set():
  params = training.init(jax.random.key(0), MODEL, ADAM).params
  test = jax.jit(_draw, static_argnums=1)(jax.random.key(2), 48)
  evaluation = jax.jit(training.evaluate, static_argnums=(1, 4))(
    params, MODEL, test.x_T, test.y_S, 16
  )
  f_NxS, out = jax.vmap(lambda x_T: MODEL.apply({"params": params}, x_T))(
    test.x_T
  )
  loss_N = jax.vmap(metrics.loss)(f_NxS, test.y_S)
  np.testing.assert_allclose(evaluation.loss_N, loss_N, rtol=1e-5)
  assert set(evaluation.attention) == {"attention_1", "attention_2"}
  for name, att in evaluation.attention.items():
    np.testing.assert_allclose(att, out[name].mean(axis=0), atol=1e-6)
  with pytest.raises(ValueError, match="48 test prompts do not divide"):
    training.evaluate(params, MODEL, test.x_T, test.y_S, batch_size=32)


def test_evaluation_of_the_first_batches():
  state = training.init(jax.random.key(0), MODEL, ADAM)
  test = _draw(jax.random.key(2), 12)
  params = jax.tree.map(lambda a: a + 0.3, state.params)

  def evaluate(num_batches, x_NxT, y_NxS):
    return jax.jit(
      lambda num: training.evaluate(
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


def test_training_recovers_a_small_graph():
  state = training.init(jax.random.key(0), MODEL, ADAM)
  state, (losses, _) = _train(state, jax.random.key(1), 512)
  test = jax.jit(_draw, static_argnums=1)(jax.random.key(2), 1024)
  evaluation = jax.jit(training.evaluate, static_argnums=(1, 4))(
    state.params, MODEL, test.x_T, test.y_S, 1024
  )
  assert losses[-64:].mean() < losses[:64].mean() - 0.1
  edges = recovery.compare(
    evaluation.attention["attention_1"], GRAPH, include_self=True
  )
  assert edges.recovered == edges.edges == 4


def test_evaluation_uses_the_smoothed_law():
  model = models.Reduced(S, T, beta0=0.1)
  params = training.init(jax.random.key(0), model, ADAM).params
  test = jax.jit(_draw, static_argnums=1)(jax.random.key(2), 16)
  evaluation = training.evaluate(params, model, test.x_T, test.y_S, 16, 0.1)
  f_NxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
    test.x_T
  )
  trained_N = jax.vmap(lambda f, y: metrics.loss(f, y, 0.1))(f_NxS, test.y_S)
  np.testing.assert_allclose(
    evaluation.loss_N, trained_N + np.log(1 + 0.1 * S), rtol=1e-5
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
    lambda params: training.evaluate(
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
  np.testing.assert_allclose(found.law_BxS, law_NxTxS[:4, -1], rtol=1e-5)
  np.testing.assert_allclose(found.first["law"], law_NxTxS[:3, -1], rtol=1e-5)
  for name in ("attention_1", "attention_2"):
    mean = np.asarray(out[name]).mean(axis=0)
    np.testing.assert_allclose(found.attention[name], mean, atol=1e-6)
    np.testing.assert_allclose(found.first[name], out[name][:3], atol=1e-6)


def test_a_step_at_every_position_descends_the_mean_over_positions():
  """Also for prompts with a latent graph, and in chunks."""
  model = models.Relative(S, T, (1, 1), 4, noise=0.5, every=True)
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros(T, int))["params"]
  params["W"] = jax.random.normal(jax.random.key(1), params["W"].shape)
  prior = priors.dirichlet(0.5, "uniform")
  graphs_M = graphs.lags(T, (1, 2))
  batch = jax.jit(
    lambda key: sampling.sample_latent_batch(
      key, graphs_M, prior, S, 8, every=True
    )
  )(jax.random.key(2))

  def mean_loss(params):
    f_NxTxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
      batch.x_T
    )
    return -(batch.y_S * jnp.log(f_NxTxS)).sum(2).mean()

  loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(params)
  found = jax.jit(
    lambda params: training.loss_and_gradient(
      params, batch, model, chunk_size=2
    )
  )(params)
  np.testing.assert_allclose(found[0], loss, rtol=1e-5)
  for name, leaf in gradient.items():
    np.testing.assert_allclose(found[1][name], leaf, atol=1e-6)
