import functools

import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from experiments.benchmark import textbook
from icl_causal import graphs
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
