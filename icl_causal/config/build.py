"""Builds the objects of the library from a config, and checks its fields."""

import importlib
import types
from typing import Any

import jax
from jax import numpy as jnp
from jax.sharding import Mesh
import optax

from icl_causal import bayes
from icl_causal import latent
from icl_causal import parallel
from icl_causal import priors
from icl_causal import sampling
from icl_causal.config import changes as dependent
from icl_causal.config import fields
from icl_causal.config import parts
from icl_causal.config import record
from icl_causal.config.fields import ConfigError
from icl_causal.graphs import Graph

# An ml_collections.ConfigDict, whose fields a type checker can't know.
Config = Any

_OTHER_FIELDS = {
  "seed": fields.SEED,
  "eval.test_size": fields.at_least(2),
  "eval.batch_size": fields.at_least(1),
  "eval.posterior_prompts": fields.at_least(0),
  "eval.posterior_samples": fields.at_least(2),
  "eval.seed": fields.SEED,
}


def load(
  module: str | types.ModuleType, variant: str = "", **changes: Any
) -> Config:
  """Loads and checks a config, without command-line flags.

  Args:
    module: a module with a function `get_config`, or its dotted name, such as
      `configs.single_parent`.
    variant: `VARIANT[,TIER]`; by default that of the module.
    changes: new values by dotted field names, such as `**{"train.steps": 512}`.

  Raises:
    ConfigError: for a field that is unknown or out of range.
  """
  if isinstance(module, str):
    module = importlib.import_module(module)
  config = module.get_config(*([variant] if variant else []))
  dependent.choose(config, changes)
  known = record.flatten(config.to_dict())
  for name in changes:
    if name not in known:
      raise ConfigError(f"{name} is not a field of this config")
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  dependent.fit_interval(config, changes)
  base = config.copy_and_resolve_references()
  if "sweep" in base:  # experiments.sweep checks every run of it
    with base.unlocked():
      del base["sweep"]
  check(base)
  return config


def check(config: Config):
  """Raises ConfigError for the first invalid field or violated rule.

  Draws a kernel of a custom prior. `check_fields` draws nothing.
  """
  check_fields(config)
  if config.prior.name not in parts.BUILT_IN["prior"]:
    K = graph(config).parents_TxK.shape[-1]
    try:
      priors.check(prior(config), config.prior.S, K)
    except ValueError as error:
      raise ConfigError(
        f"prior.name = {config.prior.name!r}: {error}"
      ) from error


def check_fields(config: Config):
  """`check` without a draw, for use before jax knows its devices."""
  flat = record.flatten(config.to_dict())
  known = dict(_OTHER_FIELDS)
  for kind in parts.KINDS.values():
    choice = f"{kind.group}.{kind.choice}"
    fields.check(flat, choice, fields.one_of(kind.table))
    of_part = {**kind.common, **kind.table[flat[choice]].fields}
    known |= {f"{kind.group}.{name}": field for name, field in of_part.items()}
    known[choice] = fields.one_of(kind.table)
  fields.check_known(flat, known)
  fields.check_set(flat, known)
  for name, field in known.items():
    fields.check(flat, name, field)
  fields.check_multiple(flat, "train.steps", "train.eval_every")
  fields.check_multiple(flat, "eval.test_size", "eval.batch_size")
  _check_posterior(config)
  for kind in parts.KINDS:
    for need in parts.chosen(config, kind)[0].needs:
      if message := need(config):
        raise ConfigError(message)


def _check_posterior(config: Config):
  prior = config.prior
  if config.eval.posterior_prompts == 1:
    raise ConfigError(
      "eval.posterior_prompts = 1: must be 0, or 2 or more for an error"
    )
  if (
    config.eval.posterior_prompts
    and is_dirichlet(config)
    and prior.root_law == "stationary"
    and prior.alpha < bayes.MIN_ALPHA
  ):
    raise ConfigError(
      f"prior.alpha = {prior.alpha}: the exact posterior needs at least "
      f"{bayes.MIN_ALPHA}; set eval.posterior_prompts = 0 to train without it"
    )


def is_dirichlet(config: Config) -> bool:
  """Whether the rows of a kernel are independent Dirichlet(alpha) draws."""
  return parts.chosen(config, "prior")[0].make is priors.dirichlet


def check_devices(config: Config):
  """Raises ConfigError unless the prompts divide evenly over all devices."""
  flat = record.flatten(config.to_dict())
  for name in (
    "train.batch_size",
    "eval.test_size",
    "eval.posterior_prompts",
  ):
    if flat[name] % jax.device_count():
      raise ConfigError(
        f"{name} = {flat[name]}: must be a multiple of the "
        f"{jax.device_count()} devices"
      )


