"""From a config to the objects of the library; every field is checked here."""

from collections.abc import Callable, Mapping
import math
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict
import optax

from experiments.cli import Refused
from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import runs
from icl_causal import sampling
from icl_causal import training
from icl_causal.graphs import Graph
from icl_causal.sampling import Prompt

# An ml_collections.ConfigDict, whose fields a type checker can't know.
Config = Any

_GRAPHS = {
  "chain": lambda c, key: graphs.chain(c.T),
  "pairs": lambda c, key: graphs.pairs(c.T),
  "random_tree": lambda c, key: graphs.random_tree(key, c.T),
  "random_forest": lambda c, key: graphs.random_forest(
    key, c.T, c.root_probability
  ),
  "manual": lambda c, key: graphs.from_parents(c.parents),
}
_PRIORS = {
  "dirichlet": lambda c: priors.dirichlet(c.alpha, c.root_law),
  "floored_dirichlet": lambda c: priors.floored_dirichlet(
    c.alpha, c.gamma, c.root_law
  ),
}
_MODELS = {"disentangled": models.Disentangled, "reduced": models.Reduced}
_SCHEDULES = {
  "constant": lambda rate, _: optax.constant_schedule(rate),
  "cosine": optax.cosine_decay_schedule,
}
_OPTIMIZERS = {
  "sgd": lambda c: optax.chain(
    optax.add_decayed_weights(c.weight_decay), optax.sgd(_rate(c))
  ),
  "adamw": lambda c: optax.adamw(_rate(c), weight_decay=c.weight_decay),
  "algorithm_1": lambda c: training.algorithm_1(
    c.learning_rate,
    c.second_learning_rate,
    c.first_steps,
    c.stop,
    c.rescale_rows,
  ),
}
_STREAMS = ("graph", "init", "data", "test")


class _Field(NamedTuple):
  type: type
  holds: Callable[[Any], bool]
  allowed: str


def _one_of(names) -> _Field:
  return _Field(str, lambda v: v in names, "one of " + ", ".join(names))


def _at_least(low: int) -> _Field:
  return _Field(int, lambda v: v >= low, f"an integer of at least {low}")


_SEED = _Field(int, lambda v: 0 <= v < 2**32, "an integer from 0 to 2**32 - 1")
_POSITIVE = _Field(float, lambda v: 0 < v < math.inf, "a positive number")
_NOT_NEGATIVE = _Field(float, lambda v: 0 <= v < math.inf, "a number >= 0")
_SHARE = _Field(float, lambda v: 0 <= v <= 1, "a number from 0 to 1")

_FIELDS = {
  "seed": _SEED,
  "graph.T": _at_least(2),
  "graph.seed": _SEED,
  "graph.root_probability": _SHARE,
  "graph.parents": _Field(tuple, lambda v: True, "a tuple"),
  "prior.S": _at_least(2),
  "prior.alpha": _POSITIVE,
  "prior.gamma": _SHARE,
  "prior.root_law": _one_of(("stationary", "uniform", "dirichlet")),
  "model.heads": _Field(
    tuple,
    lambda v: len(v) > 0 and all(isinstance(h, int) and h > 0 for h in v),
    "the number of heads of each layer, such as (1, 1)",
  ),
  "model.noise": _NOT_NEGATIVE,
  "model.matching": _Field(float, math.isfinite, "a finite number"),
  "train.steps": _at_least(1),
  "train.batch_size": _at_least(1),
  "train.eval_every": _at_least(1),
  "train.learning_rate": _POSITIVE,
  "train.schedule": _one_of(_SCHEDULES),
  "train.weight_decay": _NOT_NEGATIVE,
  "train.second_learning_rate": _POSITIVE,
  "train.first_steps": _at_least(1),
  "train.stop": _SHARE,
  "train.rescale_rows": _Field(bool, lambda v: True, "True or False"),
  "train.epsilon": _NOT_NEGATIVE,
  "eval.test_size": _at_least(2),
  "eval.batch_size": _at_least(1),
  "eval.seed": _SEED,
}

# The fields that are read, in all or by the choice of a name.
_COMMON = [
  "seed",
  "prior.S",
  "prior.alpha",
  "prior.root_law",
  "train.steps",
  "train.batch_size",
  "train.eval_every",
  "train.learning_rate",
  "train.epsilon",
  "eval.test_size",
  "eval.batch_size",
  "eval.seed",
]
_CHOICES = {
  "graph.name": {
    "chain": ["graph.T"],
    "pairs": ["graph.T"],
    "random_tree": ["graph.T", "graph.seed"],
    "random_forest": ["graph.T", "graph.seed", "graph.root_probability"],
    "manual": ["graph.parents"],
  },
  "prior.name": {"dirichlet": [], "floored_dirichlet": ["prior.gamma"]},
  "model.name": {
    "disentangled": ["model.heads", "model.noise", "model.matching"],
    "reduced": ["model.matching"],
  },
  "train.optimizer": {
    "sgd": ["train.schedule", "train.weight_decay"],
    "adamw": ["train.schedule", "train.weight_decay"],
    "algorithm_1": [
      "train.second_learning_rate",
      "train.first_steps",
      "train.stop",
      "train.rescale_rows",
    ],
  },
}


