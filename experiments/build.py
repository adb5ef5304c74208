"""From a config to the objects of the library; every field is checked here."""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import optax

from experiments.cli import Refused
from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import runs
from icl_causal import sampling
from icl_causal.graphs import Graph
from icl_causal.sampling import Prompt

# An ml_collections.ConfigDict, whose fields a type checker can't know.
Config = Any

_GRAPHS = {
  "chain": lambda c: graphs.chain(c.T),
  "pairs": lambda c: graphs.pairs(c.T),
  "random_tree": lambda c: graphs.random_tree(key(c.seed, "graph"), c.T),
  "manual": lambda c: graphs.from_parents(c.parents),
}
_PRIORS = {"dirichlet": lambda c: priors.dirichlet(c.alpha, c.root_law)}
_MODELS = {"disentangled": models.Disentangled}
_SCHEDULES = {
  "constant": lambda rate, _: optax.constant_schedule(rate),
  "cosine": optax.cosine_decay_schedule,
}
_OPTIMIZERS = {
  "sgd": lambda rate, decay: optax.chain(
    optax.add_decayed_weights(decay), optax.sgd(rate)
  ),
  "adamw": lambda rate, decay: optax.adamw(rate, weight_decay=decay),
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

_GRAPH_FIELDS = {
  "graph.name": _one_of(_GRAPHS),
  "graph.T": _at_least(2),
  "graph.seed": _SEED,
  "graph.parents": _Field(tuple, lambda v: True, "a tuple"),
}
_FIELDS = {
  "seed": _SEED,
  "prior.name": _one_of(_PRIORS),
  "prior.S": _at_least(2),
  "prior.alpha": _POSITIVE,
  "prior.root_law": _one_of(("stationary", "uniform", "dirichlet")),
  "model.name": _one_of(_MODELS),
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
  "train.optimizer": _one_of(_OPTIMIZERS),
  "train.learning_rate": _POSITIVE,
  "train.schedule": _one_of(_SCHEDULES),
  "train.weight_decay": _NOT_NEGATIVE,
  "train.epsilon": _NOT_NEGATIVE,
  "eval.test_size": _at_least(2),
  "eval.batch_size": _at_least(1),
  "eval.seed": _SEED,
}


def check(config: Config):
  """Raises Refused for the first field, or pair of fields, that can't be."""
  flat = runs.flatten(config.to_dict())
  for name, value in flat.items():
    field = {**_GRAPH_FIELDS, **_FIELDS}.get(name)
    if field is None:
      raise Refused(f"{name} is no field that any experiment reads")
    if not _is_a(value, field.type) or not field.holds(value):
      raise Refused(f"{name} = {value!r}: must be {field.allowed}")
  missing = [name for name in _FIELDS if name not in flat]
  if missing:
    raise Refused(f"the config has no {missing[0]}")
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
  heads = flat["model.heads"]
  if flat["model.matching"] and len(heads) != 2:
    raise Refused(
      f"model.matching = {flat['model.matching']}: must be 0 unless there are "
      f"two layers, and model.heads = {heads!r}"
    )


def _is_a(value, expected: type) -> bool:
  if isinstance(value, bool):
    return False
  return isinstance(value, (int, float) if expected is float else expected)


def key(seed: int, stream: str) -> jax.Array:
  """The key of one of the streams of randomness that a seed feeds."""
  return jax.random.fold_in(jax.random.key(seed), _STREAMS.index(stream))


def graph(config: Config) -> Graph:
  """The causal graph."""
  try:
    built = _GRAPHS[config.graph.name](config.graph)
  except AttributeError as error:
    raise Refused(f"graph: a field is missing: {error}") from error
  except ValueError as error:
    raise Refused(f"graph: {error}") from error
  K = built.parents_TxK.shape[1]
  if K > 1 and config.prior.root_law == "stationary":
    raise Refused(
      f"prior.root_law = 'stationary': must be 'uniform' or 'dirichlet' on a "
      f"graph with up to {K} parents"
    )
  if K > config.model.heads[0]:
    raise Refused(
      f"model.heads = {config.model.heads!r}: the first layer needs at least "
      f"{K} heads, one for each parent"
    )
  return built


def model(config: Config, graph: Graph):
  """The model, for the sizes of the graph and the prior."""
  fields = dict(config.model)
  T = graph.parents_TxK.shape[0]
  return _MODELS[fields.pop("name")](S=config.prior.S, T=T, **fields)


def optimizer(config: Config) -> optax.GradientTransformation:
  """The optimiser with its schedule over all of the training."""
  c = config.train
  rate = _SCHEDULES[c.schedule](c.learning_rate, c.steps)
  return _OPTIMIZERS[c.optimizer](rate, c.weight_decay)


def sampler(config: Config, graph: Graph, batch_size: int):
  """A function of a key that draws a batch, split over all devices."""
  prior = _PRIORS[config.prior.name](config.prior)
  split = NamedSharding(_mesh(), PartitionSpec("batch"))

  def draw(key: jax.Array) -> Prompt:
    batch = sampling.sample_batch(key, graph, prior, config.prior.S, batch_size)
    return jax.lax.with_sharding_constraint(batch, split)

  return draw


def replicate(tree):
  """The arrays of a tree on every device."""
  return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def _mesh() -> Mesh:
  devices = (jax.device_count(),)
  return jax.make_mesh(devices, ("batch",), axis_types=(AxisType.Auto,))