def graph(config: Config) -> Graph:
  """The causal graph; graphs along a leading axis if the graph is latent.

  Raises:
    ConfigError: if the fields do not define a graph, or if the root law is not
      defined on this graph.
  """
  part, arguments = parts.chosen(config, "graph")
  try:
    built = part.make(**arguments)
  except ValueError as error:
    raise ConfigError(f"graph: {error}") from error
  K = built.parents_TxK.shape[-1]
  if K > 1 and config.prior.root_law == "stationary":
    raise ConfigError(
      f"prior.root_law = 'stationary': must be 'uniform' or 'dirichlet' on a "
      f"graph with up to {K} parents"
    )
  if K > 1 and parts.chosen(config, "prior")[0].make is parts.fixed_prior:
    raise ConfigError(
      f"prior.name = {config.prior.name!r}: is for single parents, and the "
      f"graph has {K}"
    )
  return built


def prior(config: Config) -> priors.Prior:
  """The prior over kernels."""
  part, arguments = parts.chosen(config, "prior")
  return part.make(
    alpha=config.prior.alpha, root_law=config.prior.root_law, **arguments
  )


def pool(config: Config, K: int) -> jax.Array | None:
  """The kernels of a pool, M x (S+1) x .. x S; None for any other prior."""
  law = config.prior
  part = parts.PRIORS.get(law.name)  # a custom part may not be registered
  if part is None or part.make is not parts.pool_prior:
    return None
  return jax.vmap(
    lambda number: parts.pool_kernel(
      number, law.alpha, law.root_law, law.seed, law.S, K
    )
  )(jnp.arange(law.num_kernels))


def known_law(config: Config):
  """The `law` of `latent` for a prior: its kernel if it is fixed, or alpha."""
  if parts.chosen(config, "prior")[0].make is parts.fixed_prior:
    return prior(config)(jax.random.key(0), config.prior.S, 1)
  return config.prior.alpha


def posterior(config: Config, graph: Graph):
  """The Bayes predictor of the prior: maps (key, x_T) to `bayes.Posterior`.

  If the model predicts at every position, f_S is f_TxS.
  """
  S, num_samples = config.prior.S, config.eval.posterior_samples
  every, is_latent = predicts_every(config, graph), graph.parents_TxK.ndim == 3
  kernels = pool(config, graph.parents_TxK.shape[-1])

  def closed(predict):
    def posterior(key, x_T):
      del key
      f = predict(x_T)
      return bayes.Posterior(f, jnp.stack([f, f]), jnp.array(jnp.inf))

    return posterior

  if every or is_latent:
    one = jax.tree.map(lambda a: a[None], graph)
    graphs_M, law = graph if is_latent else one, known_law(config)
    root_law = config.prior.root_law
    return closed(
      lambda x_T: latent.model_average(x_T, graphs_M, law, S, root_law, every)
    )
  if kernels is not None:
    return closed(lambda x_T: bayes.retrieval(x_T, graph, kernels)[0])
  if is_dirichlet(config):
    return lambda key, x_T: bayes.dirichlet_posterior(
      *(key, x_T, graph, config.prior.alpha),
      *(S, num_samples, config.prior.root_law),
    )
  law = prior(config)
  return lambda key, x_T: bayes.sampled_posterior(
    key, x_T, graph, law, S, num_samples
  )


def model(config: Config, graph: Graph):
  """The model, with S from the prior and T from the graph.

  Raises:
    ConfigError: if it does not fit the graph.
  """
  part, arguments = parts.chosen(config, "model")
  T, K = graph.parents_TxK.shape[-2:]
  try:
    built = part.make(S=config.prior.S, T=T, **arguments)
  except ValueError as error:
    raise ConfigError(f"model: {error}") from error
  if K > built.first_layer_heads:
    raise ConfigError(
      f"model: the first layer needs at least {K} heads, one for each parent, "
      f"and has {built.first_layer_heads}"
    )
  return built


def predicts_every(config: Config, graph: Graph) -> bool:
  """Whether the model predicts at every position, not at the last alone."""
  return getattr(model(config, graph), "every", False)


def optimizer(config: Config, model) -> optax.GradientTransformation:
  """The optimizer of the model, with a schedule over all training steps."""
  part, arguments = parts.chosen(config, "optimizer")
  return part.make(
    model=model,
    steps=config.train.steps,
    learning_rate=config.train.learning_rate,
    **arguments,
  )


def sampler(
  config: Config, graph: Graph, batch_size: int, mesh: Mesh | None = None
):
  """A function that maps a key to a batch, sharded over the mesh if given.

  The targets are those of the model: at the last position, or at every one.
  """
  law, S = prior(config), config.prior.S
  every, one = predicts_every(config, graph), sampling.sample_prompt
  if graph.parents_TxK.ndim == 3:
    one = sampling.sample_latent
  several = jax.vmap(lambda key: one(key, graph, law, S, every))
  if mesh is not None:  # the devices redraw rejected gammas independently
    split = parallel.batch_sharding(mesh).spec
    several = jax.shard_map(
      several, mesh=mesh, in_specs=split, out_specs=split, check_vma=False
    )

  def draw(key: jax.Array) -> Any:
    return several(jax.random.split(key, batch_size))

  return draw
