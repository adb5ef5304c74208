"""The files of runs as values to compare bit by bit, without the times."""

from collections.abc import Mapping
import pathlib

import jax
import numpy as np

from experiments.harness import clock
from experiments.harness import program
from experiments.harness import traced
from icl_causal import runs
from icl_causal.config import build
from icl_causal.config import record


def by_run(workdir: pathlib.Path) -> dict:
  """Result, failure, metrics, snapshots and newest state of one run."""
  config = record.from_record(runs.read_config(workdir))
  result = workdir / "result.json"
  snapshots = runs.read_snapshots(workdir)
  return {
    "result": timeless(runs.read_result(workdir)) if result.exists() else None,
    "failed": runs.read_failure(workdir),
    "metrics": [timeless(row) for row in runs.read_metrics(workdir)],
    "snapshots": {
      step: [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(one)]
      for step, one in snapshots.items()
    },
    "state": state(workdir, config),
  }


def by_sweep(workdir: pathlib.Path) -> dict[str, dict]:
  """`by_run` of every run of a sweep, by name."""
  members = sorted((workdir / "members").iterdir())
  return {member.name: by_run(member) for member in members}


def state(workdir: pathlib.Path, config) -> list[bytes] | None:
  """The leaves of the newest state."""
  inputs = traced.run_inputs(config, build.graph(config))
  start = jax.eval_shape(lambda: program.program(config).start(inputs))
  newest, messages = runs.load_state(workdir, start)
  assert not messages, messages
  if newest is None:
    return None
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(newest)]


def timeless(row: Mapping) -> dict:
  """A row of metrics or a result without its times."""
  return {name: v for name, v in row.items() if name not in clock.TIMES}


def all_bytes(workdir: pathlib.Path) -> dict[str, bytes]:
  """Every file of a directory by its path, byte by byte."""
  return {
    str(path.relative_to(workdir)): path.read_bytes()
    for path in sorted(workdir.rglob("*"))
    if path.is_file()
  }
