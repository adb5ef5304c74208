"""The optimizers that a config can choose; a part of the table in `parts`."""

from collections.abc import Callable
from typing import Any

import optax

from icl_causal import optimizers
from icl_causal.config import fields
from icl_causal.config.fields import Need
from icl_causal.config.fields import Part

_SCHEDULES: dict[str, Callable[[Any, int], optax.Schedule]] = {
  "constant": lambda rate, num_steps: optax.constant_schedule(rate),
  "cosine": optax.cosine_decay_schedule,
}


def _sgd(model, steps, learning_rate, schedule, weight_decay):
  del model
  rate = _SCHEDULES[schedule](learning_rate, steps)
  return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate))


def _adamw(model, steps, learning_rate, schedule, weight_decay, b2):
  del model
  rate = _SCHEDULES[schedule](learning_rate, steps)
  return optax.adamw(rate, b2=b2, weight_decay=weight_decay)


def _clipped_adamw(max_norm, **of_adamw):
  clip = optax.clip_by_global_norm(max_norm)
  return optax.chain(clip, _adamw(**of_adamw))


def _symmetric_adamw(**arguments):
  return optax.chain(optimizers.symmetric(), _adamw(**arguments))


def _staged_heads(model, steps, phase_steps, joint_steps, max_step, **of_adamw):
  in_phases = optimizers.num_phases(model.first_layer_heads) * phase_steps
  joint = _adamw(model, steps - in_phases, **of_adamw)
  return optimizers.staged_heads(joint, phase_steps, joint_steps, max_step)


def _first_layer_phase(phase_steps, joint_steps, **of_adamw):
  joint = _adamw(**of_adamw)
  return optimizers.first_layer_phase(joint, joint_steps, phase_steps)


def _algorithm_1(
  model,
  steps,
  learning_rate,
  second_learning_rate,
  first_steps,
  stop,
  rescale_rows,
):
  del model, steps
  return optimizers.algorithm_1(
    learning_rate, second_learning_rate, first_steps, stop, rescale_rows
  )


def _needs_model(name: str) -> Need:
  def need(config) -> str | None:
    if config.model.name != name:
      return (
        f"train.optimizer = {config.train.optimizer!r}: is for model.name = "
        f"{name!r}, not {config.model.name!r}"
      )
    return None

  return need


def _needs_beta0(config) -> str | None:
  if not config.model.beta0:
    return (
      f"train.optimizer = {config.train.optimizer!r}: needs a model.beta0 "
      "other than 0"
    )
  return None


def _needs_more_steps(num_phases: Callable[[Any], int], starts: bool) -> Need:
  """Requires joint steps after the last phase.

  Args:
    num_phases: maps a config to its number of phases.
    starts: whether training starts with a phase, or with joint steps.
  """

  def need(config) -> str | None:
    train, num = config.train, num_phases(config)
    last = num * train.phase_steps + (num - starts) * train.joint_steps
    if train.steps <= last:
      return (
        f"train.steps = {train.steps}: must be more than the {last} steps up "
        "to the end of the last phase"
      )
    return None

  return need


_SGD = {
  "schedule": fields.one_of(_SCHEDULES),
  "weight_decay": fields.NOT_NEGATIVE,
}
_ADAMW = {**_SGD, "b2": fields.BELOW_ONE}
_PHASES = {
  **_ADAMW,
  "phase_steps": fields.at_least(1),
  "joint_steps": fields.at_least(0),
}

OPTIMIZERS: dict[str, Part] = {
  "sgd": Part(_sgd, _SGD),
  "adamw": Part(_adamw, _ADAMW),
  "clipped_adamw": Part(
    _clipped_adamw, {**_ADAMW, "max_norm": fields.POSITIVE}
  ),
  "symmetric_adamw": Part(
    _symmetric_adamw, _ADAMW, (_needs_model("disentangled"),)
  ),
  "staged_heads": Part(
    _staged_heads,
    {**_PHASES, "max_step": fields.POSITIVE},
    (
      _needs_model("disentangled"),
      _needs_beta0,
      _needs_more_steps(
        lambda c: optimizers.num_phases(c.model.heads[0]), starts=True
      ),
    ),
  ),
  "first_layer_phase": Part(
    _first_layer_phase, _PHASES, (_needs_more_steps(lambda c: 1, starts=False),)
  ),
  "algorithm_1": Part(
    _algorithm_1,
    {
      "second_learning_rate": fields.POSITIVE,
      "first_steps": fields.at_least(1),
      "stop": fields.SHARE,
      "rescale_rows": fields.FLAG,
    },
    (_needs_model("reduced"),),
  ),
}
