import functools

import chex
import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import recovery
from icl_causal import sampling
from icl_causal import training
from icl_causal import turns

S, T = 3, 6
TURN, JOINT, STRIDE = 2, 3, 0.25


def _model(num_heads, matching=0.5):
  return models.Disentangled(S, T, (num_heads, 1), matching=matching)


def _optimizer(joint):
  return turns.in_turns(joint, TURN, JOINT, STRIDE)


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
  """Every parameter that is about the copies of heads from `first` on."""
  D = S + T
  later = slice((1 + first) * D, None)
  A2 = params["A2"][0]
  W = params["W"].reshape(2, -1, S)
  return [params["A1"][first:], A2[later], A2[:, later], W[:, later]]


def test_a_turn_moves_one_head_by_its_rescaled_gradient():
  params, gradients = _history(_model(2), _optimizer(optax.sgd(1.0)), 7)
  for step, head in ((1, 0), (6, 1)):  # the second step of a turn
    before, after = params[step], params[step + 1]
    moved = after["A1"] - before["A1"]
    assert (moved[1 - head] == 0).all()
    assert (moved[:, :S] == 0).all()
    assert (moved[:, :, :S] == 0).all()
    rows = gradients[step]["A1"][head, S:, S:] * np.arange(1, T + 1)[:, None]
    np.testing.assert_allclose(
      moved[head, S:, S:], -STRIDE * rows / np.abs(rows).max(), atol=1e-6
    )
    np.testing.assert_allclose(np.abs(moved).max(), STRIDE, rtol=1e-5)
    for name in ("A2", "W"):
      np.testing.assert_array_equal(after[name], before[name])


def test_a_second_turn_starts_from_zero():
  """Heads 0, 1, 2, 0: the fourth turn begins at step 3 (TURN + JOINT)."""
  begins = 3 * (TURN + JOINT)
  params, gradients = _history(
    _model(3),
    _optimizer(optax.adam(0.1)),
    begins + TURN,
    graphs.kgram(T, 3),
  )
  rows = gradients[begins]["A1"][0, S:, S:] * np.arange(1, T + 1)[:, None]
  expected = np.zeros((S + T, S + T))
  expected[S:, S:] = -STRIDE * rows / np.abs(rows).max()
  assert np.abs(params[begins]["A1"][0]).max() > 2 * STRIDE
  np.testing.assert_allclose(params[begins + 1]["A1"][0], expected, atol=1e-6)
  np.testing.assert_array_equal(
    params[begins + 1]["A1"][1:], params[begins]["A1"][1:]
  )


def test_later_heads_rest_until_their_turn():
  params, _ = _history(_model(3), _optimizer(optax.adam(0.1)), 11)
  for turn in (1, 2):
    until = turn * (TURN + JOINT)
    for one, other in zip(
      _of_later_heads(params[0], turn),
      _of_later_heads(params[until], turn),
      strict=True,
    ):
      np.testing.assert_array_equal(one, other)
  moved = params[11]["A1"][2] - params[0]["A1"][2]
  assert (moved != 0).any()


def test_joint_steps_are_those_of_a_model_of_the_heads_so_far():
  """With no matching among later copies, the two models are the same."""
  joint = optax.adamw(0.1, weight_decay=0.01)
  small, _ = _history(_model(1), _optimizer(joint), TURN + JOINT)
  D = S + T

  def without_later(params):
    A2 = params["A2"].at[0, 2 * D :, 2 * D :].set(0)
    W = params["W"].reshape(2, 3, D, S).at[:, 2].set(0).reshape(-1, S)
    return params | {"A2": A2, "W": W}

  class Plain(models.Disentangled):
    """The second head's copies are not held against the query's."""

    def _start_A(self, key, shape, layer):
      A = super()._start_A(key, shape, layer)
      return A.at[0, 2 * D :, 2 * D :].set(0) if layer == 2 else A

  large, _ = _history(
    Plain(S, T, (2, 1), matching=0.5), _optimizer(joint), TURN + JOINT
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
def test_a_turn_of_the_first_layer_is_joint_training_of_A1_alone(model):
  """Adam's steps, but those of a turn for A1 only."""
  joint = optax.adam(0.1)
  begins, ends = 3, 5
  optimizer = turns.first_layer_turn(joint, begins, ends - begins)
  params, gradients = _history(model, optimizer, ends + 2)
  state = joint.init(params[0])
  for step, gradient in enumerate(gradients):
    before, after = params[step], params[step + 1]
    updates, state = joint.update(gradient, state)
    for name in before:
      expected = optax.apply_updates(before[name], updates[name])
      if name != "A1" and begins <= step < ends:
        expected = before[name]
      chex.assert_trees_all_close(after[name], expected, atol=1e-5)
  moved = params[ends]["A1"] - params[begins]["A1"]
  assert np.abs(moved).max() > 0.1


def test_heads_find_both_parents():
  S, T = 3, 16
  graph = graphs.half_and_previous(T)
  prior = priors.dirichlet(0.1)
  model = models.Disentangled(S, T, (2, 1), matching=0.5)
  optimizer = turns.in_turns(optax.adam(0.03), 16, 48, 0.5)
  draw = functools.partial(
    sampling.sample_batch, graph=graph, prior=prior, S=S, batch_size=256
  )

  @jax.jit
  def attention(key):
    state = training.init(key, model, optimizer)
    state, _ = training.train(
      state, key, turns.num_turns(2) * (16 + 48), model, optimizer, draw
    )
    test = draw(jax.random.fold_in(key, 1))
    return training.evaluate(
      state.params, model, test.x_T, test.y_S, 256
    ).attention["attention_1"]

  edges = recovery.compare(
    attention(jax.random.key(0)), graph, include_self=True
  )
  assert edges.recovered > 0.85 * edges.edges
  # Training both heads at once finds one slot twice, which is half of them.


def test_needs_the_parameters():
  optimizer = _optimizer(optax.sgd(1.0))
  params = training.init(jax.random.key(0), _model(1), optimizer).params
  with pytest.raises(ValueError, match="needs the parameters"):
    optimizer.update(params, optimizer.init(params))
