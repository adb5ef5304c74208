"""The runs of a sweep, and how they are divided into batches."""

from collections.abc import Mapping, Sequence
import itertools
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import traced
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.config import record
from icl_causal.config.fields import ConfigError
from icl_causal.graphs import Graph


class Run(NamedTuple):
  """One run.

  Attributes:
    config: as `experiments.train` takes it.
    graph: of the config.
    point: the fields that the sweep varies, by name.
    workdir: of the run.
  """

  config: build.Config
  graph: Graph
  point: dict[str, Any]
  workdir: pathlib.Path

  @property
  def name(self) -> str:
    """The digest of the config, by which the directories of members go."""
    return record.digest(self.config.to_dict())


def points(axes: Mapping[str, Sequence]) -> list[dict[str, Any]]:
  """Every combination of one value from each axis, the last axis fastest."""
  return [
    dict(zip(axes, values, strict=True))
    for values in itertools.product(*axes.values())
  ]


def draws(
  ranges: Mapping[str, tuple[str, float, float]], num: int, seed: int
) -> list[dict[str, float]]:
  """`num` independent points of a random search.

  The first n of them do not depend on `num`.

  Args:
    ranges: by name, ("uniform", low, high), or ("log", low, high) for a value
      whose logarithm is uniform.
    num: of points.
    seed: of the generator.
  """
  generator = np.random.default_rng(seed)

  def draw(law, low, high):
    if law == "log":
      return math.exp(generator.uniform(math.log(low), math.log(high)))
    return generator.uniform(low, high)

  return [
    {name: draw(*limits) for name, limits in ranges.items()} for _ in range(num)
  ]


def every_run(config: build.Config, workdir: pathlib.Path) -> list[Run]:
  """All runs of a sweep, checked: each point of the grid for each draw.

  Args:
    config: with a group `sweep`.
    workdir: of the sweep.

  Raises:
    ConfigError: if the sweep, or one of its runs, is refused.
  """
  if "sweep" not in config:
    raise ConfigError(
      "the config has no group sweep: experiments.train trains a single run"
    )
  base = config.copy_and_resolve_references()
  with base.unlocked():
    del base["sweep"]
  axes = record.flatten(config.sweep.grid.to_dict())
  ranges = record.flatten(config.sweep.random.to_dict())
  _check_sweep(config, axes, ranges)
  drawn = draws(ranges, config.sweep.samples, config.sweep.seed)
  planned = [
    run(base, axis_point | random_point, workdir)
    for axis_point in points(axes)
    for random_point in drawn
  ]
  if len({one.name for one in planned}) < len(planned):
    raise ConfigError("sweep: two runs are equal; is a value there twice?")
  return planned


def run(base: build.Config, point: dict, workdir: pathlib.Path) -> Run:
  """The run of a config with the fields of a point, a member of `workdir`."""
  config = traced.fill(base, point)
  build.check(config)
  graph = build.graph(config)
  build.model(config, graph)  # refuses a model that does not fit
  name = record.digest(config.to_dict())
  return Run(config, graph, point, workdir / "members" / name)


def divide(
  planned: list[Run], largest: int, num_processes: int = 1
) -> list[list[Run]]:
  """Divides runs into batches that one program trains.

  Args:
    planned: all runs.
    largest: size of a batch.
    num_processes: among which the runs of each program are divided.
  """
  by_program = {}
  for one in planned:
    shape = np.shape(one.graph.parents_TxK)
    key = (traced.compiled_in(one.config), shape)
    by_program.setdefault(key, []).append(one)
  divided = []
  for group in by_program.values():
    num_batches = max(math.ceil(len(group) / largest), num_processes)
    size = math.ceil(len(group) / num_batches)
    divided += [group[i : i + size] for i in range(0, len(group), size)]
  return divided


def _check_sweep(config: build.Config, axes: Mapping, ranges: Mapping):
  flat = record.flatten(config.to_dict())
  fields.check(flat, "sweep.samples", fields.at_least(1))
  fields.check(flat, "sweep.seed", fields.SEED)
  for name in [*axes, *ranges]:
    if name not in flat or name.startswith("sweep."):
      raise ConfigError(f"sweep: {name} is not a field of the config")
  for name, values in axes.items():
    if not isinstance(values, tuple) or not values:
      raise ConfigError(
        f"sweep.grid.{name} = {values!r}: must be a tuple of values"
      )
  for name, limits in ranges.items():
    is_triple = isinstance(limits, tuple) and len(limits) == 3
    law, low, high = limits if is_triple else ("", 0, 0)
    if (
      law not in ("uniform", "log")
      or low >= high
      or (law == "log" and low <= 0)
    ):
      raise ConfigError(
        f"sweep.random.{name} = {limits!r}: must be ('uniform', low, high), or "
        "('log', low, high) with low > 0"
      )
  if config.sweep.samples > 1 and not ranges:
    raise ConfigError(
      f"sweep.samples = {config.sweep.samples}: must be 1 if sweep.random is "
      "empty"
    )
