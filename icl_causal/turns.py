"""Turns: the first layer finds the parents while the rest of the model rests.

Layer 2 learns early to leave out positions whose row of layer 1 is not ready,
and these have no gradient any more. `first_layer_turn` lets all rows of any
model get ready first. `in_turns` does so head by head:

From a symmetric start all heads of the first layer have the same gradient, and
follow the parent that the query shows by itself, the last position. Once one
head has found it and the model makes use of that, the gradient of a head that
still attends everywhere alike points to the next parent: what it copies is
held against what it copies at the query. So each head takes its turn, with the
position block of its A1 as the only parameters, as in stage 1 of Algorithm 1,
and between turns all that belongs to the heads so far is trained together. At
last the first head, if there are others, has a second turn from zero, now that
these tell it more than it knew at first. Both are ours.
"""

from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
import optax


class TurnsState(NamedTuple):
  """What training with turns carries from step to step.

  Attributes:
    step: int32, the steps taken.
    joint: the state of the optimiser of joint training.
  """

  step: jax.Array
  joint: Any


def in_turns(
  joint: optax.GradientTransformation, turn_steps: int, joint_steps: int, stride
) -> optax.GradientTransformation:
  """Turns of single heads, each before joint training; for `Disentangled`.

  A turn starts its head's A1 from zero. Its steps are gradient descent on the
  position block, with row i of the gradient, counted from 1, multiplied by i,
  and the largest change of an entry is `stride` in every step: so neither the
  size of the model nor how much is known already sets the pace. Roots have
  small gradients, of noise and of finite T, and stay behind. Parameters that
  belong to heads whose turn is still to come rest, and so do the moments of
  `joint` during turns. Ours.

  Args:
    joint: the optimiser of joint training; its steps are those alone.
    turn_steps: of every turn.
    joint_steps: between two turns.
    stride: in logits; may be traced.
  """

  def init(params):
    return TurnsState(jnp.int32(0), joint.init(params))

  def update(updates, state, params=None):
    if params is None:
      raise ValueError("a turn starts from zero: update needs the parameters")
    order = jnp.array(_order(len(params["A1"])))
    turn = jnp.minimum(state.step // (turn_steps + joint_steps), len(order) - 1)
    since = state.step - turn * (turn_steps + joint_steps)
    latest = jnp.where(jnp.arange(len(order)) <= turn, order, 0).max()
    alone = _turn(updates, params, order[turn], since == 0, stride)
    known = _without_heads_after(latest, updates)
    together, joint_state = joint.update(known, state.joint, params)
    together = _without_heads_after(latest, together)
    updates, joint_state = jax.tree.map(
      lambda a, b: jnp.where(since < turn_steps, a, b),
      (alone, state.joint),
      (together, joint_state),
    )
    return updates, TurnsState(state.step + 1, joint_state)

  return optax.GradientTransformation(init, update)


def first_layer_turn(
  joint: optax.GradientTransformation, joint_steps: int, turn_steps: int
) -> optax.GradientTransformation:
  """Joint training in which A1 alone moves for a while; for every model.

  A zero start says nothing of the parents until the rest of the model has made
  a beginning, so joint steps come first. Ours.

  Args:
    joint: the optimiser of joint training. It goes on during the turn; what it
      would have other parameters do is left out.
    joint_steps: before the turn.
    turn_steps: of the turn.
  """

  def init(params):
    return TurnsState(jnp.int32(0), joint.init(params))

  def update(updates, state, params=None):
    updates, joint_state = joint.update(updates, state.joint, params)
    since = state.step - joint_steps
    rests = (since >= 0) & (since < turn_steps)
    updates = _only_A1_where(rests, updates)
    return updates, TurnsState(state.step + 1, joint_state)

  return optax.GradientTransformation(init, update)


def num_turns(num_heads: int) -> int:
  """How many turns `in_turns` has."""
  return len(_order(num_heads))


def _order(num_heads: int) -> list[int]:
  """The head of each turn."""
  return [*range(num_heads), *([0] if num_heads > 1 else [])]


def _turn(gradient, params, head, begins, stride):
  """The updates of a step of a head's turn."""
  A1_HxDxD = gradient["A1"]
  S = gradient["W"].shape[1]
  T = A1_HxDxD.shape[1] - S
  is_mine_H = jnp.arange(len(A1_HxDxD)) == head
  rescaled_HxT = is_mine_H[:, None] * jnp.arange(1, T + 1)[None]
  rows_HxTxT = A1_HxDxD[:, S:, S:] * rescaled_HxT[:, :, None]
  largest = jnp.maximum(jnp.abs(rows_HxTxT).max(), 1e-30)
  step = jnp.zeros_like(A1_HxDxD)
  step = step.at[:, S:, S:].set(-stride * rows_HxTxT / largest)
  to_zero = (is_mine_H & begins)[:, None, None]
  rest = jax.tree.map(jnp.zeros_like, gradient)
  return rest | {"A1": jnp.where(to_zero, -params["A1"], 0) + step}


def _only_A1_where(rests, updates: Any) -> dict:
  """The updates, with zeros for all but A1 where the others rest."""
  rest = jax.tree.map(lambda leaf: jnp.where(rests, 0, leaf), updates)
  return rest | {"A1": updates["A1"]}


def _without_heads_after(latest, tree: Any) -> dict:
  """The tree with zeros for all that reads, or is, what later heads copy."""
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