def from_record(record: Mapping) -> Config:
  """The config of a run from its config.json, where tuples are lists."""
  return ConfigDict(_tuples(record))


def check(config: Config):
  """Raises Refused for the first field, or pair of fields, that can't be."""
  flat = runs.flatten(config.to_dict())
  read = list(_COMMON)
  for choice, fields_of in _CHOICES.items():
    _check_field(flat, choice, _one_of(fields_of))
    read += [choice, *fields_of[flat[choice]]]
  for name in flat:
    if name not in read:
      raise Refused(f"{name} is no field that this experiment reads")
  for name in read:
    if name not in _CHOICES:
      _check_field(flat, name, _FIELDS[name])
  for total, part in (
    ("train.steps", "train.eval_every"),
    ("eval.test_size", "eval.batch_size"),
  ):
    if flat[total] % flat[part]:
      raise Refused(
        f"{total} = {flat[total]}: must be a multiple of {part} = {flat[part]}"
      )
  for name in ("train.batch_size", "eval.test_size"):
    if flat[name] % jax.device_count():
      raise Refused(
        f"{name} = {flat[name]}: must be a multiple of the "
        f"{jax.device_count()} devices"
      )
  heads = flat.get("model.heads")
  if heads and flat["model.matching"] and len(heads) != 2:
    raise Refused(
      f"model.matching = {flat['model.matching']}: must be 0 unless there are "
      f"two layers, and model.heads = {heads!r}"
    )
  model, optimizer = flat["model.name"], flat["train.optimizer"]
  if optimizer == "algorithm_1" and model != "reduced":
    raise Refused(
      f"train.optimizer = 'algorithm_1': is for model.name = 'reduced', not "
      f"{model!r}"
    )
  if model == "reduced" and not flat["train.epsilon"]:
    raise Refused(
      "train.epsilon = 0: must be positive for model.name = 'reduced', which "
      "predicts probabilities of 0"
    )


def _check_field(flat: dict, name: str, field: _Field):
  if name not in flat:
    raise Refused(f"the config has no {name}")
  value = flat[name]
  if not _is_a(value, field.type) or not field.holds(value):
    raise Refused(f"{name} = {value!r}: must be {field.allowed}")


def _tuples(value):
  if isinstance(value, Mapping):
    return {name: _tuples(entry) for name, entry in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _is_a(value, expected: type) -> bool:
  if isinstance(value, bool) or expected is bool:
    return isinstance(value, bool) and expected is bool
  return isinstance(value, (int, float) if expected is float else expected)


def key(seed: int, stream: str) -> jax.Array:
  """The key of one of the streams of randomness that a seed feeds."""
  return jax.random.fold_in(jax.random.key(seed), _STREAMS.index(stream))


def graph(config: Config, index=None) -> Graph:
  """The causal graph.

  Args:
    config: of the run.
    index: of many graphs that one seed stands for; may be traced.
  """
  graph_key = key(config.graph.get("seed", 0), "graph")
  if index is not None:
    graph_key = jax.random.fold_in(graph_key, index)
  try:
    built = _GRAPHS[config.graph.name](config.graph, graph_key)
  except ValueError as error:
    raise Refused(f"graph: {error}") from error
  K = built.parents_TxK.shape[1]
  if K > 1 and config.prior.root_law == "stationary":
    raise Refused(
      f"prior.root_law = 'stationary': must be 'uniform' or 'dirichlet' on a "
      f"graph with up to {K} parents"
    )
  heads = config.model.get("heads", (1,))
  if K > heads[0]:
    raise Refused(
      f"model: the first layer needs at least {K} heads, one for each parent, "
      f"and has {heads[0]}"
    )
  return built


def model(config: Config, graph: Graph):
  """The model, for the sizes of the graph and the prior."""
  fields = dict(config.model)
  T = graph.parents_TxK.shape[0]
  return _MODELS[fields.pop("name")](S=config.prior.S, T=T, **fields)


def optimizer(config: Config) -> optax.GradientTransformation:
  """The optimiser with its schedule over all of the training."""
  return _OPTIMIZERS[config.train.optimizer](config.train)


def sampler(config: Config, graph: Graph, batch_size: int):
  """A function of a key that draws a batch, split over all devices."""
  split = NamedSharding(_mesh(), PartitionSpec("batch"))

  def draw(key: jax.Array) -> Prompt:
    batch = sampling.sample_batch(
      key, graph, prior(config), config.prior.S, batch_size
    )
    return jax.lax.with_sharding_constraint(batch, split)

  return draw


def prior(config: Config) -> priors.Prior:
  """The law of the kernels."""
  return _PRIORS[config.prior.name](config.prior)


def replicate(tree):
  """The arrays of a tree on every device."""
  return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def _rate(c: Config) -> optax.Schedule:
  return _SCHEDULES[c.schedule](c.learning_rate, c.steps)


def _mesh() -> Mesh:
  devices = (jax.device_count(),)
  return jax.make_mesh(devices, ("batch",), axis_types=(AxisType.Auto,))
