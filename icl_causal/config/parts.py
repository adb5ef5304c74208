"""What each name in a config means: one table for each kind of part.

A `Part` has a function that builds an object of the library, the fields of its
group of the config, and rules that the config must satisfy. `make` takes the
fields as keyword arguments, and also:

    graph      nothing                        -> graphs.Graph
    prior      alpha, root_law                -> a prior (key, S, K) -> kernel
    model      S, T                           -> a Flax module
    optimizer  model, steps, learning_rate    -> optax.GradientTransformation

Numbers may be traced. `register` adds a custom part.
"""

from collections.abc import Callable, Mapping, Sequence
import types
from typing import Any, NamedTuple

from jax import numpy as jnp
import optax

from icl_causal import graphs
from icl_causal import models
from icl_causal import optimizers
from icl_causal import priors
from icl_causal.config import fields
from icl_causal.config import streams
from icl_causal.config.fields import ConfigError
from icl_causal.config.fields import Field

# Maps a config to an error message, or to None if the config is valid.
Need = Callable[[Any], str | None]
_NO_FIELDS: Mapping[str, Field] = types.MappingProxyType({})


class Part(NamedTuple):
  """What a name in a config means.

  Attributes:
    make: builds the object; takes the fields as keyword arguments.
    fields: the type and range of each field, by its name in the group.
    needs: rules between fields; each returns a message if it is violated.
  """

  make: Callable[..., Any]
  fields: Mapping[str, Field] = _NO_FIELDS
  needs: Sequence[Need] = ()


def register(kind: str, name: str, part: Part):
  """Adds a custom part, which a config can then choose by its name.

  Call it in the config file that uses the part. A second call with the same
  name replaces the part.

  Args:
    kind: `graph`, `prior`, `model` or `optimizer`.
    name: not the name of a built-in part.
    part: what the name means.

  Raises:
    ConfigError: for an unknown kind, or the name of a built-in part.
  """
  if kind not in KINDS:
    raise ConfigError(f"kind {kind!r} must be one of {', '.join(KINDS)}")
  if name in BUILT_IN[kind]:
    raise ConfigError(f"{kind} {name!r} is built in: choose another name")
  KINDS[kind].table[name] = part


def _random_tree(seed, T: int):
  return graphs.random_tree(streams.key(jnp.uint32(seed), "graph"), T)


def _random_forest(seed, T: int, root_probability: float):
  graph_key = streams.key(jnp.uint32(seed), "graph")
  return graphs.random_forest(graph_key, T, root_probability)


def _manual(parents, target):
  return graphs.from_parents(parents, target or None)


_T = {"T": fields.at_least(2)}
_SEEDED = {**_T, "seed": fields.SEED}

GRAPHS: dict[str, Part] = {
  "chain": Part(graphs.chain, _T),
  "pairs": Part(graphs.pairs, _T),
  "random_tree": Part(_random_tree, _SEEDED),
  "random_forest": Part(
    _random_forest, {**_SEEDED, "root_probability": fields.SHARE}
  ),
  "kgram": Part(graphs.kgram, {**_T, "k": fields.at_least(1)}),
  "half_and_previous": Part(graphs.half_and_previous, _T),
  "manual": Part(_manual, {"parents": fields.TUPLE, "target": fields.TUPLE}),
}

PRIORS: dict[str, Part] = {
  "dirichlet": Part(priors.dirichlet),
  "floored_dirichlet": Part(priors.floored_dirichlet, {"gamma": fields.SHARE}),
}


def _needs_epsilon(config) -> str | None:
  if not config.train.epsilon:
    return (
      "train.epsilon = 0: must be positive for model.name = 'reduced', which "
      "predicts probabilities of 0"
    )
  return None


def _needs_two_layers(config) -> str | None:
  if config.model.beta0 and len(config.model.heads) != 2:
    return (
      f"model.beta0 = {config.model.beta0}: must be 0 unless there are two "
      f"layers, and model.heads = {config.model.heads!r}"
    )
  return None


def _needs_layers(config) -> str | None:
  if len(config.model.heads) < 2:
    return (
      f"model.heads = {config.model.heads!r}: must have an entry for each of "
      "two layers or more; the last layer is computed at the last position only"
    )
  return None


_HEADS = {"heads": fields.tuple_of(fields.at_least(1))}

MODELS: dict[str, Part] = {
  "disentangled": Part(
    models.Disentangled,
    {**_HEADS, "noise": fields.NOT_NEGATIVE, "beta0": fields.FINITE},
    (_needs_two_layers, _needs_layers),
  ),
  "reduced": Part(models.Reduced, {"beta0": fields.FINITE}, (_needs_epsilon,)),
  "standard": Part(
    models.Standard,
    {
      **_HEADS,
      "width": fields.at_least(1),
      "mlp": fields.one_of(models.MLPS),
      "norm": fields.FLAG,
      "scaled": fields.FLAG,
      "orthonormal": fields.FLAG,
      "beta0": fields.FINITE,
      "sinks": fields.tuple_of(fields.FINITE),
      "scaled_biases": fields.FLAG,
    },
    (_needs_layers,),
  ),
}

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


class Kind(NamedTuple):
  """Where a config chooses a part of one kind.

  Attributes:
    table: the parts by name.
    group: the group of the config that has the fields.
    choice: the field of the group that has the name of the part.
    common: the fields of the group that every part has.
  """

  table: dict[str, Part]
  group: str
  choice: str
  common: Mapping[str, Field]


_OF_PRIORS = {
  "S": fields.at_least(2),
  "alpha": fields.ALPHA,
  "root_law": fields.one_of(priors.ROOT_LAWS),
}
_OF_TRAINING = {
  "steps": fields.at_least(1),
  "batch_size": fields.at_least(1),
  "eval_every": fields.at_least(1),
  "learning_rate": fields.POSITIVE,
  "epsilon": fields.NOT_NEGATIVE,
}

KINDS = {
  "graph": Kind(GRAPHS, "graph", "name", {}),
  "prior": Kind(PRIORS, "prior", "name", _OF_PRIORS),
  "model": Kind(MODELS, "model", "name", {}),
  "optimizer": Kind(OPTIMIZERS, "train", "optimizer", _OF_TRAINING),
}
BUILT_IN = {kind: frozenset(KINDS[kind].table) for kind in KINDS}


def chosen(config: Any, kind: str) -> tuple[Part, dict[str, Any]]:
  """The part that a config chooses, and its fields as keyword arguments."""
  table, group, choice, _ = KINDS[kind]
  part = table[config[group][choice]]
  return part, {name: config[group][name] for name in part.fields}
