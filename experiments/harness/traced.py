"""The arguments by which the runs of one program differ.

They are the arrays of the graph and the fields of `FIELDS`. All other fields of
a config are compiled in.
"""

from typing import NamedTuple

import jax
from jax import numpy as jnp

from icl_causal.config import build
from icl_causal.config import parts
from icl_causal.config import record
from icl_causal.graphs import Graph

FIELDS = {
  "seed": jnp.uint32,
  "prior.alpha": jnp.float32,
  "prior.gamma": jnp.float32,
  "prior.num_kernels": jnp.int32,
  "prior.seed": jnp.uint32,
  "train.learning_rate": jnp.float32,
  "train.weight_decay": jnp.float32,
  "train.max_step": jnp.float32,
  "train.second_learning_rate": jnp.float32,
  "train.first_steps": jnp.int32,
  "train.stop": jnp.float32,
  "train.epsilon": jnp.float32,
  "eval.seed": jnp.uint32,
}


class RunInputs(NamedTuple):
  """The arguments by which the runs of a program differ.

  Attributes:
    graph: the causal graph.
    values: scalars by the names of `FIELDS` that the config has.
  """

  graph: Graph
  values: dict[str, jax.Array]


def run_inputs(config: build.Config, graph: Graph) -> RunInputs:
  """The inputs of the run of a config."""
  flat = record.flatten(config.to_dict())
  return RunInputs(
    jax.tree.map(jnp.asarray, graph),
    {name: jnp.asarray(flat[name], FIELDS[name]) for name in names(config)},
  )


def names(config: build.Config) -> list[str]:
  """The fields of `FIELDS` that the config has.

  Without the size of a pool, if the Bayes predictor is computed, which has a
  weight for each kernel.
  """
  flat = record.flatten(config.to_dict())
  has_weights = flat["eval.posterior_prompts"] > 0
  return [
    name
    for name in FIELDS
    if name in flat and not (has_weights and name == "prior.num_kernels")
  ]


def fill(config: build.Config, values: dict) -> build.Config:
  """A copy of the config with traced values in place of its numbers."""
  filled = config.copy_and_resolve_references()
  with filled.unlocked(), filled.ignore_type():
    filled.update_from_flattened_dict(values)
  return filled


def compiled_in(config: build.Config) -> str:
  """All fields that a program compiles in, but those of the graph."""
  arguments = names(config)
  return record.canonical(
    {
      name: value
      for name, value in record.flatten(config.to_dict()).items()
      if name not in arguments and not name.startswith("graph.")
    }
  )


class Key:
  """A config, equal to another if the program of both is the same."""

  def __init__(self, config: build.Config):
    self.config = config.copy_and_resolve_references()
    # A name can be registered again for another part.
    made = tuple(parts.chosen(config, kind)[0].make for kind in parts.KINDS)
    self._compiled_in = (compiled_in(config), *made)

  def __eq__(self, other):
    return self._compiled_in == other._compiled_in

  def __hash__(self):
    return hash(self._compiled_in)
