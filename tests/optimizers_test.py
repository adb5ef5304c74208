import functools
import itertools

import chex
import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from icl_causal import graphs
from icl_causal import models
from icl_causal import optimizers
from icl_causal import priors
from icl_causal import sampling
from icl_causal import symmetry
from icl_causal import training
from icl_causal.analysis import recovery

S, T = 3, 6
PHASE_STEPS, JOINT_STEPS, MAX_STEP = 2, 3, 0.25


def _model(num_heads, beta0=0.5):
  return models.Disentangled(S, T, (num_heads, 1), beta0=beta0)


def _optimizer(joint):
  return optimizers.staged_heads(joint, PHASE_STEPS, JOINT_STEPS, MAX_STEP)


def _history(model, optimizer, num_steps, graph=None):
  """The parameters before the first step and after each, and the gradients."""
  graph = graph or graphs.half_and_previous(T)
  prior = priors.dirichlet(0.1)
  state = training.init(jax.random.key(0), model, optimizer)

  @jax.jit
  def step(state):
    draw = functools.partial(
      sampling.sample_batch, graph=graph, prior=prior, S=S, batch_size=64
    )
    batch = draw(jax.random.fold_in(jax.random.key(1), state.step))
    gradient = training.loss_and_gradient(state.params, batch, model)[1]
    after, _ = training.train(
      state, jax.random.key(1), 1, model, optimizer, draw
    )
    return after, gradient

  params, gradients = [state.params], []
  for _ in range(num_steps):
    state, gradient = step(state)
    params.append(state.params)
    gradients.append(gradient)
  as_numpy = functools.partial(jax.tree.map, np.asarray)
  return as_numpy(params), as_numpy(gradients)


def _of_later_heads(params, first):
  """The parameters that read or make the copies of heads from `first` on."""
  D = S + T
  later = slice((1 + first) * D, None)
  A2 = params["A2"][0]
  W = params["W"].reshape(2, -1, S)
  return [params["A1"][first:], A2[later], A2[:, later], W[:, later]]


def test_a_phase_trains_one_head_by_its_rescaled_gradient():
  params, gradients = _history(_model(2), _optimizer(optax.sgd(1.0)), 7)
  for step, head in ((1, 0), (6, 1)):  # the second step of a phase
    before, after = params[step], params[step + 1]
    change = after["A1"] - before["A1"]
    assert (change[1 - head] == 0).all()
    assert (change[:, :S] == 0).all()
    assert (change[:, :, :S] == 0).all()
    rows = gradients[step]["A1"][head, S:, S:] * np.arange(1, T + 1)[:, None]
    np.testing.assert_allclose(
      change[head, S:, S:], -MAX_STEP * rows / np.abs(rows).max(), atol=1e-6
    )
    np.testing.assert_allclose(np.abs(change).max(), MAX_STEP, rtol=1e-5)
    for name in ("A2", "W"):
      np.testing.assert_array_equal(after[name], before[name])


def test_the_second_phase_of_a_head_starts_from_zero():
  """The phases train heads 0, 1, 2, 0."""
  start = 3 * (PHASE_STEPS + JOINT_STEPS)
  params, gradients = _history(
    _model(3),
    _optimizer(optax.adam(0.1)),
    start + PHASE_STEPS,
    graphs.kgram(T, 3),
  )
  assert np.abs(params[start]["A1"][0]).max() > 2 * MAX_STEP
  assert (params[start + 1]["A1"][0] == 0).all()
  rows = gradients[start + 1]["A1"][0, S:, S:] * np.arange(1, T + 1)[:, None]
  expected = np.zeros((S + T, S + T))
  expected[S:, S:] = -MAX_STEP * rows / np.abs(rows).max()
  np.testing.assert_allclose(params[start + 2]["A1"][0], expected, atol=1e-6)
  np.testing.assert_array_equal(
    params[start + 2]["A1"][1:], params[start]["A1"][1:]
  )


def test_later_heads_are_frozen_until_their_phase():
  params, _ = _history(_model(3), _optimizer(optax.adam(0.1)), 11)
  for head in (1, 2):
    start = head * (PHASE_STEPS + JOINT_STEPS)
    for one, other in zip(
      _of_later_heads(params[0], head),
      _of_later_heads(params[start], head),
      strict=True,
    ):
      np.testing.assert_array_equal(one, other)
  assert (params[11]["A1"][2] != params[0]["A1"][2]).any()


