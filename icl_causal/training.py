"""Training as pure functions: a state, a scan of steps, an evaluation."""

from collections.abc import Callable
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
from jax import numpy as jnp
import optax

from icl_causal import metrics
from icl_causal.sampling import Prompt


class TrainState(NamedTuple):
  """All that a run carries from step to step.

  Attributes:
    params: the model's parameters by name.
    opt_state: the optimiser's.
    step: int32, the steps taken.
  """

  params: optax.Params
  opt_state: optax.OptState
  step: jax.Array


class Evaluation(NamedTuple):
  """A model on a test set.

  Attributes:
    loss_N: of each prompt, in nats.
    attention: each map of the model's `out`, averaged over prompts.
  """

  loss_N: jax.Array
  attention: dict[str, jax.Array]


def init(
  key, model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainState:
  """The state before the first step."""
  params = model.init(key, jnp.zeros(model.T, jnp.int32))["params"]
  return TrainState(params, optimizer.init(params), jnp.int32(0))


def train(
  state: TrainState,
  key,
  num_steps: int,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  draw: Callable[[jax.Array], Prompt],
  epsilon: float = 0.0,
) -> tuple[TrainState, jax.Array]:
  """Takes steps of joint training, all parameters at once, fresh data in each.

  The batch of a step is a function of `key` and the number of the step alone,
  so that a run cut into pieces is the run in one piece.

  Args:
    state: where to go on from.
    key: of the data; the same in every piece of a run.
    num_steps: how many; static.
    model: maps tokens to (f_S, out).
    optimizer: of the mean loss of a batch.
    draw: a batch of prompts from a key.
    epsilon: of the loss.

  Returns:
    The new state, and the loss of each step's batch before its update.
  """

  def mean_loss(params, batch):
    f_BxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
      batch.x_T
    )
    losses_B = jax.vmap(metrics.loss, (0, 0, None))(f_BxS, batch.y_S, epsilon)
    return losses_B.mean()

  def step(state, _):
    batch = draw(jax.random.fold_in(key, state.step))
    loss, gradient = jax.value_and_grad(mean_loss)(state.params, batch)
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1), loss

  return jax.lax.scan(step, state, length=num_steps)


def evaluate(
  params, model: nn.Module, x_NxT, y_NxS, batch_size: int, epsilon: float = 0.0
) -> Evaluation:
  """The model on a test set, `batch_size` prompts at a time.

  Args:
    params: of the model.
    model: maps tokens to (f_S, out).
    x_NxT: tokens; N is a multiple of `batch_size`.
    y_NxS: targets.
    batch_size: static.
    epsilon: of the loss.
  """
  chex.assert_rank([x_NxT, y_NxS], 2)
  if len(x_NxT) % batch_size:
    raise ValueError(
      f"{len(x_NxT)} test prompts do not divide into batches of {batch_size}"
    )

  def one(x_T, y_S):
    f_S, out = model.apply({"params": params}, x_T)
    maps = {name: a for name, a in out.items() if name.startswith("attention")}
    return metrics.loss(f_S, y_S, epsilon), maps

  def batch(xy):
    loss_B, maps = jax.vmap(one)(*xy)
    return loss_B, jax.tree.map(lambda a: a.mean(axis=0), maps)

  batches = jax.tree.map(
    lambda a: a.reshape(-1, batch_size, a.shape[1]), (x_NxT, y_NxS)
  )
  loss_MxB, maps = jax.lax.map(batch, batches)
  return Evaluation(
    loss_MxB.ravel(), jax.tree.map(lambda a: a.mean(axis=0), maps)
  )
