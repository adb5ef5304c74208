"""Optax transformations with phases that train layer 1 alone.

`algorithm_1` is Algorithm 1 of the paper. The other optimizers are ours.

Layer 2 learns early to ignore positions whose row of layer 1 is not learned
yet; these rows then get no gradient. `first_layer_phase` trains layer 1 of any
model alone for a number of steps. `staged_heads` does so head by head:

From a symmetric start, all heads of layer 1 have the same gradient. At the
start the query contains the token of one parent of the target only, the last
position. The gradient therefore points to the parents in the slot of the last
position. Once one head attends to these parents and the model uses it, the
gradient of a head that still attends uniformly points to the parents in the
next slot, since it compares the token that the head copies with the token that
it copies at the query. Each head therefore has a separate phase, in which only
the position block of its A1 is trained, as in stage 1 of Algorithm 1. Between
phases the parameters of all heads that have had a phase are trained jointly.
With several heads, head 0 is reset and retrained at the end, since the other
heads now disambiguate its target.
"""

from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
import optax

from icl_causal import symmetry


class AlgorithmState(NamedTuple):
  """The state of `algorithm_1`.

  Attributes:
    step: int32, number of steps taken.
    first_steps: int32, number of steps of stage 1 so far.
  """

  step: jax.Array
  first_steps: jax.Array


class PhaseState(NamedTuple):
  """The state of `staged_heads` and of `first_layer_phase`.

  Attributes:
    step: int32, number of steps taken.
    joint: the state of the joint optimizer.
  """

  step: jax.Array
  joint: Any


def algorithm_1(
  first_rate,
  second_rate,
  max_first_steps,
  stop=1.0,
  rescale_rows: bool = False,
) -> optax.GradientTransformation:
  """Algorithm 1 of the paper, an optimizer for `models.Reduced`.

  Stage 1 is gradient descent on A1 alone, stage 2 on A2 alone. Stage 1 ends
  after `max_first_steps`, or earlier by a stopping rule: of the rows with more
  than half of their attention on one position, at least half have attention
  `stop` or more on it. Without the rule, the rows of roots drift towards some
  position, since noise and finite T give them a gradient as well. The rule
  depends on A1 only. The rule and all rates are ours.

  Args:
    first_rate: learning rate of stage 1; may be traced.
    second_rate: learning rate of stage 2; may be traced.
    max_first_steps: maximum number of steps of stage 1; may be traced.
    stop: attention threshold of the stopping rule; may be traced.
    rescale_rows: multiplies row i of the gradient of A1 by i, counted from 1.
      This cancels a factor 1/i, which slows the learning of late positions.
  """

  def init(params):
    del params
    return AlgorithmState(jnp.int32(0), jnp.int32(0))

  def update(updates, state, params=None):
    if params is None:
      raise ValueError("Algorithm 1 reads A1: update needs the parameters")
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


