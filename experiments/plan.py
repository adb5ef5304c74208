"""What a sweep is made of: its runs, and the batches they are trained in."""

import math

import numpy as np

from experiments import build
from experiments import cli
from experiments import fields
from experiments import program
from experiments.batch import Run
from icl_causal import runs
from icl_causal import sweeps


def every_run(config: build.Config) -> list[Run]:
  """Every run of the sweep, checked; the points of the grid, each drawn for."""
  base = config.copy_and_resolve_references()
  with base.unlocked():
    del base["sweep"]
  flat = runs.flatten(config.to_dict())
  fields.check(flat, "sweep.samples", fields.at_least(1))
  fields.check(flat, "sweep.seed", fields.SEED)
  axes = runs.flatten(config.sweep.grid.to_dict())
  ranges = runs.flatten(config.sweep.random.to_dict())
  known = runs.flatten(base.to_dict())
  for name in [*axes, *ranges]:
    if name not in known:
      raise cli.Refused(f"sweep: {name} is no field of the config")
  for name, values in axes.items():
    if not isinstance(values, tuple) or not values:
      raise cli.Refused(
        f"sweep.grid.{name} = {values!r}: must be a tuple of values"
      )
  for name, limits in ranges.items():
    _check_range(name, limits)
  if config.sweep.samples > 1 and not ranges:
    raise cli.Refused(
      f"sweep.samples = {config.sweep.samples}: must be 1 where sweep.random "
      "is empty"
    )
  drawn = sweeps.draws(ranges, config.sweep.samples, config.sweep.seed)
  planned = [
    run(base, axis_point | random_point)
    for axis_point in sweeps.grid(axes)
    for random_point in drawn
  ]
  if len({one.name for one in planned}) < len(planned):
    raise cli.Refused("sweep: two runs are the same; is a value there twice?")
  return planned


def _check_range(name: str, limits):
  known = isinstance(limits, tuple) and len(limits) == 3
  law, low, high = limits if known else ("", 0, 0)
  if (
    law not in ("uniform", "log") or low >= high or (law == "log" and low <= 0)
  ):
    raise cli.Refused(
      f"sweep.random.{name} = {limits!r}: must be ('uniform', low, high), or "
      "('log', low, high) with low > 0"
    )


def run(base: build.Config, point: dict) -> Run:
  """The run of a config with the fields of a point in the place of its own."""
  config = base.copy_and_resolve_references()
  with config.unlocked(), config.ignore_type():
    config.update_from_flattened_dict(point)
  build.check(config)
  name = runs.digest(config.to_dict())
  return Run(config, build.graph(config), point, name)


def batches(
  planned: list[Run], largest: int, num_processes: int = 1
) -> list[list[Run]]:
  """Runs that are trained together.

  Args:
    planned: all runs.
    largest: size of a batch.
    num_processes: among which the runs of every program are divided.

  Returns:
    Batches, each of runs of one program.
  """
  by_program = {}
  for one in planned:
    flat = runs.flatten(one.config.to_dict())
    compiled_in = {
      name: value
      for name, value in flat.items()
      if name not in program.TRACED and not name.startswith("graph.")
    }
    compiled_in["graph"] = np.shape(one.graph.parents_TxK)
    by_program.setdefault(runs.canonical(compiled_in), []).append(one)
  found = []
  for group in by_program.values():
    num_batches = max(math.ceil(len(group) / largest), num_processes)
    size = math.ceil(len(group) / num_batches)
    found += [group[i : i + size] for i in range(0, len(group), size)]
  return found
