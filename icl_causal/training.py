"""Training as pure functions: a state and a scan over steps."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec
import optax

from icl_causal import evaluation
from icl_causal import metrics
from icl_causal.evaluation import Evaluation as Evaluation
from icl_causal.evaluation import evaluate as evaluate
from icl_causal.sampling import Prompt


class TrainState(NamedTuple):
  """The state of a training run.

  Attributes:
    params: the model's parameters by name.
    opt_state: the optimizer's state.
    step: int32, number of steps taken.
  """

  params: optax.Params
  opt_state: optax.OptState
  step: jax.Array


class Steps(NamedTuple):
  """Metrics of N steps, each computed before the update; NaN if not taken.

  Attributes:
    loss_N: the mean loss of the batch, in nats.
    gradient_norm_N: the Euclidean norm of the gradient of all parameters.
  """

  loss_N: jax.Array
  gradient_norm_N: jax.Array


def init(
  key, model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainState:
  """The initial state: step 0, parameters initialized from `key`."""
  params = model.init(key, jnp.zeros(model.T, jnp.int32))["params"]
  return TrainState(params, optimizer.init(params), jnp.int32(0))


def train(
  state: TrainState,
  key,
  num_steps,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  draw: Callable[[jax.Array], Prompt],
  epsilon: float = 0.0,
  chunk_size: int | None = None,
  mesh: Mesh | None = None,
  max_steps: int | None = None,
) -> tuple[TrainState, Steps]:
  """Trains all parameters jointly, with a fresh batch in each step.

  The batch of a step depends only on `key` and the step number, so several
  calls give the same run as one call with all steps. Pass everything but
  `state` and `key` as keywords; it is static under `jit`:

    step = functools.partial(
      training.train, num_steps=64, model=model, optimizer=optimizer, draw=draw
    )
    state, steps = jax.jit(step)(state, key)

  Args:
    state: the state to continue from.
    key: of the data; the same in every call of a run.
    num_steps: number of steps.
    model: maps tokens to (f_S, out).
    optimizer: minimizes the mean loss of a batch.
    draw: maps a key to a batch of prompts.
    epsilon: as in `metrics.loss`.
    chunk_size: as for `loss_and_gradient`.
    mesh: as for `loss_and_gradient`.
    max_steps: the length of the metrics, by default `num_steps`. With it,
      `num_steps` may be traced: one compiled program takes any number of steps
      up to it.

  Returns:
    (state, steps): the new state and the metrics of each step.
  """

  def step(i, carry):
    state, steps = carry
    batch = draw(jax.random.fold_in(key, state.step))
    loss, gradient = loss_and_gradient(
      state.params, batch, model, epsilon, chunk_size, mesh
    )
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    taken = Steps(loss, optax.tree.norm(gradient))
    steps = jax.tree.map(lambda a_N, a: a_N.at[i].set(a), steps, taken)
    return TrainState(params, opt_state, state.step + 1), steps

  none_N = jnp.full(max_steps or num_steps, jnp.nan)
  return jax.lax.fori_loop(0, num_steps, step, (state, Steps(none_N, none_N)))


def loss_and_gradient(
  params,
  batch: Prompt,
  model: nn.Module,
  epsilon: float = 0.0,
  chunk_size: int | None = None,
  mesh: Mesh | None = None,
):
  """The mean loss of a batch in nats, and its gradient.

  Args:
    params: of the model.
    batch: prompts along a leading axis.
    model: maps tokens to (f_S, out).
    epsilon: as in `metrics.loss`.
    chunk_size: number of prompts per forward and backward pass, by default all;
      must divide the batch, or a device's share of it. Smaller chunks take less
      memory.
    mesh: with one axis, over which the batch is split. The result is replicated
      on all devices.

  Returns:
    (loss, gradient), the gradient with the structure of `params`.

  Raises:
    ValueError: if the chunk size does not divide the batch.
  """

  def of_share(params, batch):
    one = jax.value_and_grad(_mean_loss)
    share = len(batch.x_T)
    size = evaluation.size_of_chunks(chunk_size, share)
    if size == share:
      return one(params, batch, model, epsilon)
    chunks = jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), batch)

    def add(total, chunk):
      terms = one(params, chunk, model, epsilon)
      weight = size / share
      return jax.tree.map(lambda a, b: a + weight * b, total, terms), None

    zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, zeros, chunks)[0]

  batch = batch._replace(kernel=None)
  if mesh is None:
    return of_share(params, batch)
  (axis,) = mesh.axis_names
  return jax.shard_map(
    lambda params, batch: jax.lax.pmean(of_share(params, batch), axis),
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec(axis)),
    out_specs=PartitionSpec(),
    check_vma=False,  # True would sum the gradient over devices as well
  )(params, batch)


def mean_gradient(
  params,
  key,
  num_batches: int,
  model: nn.Module,
  draw: Callable[[jax.Array], Prompt],
  epsilon: float = 0.0,
):
  """The gradient of the loss, averaged over batches of fresh data.

  Args:
    params: of the model.
    key: of the data.
    num_batches: at least 2; static.
    model: maps tokens to (f_S, out).
    draw: maps a key to a batch of prompts.
    epsilon: as in `metrics.loss`.

  Returns:
    (gradient, standard_error), each with the structure of `params`; the
    standard error is over batches.
  """

  def add(sums, key):
    gradient = jax.grad(_mean_loss)(params, draw(key), model, epsilon)
    terms = gradient, jax.tree.map(jnp.square, gradient)
    return jax.tree.map(jnp.add, sums, terms), None

  zeros = jax.tree.map(jnp.zeros_like, params)
  (total, squares), _ = jax.lax.scan(
    add, (zeros, zeros), jax.random.split(key, num_batches)
  )
  mean = jax.tree.map(lambda a: a / num_batches, total)
  error = jax.tree.map(
    lambda a, m: jnp.sqrt(
      jnp.maximum(a / num_batches - m**2, 0) / (num_batches - 1)
    ),
    squares,
    mean,
  )
  return mean, error


def _mean_loss(params, batch: Prompt, model: nn.Module, epsilon):
  f_BxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
    batch.x_T
  )
  return jax.vmap(metrics.loss, (0, 0, None))(f_BxS, batch.y_S, epsilon).mean()
