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

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal.config import fields
from icl_causal.config import streams
from icl_causal.config.fields import ConfigError
from icl_causal.config.fields import Field
from icl_causal.config.fields import Part as Part
from icl_causal.config.optimizer_parts import OPTIMIZERS

_ROUNDING = 1e-5  # of the sum of a row of a kernel


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


def _needs_closed_posterior(config) -> str | None:
  prior = config.prior
  make = PRIORS[prior.name].make
  is_closed = make is priors.dirichlet and prior.root_law != "stationary"
  if not config.eval.posterior_prompts or is_closed or make is fixed_prior:
    return None
  return (
    f"eval.posterior_prompts = {config.eval.posterior_prompts}: must be 0 for "
    f"graph.name = {config.graph.name!r} and model.name = "
    f"{config.model.name!r}, unless the prior is fixed, or Dirichlet with "
    "prior.root_law = 'uniform' or 'dirichlet'"
  )


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
  "lags": Part(
    graphs.lags,
    {**_T, "lags": fields.tuple_of(fields.at_least(1))},
    (_needs_closed_posterior,),
  ),
  "tree_examples": Part(
    graphs.tree_examples,
    {"num_examples": fields.at_least(0), "length": fields.at_least(2)},
    (_needs_closed_posterior,),
  ),
  "manual": Part(_manual, {"parents": fields.TUPLE, "target": fields.TUPLE}),
}


def fixed_prior(alpha, root_law, kernel):
  """The prior that always returns one kernel; alpha is for baselines alone."""
  del alpha
  return priors.fixed(jnp.asarray(kernel), root_law)


def _needs_kernel(config) -> str | None:
  prior = config.prior
  is_square = len(prior.kernel) == prior.S and all(
    isinstance(row, tuple)
    and len(row) == prior.S
    and all(isinstance(p, (int, float)) and p >= 0 for p in row)
    and abs(sum(row) - 1) < _ROUNDING
    for row in prior.kernel
  )
  if not is_square:
    return (
      f"prior.kernel must have {prior.S} rows of {prior.S} numbers >= 0 that "
      "sum to 1"
    )
  if prior.root_law == "dirichlet":
    return "prior.root_law = 'dirichlet': must be 'stationary' or 'uniform'"
  return None


def pool_kernel(number, alpha, root_law, seed, S: int, K: int):
  """A kernel of a pool by its number, which may be traced."""
  key = jax.random.fold_in(streams.key(jnp.uint32(seed), "pool"), number)
  return priors.dirichlet(alpha, root_law)(key, S, K)


def pool_prior(alpha, root_law, num_kernels, seed):
  """`priors.pool` of kernels with Dirichlet(alpha) rows; all may be traced.

  A smaller pool of the same seed has the first kernels of a larger one.
  """

  def prior(key, S, K):
    number = jax.random.randint(key, (), 0, num_kernels)
    return pool_kernel(number, alpha, root_law, seed, S, K)

  return prior


PRIORS: dict[str, Part] = {
  "dirichlet": Part(priors.dirichlet),
  "floored_dirichlet": Part(priors.floored_dirichlet, {"gamma": fields.SHARE}),
  "fixed": Part(fixed_prior, {"kernel": fields.TUPLE}, (_needs_kernel,)),
  "pool": Part(
    pool_prior,
    {
      "num_kernels": fields.at_least(1),
      "seed": fields.SEED,
    },
  ),
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
  "autoregressive": Part(
    functools.partial(models.Disentangled, every=True),
    {**_HEADS, "noise": fields.NOT_NEGATIVE},
    (_needs_layers, _needs_closed_posterior),
  ),
  "relative": Part(
    functools.partial(models.Relative, every=True),
    {
      **_HEADS,
      "reach": fields.at_least(2),
      "period": fields.at_least(0),
      "noise": fields.NOT_NEGATIVE,
      "strict": fields.FLAG,
      "read_out": fields.one_of(models.READ_OUTS),
    },
    (_needs_layers, _needs_closed_posterior),
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