def test_the_state_of_the_joint_optimizer_is_frozen_during_phases():
  """Moments and the count of steps; phases and joint steps alternate."""
  model, optimizer = _model(2), _optimizer(optax.adam(0.1))
  step = jax.jit(
    lambda state: training.train(
      state, jax.random.key(1), 1, model, optimizer, _draw
    )[0]
  )
  state = training.init(jax.random.key(0), model, optimizer)
  period = PHASE_STEPS + JOINT_STEPS
  num_joint = 0
  for number in range(2 * period):
    before, state = state.opt_state.joint, step(state)
    after = state.opt_state.joint
    in_phase = number % period < PHASE_STEPS
    num_joint += not in_phase
    assert after[0].count == num_joint
    if in_phase:
      chex.assert_trees_all_equal(after, before)
    else:
      assert (after[0].mu["A1"] != before[0].mu["A1"]).any()
      assert (after[0].nu["W"] != before[0].nu["W"]).any()


def test_all_heads_are_trained_after_the_last_phase():
  """The last of the phases of heads 0, 1, 0 leaves head 1 known."""
  last = 2 * (PHASE_STEPS + JOINT_STEPS) + PHASE_STEPS
  params, _ = _history(_model(2), _optimizer(optax.adam(0.1)), last + 2)
  for one, other in zip(
    _of_later_heads(params[last], 1),
    _of_later_heads(params[last + 2], 1),
    strict=True,
  ):
    assert (one != other).any()


def test_joint_steps_equal_those_of_a_model_with_the_heads_so_far():
  """If later copies start with no blocks of beta0, the models are the same."""
  joint = optax.adamw(0.1, weight_decay=0.01)
  small, _ = _history(_model(1), _optimizer(joint), PHASE_STEPS + JOINT_STEPS)
  D = S + T

  def without_later(params):
    A2 = params["A2"].at[0, 2 * D :, 2 * D :].set(0)
    W = params["W"].reshape(2, 3, D, S).at[:, 2].set(0).reshape(-1, S)
    return params | {"A2": A2, "W": W}

  class Plain(models.Disentangled):
    """Without beta0 in the block between copies of the second head."""

    def _start_A(self, key, shape, layer):
      A = super()._start_A(key, shape, layer)
      return A.at[0, 2 * D :, 2 * D :].set(0) if layer == 2 else A

  large, _ = _history(
    Plain(S, T, (2, 1), beta0=0.5), _optimizer(joint), PHASE_STEPS + JOINT_STEPS
  )
  known = without_later(jax.tree.map(jnp.asarray, large[-1]))
  np.testing.assert_allclose(known["A1"][0], small[-1]["A1"][0], atol=1e-5)
  np.testing.assert_allclose(
    known["A2"][0, : 2 * D, : 2 * D], small[-1]["A2"][0], atol=1e-5
  )
  np.testing.assert_allclose(
    known["W"].reshape(2, 3, D, S)[:, :2].reshape(-1, S),
    small[-1]["W"],
    atol=1e-5,
  )


@pytest.mark.parametrize(
  "model",
  [_model(1), models.Standard(S, T, (2, 1), S + T, mlp="of_attention")],
  ids=["disentangled", "standard"],
)
def test_first_layer_phase_applies_the_updates_of_A1_only(model):
  joint = optax.adam(0.1)
  start, end = 3, 5
  optimizer = optimizers.first_layer_phase(joint, start, end - start)
  params, gradients = _history(model, optimizer, end + 2)
  state = joint.init(params[0])
  for step, gradient in enumerate(gradients):
    before, after = params[step], params[step + 1]
    updates, state = joint.update(gradient, state)
    for name in before:
      expected = optax.apply_updates(before[name], updates[name])
      if name != "A1" and start <= step < end:
        expected = before[name]
      chex.assert_trees_all_close(after[name], expected, atol=1e-5)
  change = params[end]["A1"] - params[start]["A1"]
  assert np.abs(change).max() > 0.1


def test_staged_heads_recover_both_parents():
  S, T = 3, 16
  graph = graphs.half_and_previous(T)
  prior = priors.dirichlet(0.1)
  model = models.Disentangled(S, T, (2, 1), beta0=0.5)
  optimizer = optimizers.staged_heads(optax.adam(0.03), 16, 48, 0.5)
  draw = functools.partial(
    sampling.sample_batch, graph=graph, prior=prior, S=S, batch_size=256
  )

  @jax.jit
  def attention(key):
    state = training.init(key, model, optimizer)
    state, _ = training.train(
      state, key, optimizers.num_phases(2) * (16 + 48), model, optimizer, draw
    )
    test = draw(jax.random.fold_in(key, 1))
    return training.evaluate(
      state.params, model, test.x_T, test.y_S, 256
    ).attention["attention_1"]

  edges = recovery.compare(
    attention(jax.random.key(0)), graph, include_self=True
  )
  assert edges.recovered > 0.85 * edges.edges
  # Joint training of both heads recovers one slot twice, half of the edges.


def test_staged_heads_needs_the_parameters():
  optimizer = _optimizer(optax.sgd(1.0))
  params = training.init(jax.random.key(0), _model(1), optimizer).params
  with pytest.raises(ValueError, match="needs the parameters"):
    optimizer.update(params, optimizer.init(params))


