"""Training as pure functions: a state, a scan of steps, an evaluation."""

from collections.abc import Callable
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
from jax import numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec
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


class Steps(NamedTuple):
  """What was seen in N steps, each before its update.

  Attributes:
    loss_N: the mean over the step's batch, in nats.
    gradient_norm_N: the Euclidean norm over all parameters.
  """

  loss_N: jax.Array
  gradient_norm_N: jax.Array


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
  chunk_size: int | None = None,
  mesh: Mesh | None = None,
) -> tuple[TrainState, Steps]:
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
    chunk_size: as for `loss_and_gradient`.
    mesh: as for `loss_and_gradient`.

  Returns:
    The new state, and what was seen in each step.
  """

  def step(state, _):
    batch = draw(jax.random.fold_in(key, state.step))
    loss, gradient = loss_and_gradient(
      state.params, batch, model, epsilon, chunk_size, mesh
    )
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1), Steps(
      loss, optax.tree.norm(gradient)
    )

  return jax.lax.scan(step, state, length=num_steps)


def loss_and_gradient(
  params,
  batch: Prompt,
  model: nn.Module,
  epsilon: float = 0.0,
  chunk_size: int | None = None,
  mesh: Mesh | None = None,
):
  """The mean loss of a batch, and its gradient.

  Args:
    params: where to take it.
    batch: prompts along a leading axis.
    model: maps tokens to (f_S, out).
    epsilon: of the loss.
    chunk_size: how many prompts are worked on at a time, by default all; it
      divides the batch, or a device's share of it. Less takes less memory.
    mesh: of one axis; each device works on a share of the batch, and all have
      the result.
  """

  def of_share(params, batch):
    one = jax.value_and_grad(_mean_loss)
    share = len(batch.x_T)
    size = chunk_size or share
    if share % size:
      raise ValueError(f"{share} prompts do not divide into chunks of {size}")
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
    check_vma=False,  # or the gradient would be summed over devices here too
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
    params: where to take it.
    key: of the data.
    num_batches: at least 2; static.
    model: maps tokens to (f_S, out).
    draw: a batch of prompts from a key.
    epsilon: of the loss.

  Returns:
    (gradient, standard_error), each like `params`.
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


class AlgorithmState(NamedTuple):
  """What Algorithm 1 carries from step to step.

  Attributes:
    step: int32, the steps taken.
    first_steps: int32, how many of them belong to stage 1.
  """

  step: jax.Array
  first_steps: jax.Array


def algorithm_1(
  first_rate,
  second_rate,
  max_first_steps,
  stop=1.0,
  rescale_rows: bool = False,
) -> optax.GradientTransformation:
  """Algorithm 1 of the paper as an optimiser of `models.Reduced`.

  Stage 1 is gradient descent on A1 alone, stage 2 on A2 alone. Stage 1 ends
  after `max_first_steps`, or before that as soon as the median row is decided:
  of the rows with more than half of their attention on one position, half have
  a share of `stop` on it. Roots have a gradient too, of noise and of finite T,
  and would drift towards some position if stage 1 went on. The stop looks at
  A1 alone, and is ours, as is the choice of all rates.

  Args:
    first_rate: learning rate of stage 1; may be traced, like all that follow.
    second_rate: learning rate of stage 2.
    max_first_steps: of stage 1.
    stop: the share of attention.
    rescale_rows: multiplies row i, counted from 1, of the gradient of A1 by i.
      The gradient has a factor 1/i, which makes late positions slow.
  """

  def init(params):
    del params
    return AlgorithmState(jnp.int32(0), jnp.int32(0))

  def update(updates, state, params=None):
    if params is None:
      raise ValueError("Algorithm 1 looks at A1: update needs the parameters")
    in_first = (state.first_steps == state.step) & (
      state.step < max_first_steps
    )
    in_first &= ~_median_row_decided(params["A1"], stop)
    A1_TxT = updates["A1"]
    if rescale_rows:
      A1_TxT *= jnp.arange(1, len(A1_TxT) + 1)[:, None]
    updates = {
      "A1": jnp.where(in_first, -first_rate, 0) * A1_TxT,
      "A2": jnp.where(in_first, 0, -second_rate) * updates["A2"],
    }
    return updates, AlgorithmState(
      state.step + 1, state.first_steps + in_first.astype(jnp.int32)
    )

  return optax.GradientTransformation(init, update)


def _mean_loss(params, batch: Prompt, model: nn.Module, epsilon):
  f_BxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
    batch.x_T
  )
  return jax.vmap(metrics.loss, (0, 0, None))(f_BxS, batch.y_S, epsilon).mean()


def _median_row_decided(A1_TxT, stop):
  """Whether half of the rows that are above 1/2 somewhere are above `stop`.

  Row 0, which can attend to itself alone, does not count, nor does the query's,
  which learns to attend to itself long before the others.
  """
  mask_TxT = jnp.tri(len(A1_TxT), dtype=bool)
  attention = jax.nn.softmax(jnp.where(mask_TxT, A1_TxT, -jnp.inf))
  largest = attention[1:-1].max(axis=1)
  decided = (largest >= stop).sum()
  return (decided > 0) & (2 * decided >= (largest > 0.5).sum())


def evaluate(
  params, model: nn.Module, x_NxT, y_NxS, batch_size: int, epsilon: float = 0.0
) -> Evaluation:
  """The model on a test set, `batch_size` prompts at a time.

  What is scored is the law (f + epsilon) / (1 + S epsilon), so that the loss is
  that of a predictor and can be held against others'. It is the loss that was
  trained plus the constant log(1 + S epsilon).

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
    smooth_S = (f_S + epsilon) / (1 + f_S.size * epsilon)
    return metrics.loss(smooth_S, y_S), maps

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
