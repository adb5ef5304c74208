"""What runs leave behind, to the bit; of times, nothing."""

import pathlib

import jax
import numpy as np

from experiments import build
from experiments import clocks
from experiments import program
from icl_causal import runs


def by_run(home: pathlib.Path) -> dict:
  """Result, mark, metrics and newest state of one run."""
  config = build.from_record(runs.read_config(home))
  result = home / "result.json"
  return {
    "result": _timeless(runs.read_result(home)) if result.exists() else None,
    "failed": runs.read_failure(home),
    "metrics": [_timeless(row) for row in runs.read_metrics(home)],
    "state": state(home, config),
  }


def state(home: pathlib.Path, config) -> list[bytes] | None:
  """The newest state, leaf by leaf."""
  own = program.member(config, build.graph(config))
  start = jax.eval_shape(lambda: program.program(config).start(own))
  newest, messages = runs.load_state(home, start)
  assert not messages, messages
  if newest is None:
    return None
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(newest)]


def by_sweep(workdir: pathlib.Path) -> dict:
  """The same of every run of a sweep, by name."""
  homes = sorted((workdir / "members").iterdir())
  return {home.name: by_run(home) for home in homes}


def _timeless(row: dict) -> dict:
  return {name: v for name, v in row.items() if name not in clocks.TIMES}