def staged_heads(
  joint: optax.GradientTransformation,
  phase_steps: int,
  joint_steps: int,
  max_step,
) -> optax.GradientTransformation:
  """Phases that train single heads, with joint training between them.

  For `models.Disentangled`. A phase trains the position block of its head's A1
  by gradient descent. With several heads, the first step of the last phase only
  resets A1 to zero, since its gradient belongs to the A1 before. Row i of the
  gradient, counted from 1, is multiplied by i, and the gradient is scaled such
  that its largest entry changes A1 by `max_step`. The rate of change then
  depends neither on the size of the model nor on the progress of training. The
  rows of roots change less, since their gradients are small and come from noise
  and finite T only.
  Parameters of heads that have not had a phase are frozen. The state of `joint`
  is frozen during phases. Ours.

  Args:
    joint: the optimizer of joint training; its state counts joint steps only.
    phase_steps: number of steps of each phase.
    joint_steps: number of joint steps between two phases.
    max_step: largest change of an entry of A1 per step; may be traced.
  """

  def init(params):
    return PhaseState(jnp.int32(0), joint.init(params))

  def update(updates, state, params=None):
    if params is None:
      raise ValueError("a phase resets A1: update needs the parameters")
    order = jnp.array(_order(len(params["A1"])))
    period = phase_steps + joint_steps
    phase = jnp.minimum(state.step // period, len(order) - 1)
    since = state.step - phase * period
    latest = jnp.where(jnp.arange(len(order)) <= phase, order, 0).max()
    resets = (since == 0) & (phase >= len(params["A1"]))
    head_updates = _phase_step(updates, params, order[phase], resets, max_step)
    gradient = _without_heads_after(latest, updates)
    joint_updates, joint_state = joint.update(gradient, state.joint, params)
    joint_updates = _without_heads_after(latest, joint_updates)
    updates, joint_state = jax.tree.map(
      lambda a, b: jnp.where(since < phase_steps, a, b),
      (head_updates, state.joint),
      (joint_updates, joint_state),
    )
    return updates, PhaseState(state.step + 1, joint_state)

  return optax.GradientTransformation(init, update)


def first_layer_phase(
  joint: optax.GradientTransformation, joint_steps: int, phase_steps: int
) -> optax.GradientTransformation:
  """Joint training with one phase that trains A1 alone; for any model.

  From a zero start, the gradient of A1 is zero until the other parameters have
  changed, so joint steps precede the phase. Ours.

  Args:
    joint: the optimizer of joint training. During the phase its state is
      updated as usual, and its updates of all parameters but A1 are zeroed.
    joint_steps: number of joint steps before the phase.
    phase_steps: number of steps of the phase.
  """

  def init(params):
    return PhaseState(jnp.int32(0), joint.init(params))

  def update(updates, state, params=None):
    updates, joint_state = joint.update(updates, state.joint, params)
    since = state.step - joint_steps
    in_phase = (since >= 0) & (since < phase_steps)
    updates = _only_A1_where(in_phase, updates)
    return updates, PhaseState(state.step + 1, joint_state)

  return optax.GradientTransformation(init, update)


def symmetric() -> optax.GradientTransformation:
  """Averages gradients over all relabellings of the states.

  For `models.Disentangled`; see `symmetry.relabelling_mean`. Ours.
  """
  return optax.stateless(
    lambda updates, params: symmetry.relabelling_mean(updates)
  )


def num_phases(num_heads: int) -> int:
  """The number of phases of `staged_heads`."""
  return len(_order(num_heads))


def _order(num_heads: int) -> list[int]:
  """The head of each phase."""
  return [*range(num_heads), *([0] if num_heads > 1 else [])]


def _phase_step(gradient, params, head, resets, max_step):
  """The updates of one step of a head's phase."""
  A1_HxDxD = gradient["A1"]
  S = gradient["W"].shape[1]
  T = A1_HxDxD.shape[1] - S
  is_head_H = jnp.arange(len(A1_HxDxD)) == head
  rescaled_HxT = is_head_H[:, None] * jnp.arange(1, T + 1)[None]
  rows_HxTxT = A1_HxDxD[:, S:, S:] * rescaled_HxT[:, :, None]
  largest = jnp.maximum(jnp.abs(rows_HxTxT).max(), 1e-30)
  step = jnp.zeros_like(A1_HxDxD)
  step = step.at[:, S:, S:].set(-max_step * rows_HxTxT / largest)
  reset = -params["A1"] * is_head_H[:, None, None]
  zeros = jax.tree.map(jnp.zeros_like, gradient)
  return zeros | {"A1": jnp.where(resets, reset, step)}


def _only_A1_where(in_phase, updates: Any) -> dict:
  """The updates, with zeros for all but A1 where `in_phase`."""
  others = jax.tree.map(lambda leaf: jnp.where(in_phase, 0, leaf), updates)
  return others | {"A1": updates["A1"]}


def _without_heads_after(latest, tree: Any) -> dict:
  """The tree with zeros for the parameters of later heads.

  These are their A1, and the rows and columns of other parameters that read
  what they copy.
  """
  num_heads, D = tree["A1"].shape[:2]
  is_known_H = jnp.arange(num_heads) <= latest
  # The stream after layer 1: tokens and positions, then what each head copies.
  stream = jnp.repeat(jnp.append(True, is_known_H), D)
  masks = {"A1": is_known_H[:, None, None]}
  for name, leaf in tree.items():
    if name != "A1":
      rows = jnp.tile(stream, leaf.shape[-2] // stream.size)
      columns = rows if name != "W" else jnp.ones(leaf.shape[-1], bool)
      masks[name] = rows[:, None] & columns[None]
  return {name: _masked(leaf, masks[name]) for name, leaf in tree.items()}


def _masked(leaf, mask):
  return jnp.where(jnp.broadcast_to(mask, leaf.shape), leaf, 0)


def _median_row_decided(A1_TxT, stop):
  """Whether at least half of the peaked rows have attention `stop` or more.

  A row is peaked if it has more than half of its attention on one position. Row
  0, which attends to itself, is excluded. So is the row of the query, which
  learns to attend to itself long before the others.
  """
  mask_TxT = jnp.tri(len(A1_TxT), dtype=bool)
  attention = jax.nn.softmax(jnp.where(mask_TxT, A1_TxT, -jnp.inf))
  largest = attention[1:-1].max(axis=1)
  decided = (largest >= stop).sum()
  return (decided > 0) & (2 * decided >= (largest > 0.5).sum())