def test_symmetric_averages_over_relabellings():
  params = training.init(jax.random.key(0), _model(1), optax.sgd(1.0)).params
  rng = np.random.default_rng(0)
  gradient = jax.tree.map(
    lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32), params
  )
  assert jax.jit(symmetry.asymmetry)(gradient) > 0.1
  updates, _ = jax.jit(optimizers.symmetric().update)(
    gradient, optax.EmptyState()
  )
  chex.assert_trees_all_close(
    updates, jax.jit(symmetry.relabelling_mean)(gradient), atol=1e-6
  )
  assert jax.jit(symmetry.asymmetry)(updates) < 1e-6


def _draw(key):
  return sampling.sample_batch(
    key, graphs.chain(T), priors.dirichlet(0.1), S, 64
  )


def _reduced_steps(num_steps, optimizer, seed=0):
  """The states of a reduced model before the first step and after each."""
  model = models.Reduced(S, T, beta0=0.1)
  step = jax.jit(
    lambda state: training.train(
      state, jax.random.key(seed), 1, model, optimizer, _draw, epsilon=0.1
    )[0]
  )
  states = [training.init(jax.random.key(0), model, optimizer)]
  for _ in range(num_steps):
    states.append(step(states[-1]))
  return states


def _has_changed(states, name):
  """For each step, whether a parameter changes."""
  return [
    bool((one.params[name] != other.params[name]).any())
    for one, other in itertools.pairwise(states)
  ]


def test_algorithm_1_trains_A1_then_A2():
  states = _reduced_steps(5, optimizers.algorithm_1(10.0, 1.0, 3))
  assert _has_changed(states, "A1") == [True] * 3 + [False] * 2
  assert _has_changed(states, "A2") == [False] * 3 + [True] * 2
  assert states[-1].opt_state == (5, 3)


@pytest.mark.parametrize("rescale", [False, True])
def test_algorithm_1_takes_gradient_steps(rescale):
  """Compared with the gradient of an explicit formula, in each stage."""
  optimizer = optimizers.algorithm_1(10.0, 2.0, 1, rescale_rows=rescale)
  states = _reduced_steps(2, optimizer)
  rows = np.arange(1, T + 1)[:, None] if rescale else 1
  for step, name, rate in ((0, "A1", 10.0 * rows), (1, "A2", 2.0)):
    batch = jax.jit(_draw)(jax.random.fold_in(jax.random.key(0), step))

    def mean_loss(params, batch=batch):
      layer_1 = jnp.exp(params["A1"]) * jnp.tri(T)
      layer_1 = layer_1 / layer_1.sum(axis=1, keepdims=True)
      X = jnp.eye(S)[batch.x_T]
      scores = jnp.einsum(
        "ij,bjs,ts,bt->bi", layer_1, X, params["A2"], X[:, -1]
      )
      f_BxS = jnp.einsum("bi,bis->bs", jax.nn.softmax(scores), X)
      return -(batch.y_S * jnp.log(f_BxS + 0.1)).sum(1).mean()

    gradient = jax.jit(jax.grad(mean_loss))(states[step].params)[name]
    np.testing.assert_allclose(
      states[step + 1].params[name],
      states[step].params[name] - rate * gradient,
      atol=1e-5,
    )


def test_algorithm_1_stops_when_the_median_row_is_decided():
  """Maximum attention .9, .9, .6, .5: two of three rows are decided.

  The query's row, with .99, and row 0 are excluded.
  """
  share = jnp.array([1.0, 0.9, 0.9, 0.6, 0.5, 0.99])
  others = (1 - share) / jnp.maximum(jnp.arange(6), 1)
  A1 = jnp.log(jnp.diag(share - others) + jnp.tri(6) * others[:, None] + 1e-9)
  params = {"A1": A1, "A2": jnp.eye(3)}
  gradient = jax.tree.map(jnp.ones_like, params)

  def in_first(stop, A1=A1):
    optimizer = optimizers.algorithm_1(1.0, 1.0, 10, stop)
    moving = params | {"A1": A1}
    updates, _ = optimizer.update(gradient, optimizer.init(moving), moving)
    return bool((updates["A1"] != 0).all() and (updates["A2"] == 0).all())

  assert in_first(0.91)
  assert not in_first(0.89)
  # No uniform row is decided, and row 0 is excluded.
  assert in_first(0.89, jnp.zeros((6, 6)))
  # Stage 2 does not return to stage 1.
  optimizer = optimizers.algorithm_1(1.0, 1.0, 10, 0.89)
  _, state = optimizer.update(gradient, optimizer.init(params), params)
  uniform = params | {"A1": jnp.zeros((6, 6))}
  updates, state = optimizer.update(gradient, state, uniform)
  assert (updates["A1"] == 0).all()
  assert (updates["A2"] == -1).all()
  assert state == (2, 0)
