"""From a config to the objects of the library; every field is checked here."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax import numpy as jnp
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict
import numpy as np
import optax

from experiments import fields
from experiments.cli import Refused
from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import runs
from icl_causal import sampling
from icl_causal import symmetry
from icl_causal import training
from icl_causal import turns
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
  "kgram": lambda c, key: graphs.kgram(c.T, c.k),
  "half_and_previous": lambda c, key: graphs.half_and_previous(c.T),
  "manual": lambda c, key: graphs.from_parents(c.parents, c.target or None),
}
_PRIORS = {
  "dirichlet": lambda c: priors.dirichlet(c.alpha, c.root_law),
  "floored_dirichlet": lambda c: priors.floored_dirichlet(
    c.alpha, c.gamma, c.root_law
  ),
}
_MODELS = {
  "disentangled": models.Disentangled,
  "reduced": models.Reduced,
  "standard": models.Standard,
}
_SCHEDULES = {
  "constant": lambda rate, _: optax.constant_schedule(rate),
  "cosine": optax.cosine_decay_schedule,
}
_OPTIMIZERS = {
  "sgd": lambda c: _sgd(c.train),
  "adamw": lambda c: _adamw(c.train, c.train.steps),
  "symmetric_adamw": lambda c: optax.chain(
    symmetry.symmetric(), _adamw(c.train, c.train.steps)
  ),
  "in_turns": lambda c: _in_turns(c.train, c.model.heads[0]),
  "first_layer_turn": lambda c: turns.first_layer_turn(
    _adamw(c.train, c.train.steps), c.train.joint_steps, c.train.turn_steps
  ),
  "algorithm_1": lambda c: _algorithm_1(c.train),
}
_STREAMS = ("graph", "init", "data", "test", "posterior")


_FIELDS = {
  "seed": fields.SEED,
  "graph.T": fields.at_least(2),
  "graph.seed": fields.SEED,
  "graph.k": fields.at_least(1),
  "graph.root_probability": fields.SHARE,
  "graph.parents": fields.Field(tuple, lambda v: True, "a tuple"),
  "graph.target": fields.Field(tuple, lambda v: True, "a tuple"),
  "prior.S": fields.at_least(2),
  "prior.alpha": fields.ALPHA,
  "prior.gamma": fields.SHARE,
  "prior.root_law": fields.one_of(("stationary", "uniform", "dirichlet")),
  "model.heads": fields.many(fields.at_least(1)),
  "model.noise": fields.NOT_NEGATIVE,
  "model.matching": fields.FINITE,
  "model.width": fields.at_least(1),
  "model.mlp": fields.one_of(("none", "of_attention", "residual")),
  "model.norm": fields.FLAG,
  "model.scaled": fields.FLAG,
  "model.orthonormal": fields.FLAG,
  "train.steps": fields.at_least(1),
  "train.batch_size": fields.at_least(1),
  "train.eval_every": fields.at_least(1),
  "train.learning_rate": fields.POSITIVE,
  "train.schedule": fields.one_of(_SCHEDULES),
  "train.weight_decay": fields.NOT_NEGATIVE,
  "train.b2": fields.BELOW_ONE,
  "train.turn_steps": fields.at_least(1),
  "train.joint_steps": fields.at_least(0),
  "train.stride": fields.POSITIVE,
  "train.second_learning_rate": fields.POSITIVE,
  "train.first_steps": fields.at_least(1),
  "train.stop": fields.SHARE,
  "train.rescale_rows": fields.FLAG,
  "train.epsilon": fields.NOT_NEGATIVE,
  "eval.test_size": fields.at_least(2),
  "eval.batch_size": fields.at_least(1),
  "eval.posterior_prompts": fields.at_least(0),
  "eval.posterior_samples": fields.at_least(2),
  "eval.seed": fields.SEED,
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
  "eval.posterior_prompts",
  "eval.posterior_samples",
  "eval.seed",
]
_CHOICES = {
  "graph.name": {
    "chain": ["graph.T"],
    "pairs": ["graph.T"],
    "random_tree": ["graph.T", "graph.seed"],
    "random_forest": ["graph.T", "graph.seed", "graph.root_probability"],
    "kgram": ["graph.T", "graph.k"],
    "half_and_previous": ["graph.T"],
    "manual": ["graph.parents", "graph.target"],
  },
  "prior.name": {"dirichlet": [], "floored_dirichlet": ["prior.gamma"]},
  "model.name": {
    "disentangled": ["model.heads", "model.noise", "model.matching"],
    "reduced": ["model.matching"],
    "standard": [
      "model.heads",
      "model.width",
      "model.mlp",
      "model.norm",
      "model.scaled",
      "model.orthonormal",
    ],
  },
  "train.optimizer": {
    "sgd": ["train.schedule", "train.weight_decay"],
    "adamw": ["train.schedule", "train.weight_decay", "train.b2"],
    "symmetric_adamw": ["train.schedule", "train.weight_decay", "train.b2"],
    "in_turns": [
      "train.schedule",
      "train.weight_decay",
      "train.b2",
      "train.turn_steps",
      "train.joint_steps",
      "train.stride",
    ],
    "first_layer_turn": [
      "train.schedule",
      "train.weight_decay",
      "train.b2",
      "train.turn_steps",
      "train.joint_steps",
    ],
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
    fields.check(flat, choice, fields.one_of(fields_of))
    read += [choice, *fields_of[flat[choice]]]
  fields.check_known(flat, read)
  for name in read:
    if name not in _CHOICES:
      fields.check(flat, name, _FIELDS[name])
  fields.check_multiple(flat, "train.steps", "train.eval_every")
  fields.check_multiple(flat, "eval.test_size", "eval.batch_size")
  exact = flat["eval.posterior_prompts"]
  if exact and flat["prior.name"] != "dirichlet":
    raise Refused(
      f"eval.posterior_prompts = {exact}: must be 0 unless prior.name = "
      f"'dirichlet', and it is {flat['prior.name']!r}"
    )
  heads = flat.get("model.heads")
  if heads and flat.get("model.matching") and len(heads) != 2:
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
  if optimizer == "symmetric_adamw" and model != "disentangled":
    raise Refused(
      "train.optimizer = 'symmetric_adamw': is for model.name = "
      f"'disentangled', not {model!r}"
    )
  if optimizer == "in_turns" and (
    model != "disentangled" or not flat["model.matching"]
  ):
    raise Refused(
      "train.optimizer = 'in_turns': is for model.name = 'disentangled' with "
      "a model.matching other than 0"
    )
  if flat["train.steps"] <= (last := _last_turn(flat)):
    raise Refused(
      f"train.steps = {flat['train.steps']}: must be more than the {last} "
      "steps up to the end of the last turn"
    )
  if model == "reduced" and not flat["train.epsilon"]:
    raise Refused(
      "train.epsilon = 0: must be positive for model.name = 'reduced', which "
      "predicts probabilities of 0"
    )


def num_cores(batch_size: int, others: Sequence[int], available: int) -> int:
  """How many of the processor's cores share the prompts evenly.

  Each has at least 32 prompts of a batch: below that, what a core gains is lost
  in waiting for the others.

  Args:
    batch_size: prompts of a batch.
    others: counts of other prompts that are shared.
    available: cores.
  """
  return max(
    num
    for num in range(1, available + 1)
    if num == 1
    or (
      not any(count % num for count in (batch_size, *others))
      and batch_size // num >= 32
    )
  )


def check_devices(config: Config):
  """Raises Refused unless the prompts divide over all devices."""
  flat = runs.flatten(config.to_dict())
  for name in (
    "train.batch_size",
    "eval.test_size",
    "eval.posterior_prompts",
  ):
    if flat[name] % jax.device_count():
      raise Refused(
        f"{name} = {flat[name]}: must be a multiple of the "
        f"{jax.device_count()} devices"
      )


def _tuples(value):
  if isinstance(value, Mapping):
    return {name: _tuples(entry) for name, entry in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def key(seed: int, stream: str) -> jax.Array:
  """The key of one of the streams of randomness that a seed feeds."""
  return jax.random.fold_in(jax.random.key(seed), _STREAMS.index(stream))


def graph(config: Config, offset=0) -> Graph:
  """The causal graph.

  Args:
    config: of the run.
    offset: added to the seed; may be traced.
  """
  graph_key = key(jnp.uint32(config.graph.get("seed", 0)) + offset, "graph")
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
  arguments = dict(config.model)
  S, T = config.prior.S, graph.parents_TxK.shape[0]
  if arguments.get("orthonormal") and arguments["width"] < S + T:
    raise Refused(
      f"model.orthonormal = True: needs a model.width of at least {S + T}, the "
      f"states and the positions, and it is {arguments['width']}"
    )
  return _MODELS[arguments.pop("name")](S=S, T=T, **arguments)


def optimizer(config: Config) -> optax.GradientTransformation:
  """The optimiser with its schedule over all of the training."""
  return _OPTIMIZERS[config.train.optimizer](config)


def sampler(
  config: Config, graph: Graph, batch_size: int, over: Mesh | None = None
):
  """A function of a key that draws a batch, split over devices if there are."""
  law, S = prior(config), config.prior.S

  def draw(key: jax.Array) -> Prompt:
    batch = sampling.sample_batch(key, graph, law, S, batch_size)
    if over is None:
      return batch
    return jax.lax.with_sharding_constraint(batch, by_prompt(over))

  return draw


def mesh(num_devices: int | None = None) -> Mesh:
  """The first devices, by default all, along an axis of prompts."""
  devices = np.array(jax.devices()[:num_devices])
  return Mesh(devices, ("batch",), axis_types=(AxisType.Auto,))


def by_prompt(over: Mesh) -> NamedSharding:
  """The layout of arrays whose first axis is split over the devices."""
  return NamedSharding(over, PartitionSpec("batch"))


def whole(over: Mesh) -> NamedSharding:
  """The layout of what every device has whole."""
  return NamedSharding(over, PartitionSpec())


def chunk_size(share: int, model) -> int:
  """How many of a device's prompts it takes the gradient of at a time.

  All on an accelerator. On a processor as many as the share divides into whose
  attention maps of layer 1 are 1 MiB in all, and stay in its caches; but one
  where a map is over 64 KiB, since XLA is slow to sum such maps over prompts.
  The maps of the reduced model are the same for all prompts.

  Args:
    share: prompts of a batch that a device has.
    model: the Flax module.
  """
  if jax.default_backend() != "cpu" or isinstance(model, models.Reduced):
    return share
  entries = model.heads[0] * model.T**2
  most = 2**18 // entries if entries <= 2**14 else 1
  return max(n for n in range(1, share + 1) if share % n == 0 and n <= most)


def prior(config: Config) -> priors.Prior:
  """The law of the kernels."""
  return _PRIORS[config.prior.name](config.prior)


def _sgd(c: Config) -> optax.GradientTransformation:
  return optax.chain(
    optax.add_decayed_weights(c.weight_decay), optax.sgd(_rate(c, c.steps))
  )


def _adamw(c: Config, num_steps: int) -> optax.GradientTransformation:
  return optax.adamw(_rate(c, num_steps), b2=c.b2, weight_decay=c.weight_decay)


def _in_turns(c: Config, num_heads: int) -> optax.GradientTransformation:
  in_turns = turns.num_turns(num_heads) * c.turn_steps
  joint = _adamw(c, c.steps - in_turns)
  return turns.in_turns(joint, c.turn_steps, c.joint_steps, c.stride)


def _last_turn(flat: dict) -> int:
  """How many steps there are up to the end of the last turn."""
  if flat["train.optimizer"] not in ("in_turns", "first_layer_turn"):
    return 0
  each = flat["train.turn_steps"] + flat["train.joint_steps"]
  if flat["train.optimizer"] == "first_layer_turn":
    return each
  return (
    turns.num_turns(flat["model.heads"][0]) * each - flat["train.joint_steps"]
  )


def _algorithm_1(c: Config) -> optax.GradientTransformation:
  return training.algorithm_1(
    c.learning_rate,
    c.second_learning_rate,
    c.first_steps,
    c.stop,
    c.rescale_rows,
  )


def _rate(c: Config, num_steps: int) -> optax.Schedule:
  return _SCHEDULES[c.schedule](c.learning_rate, num_steps)
