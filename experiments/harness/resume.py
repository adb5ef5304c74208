"""Where the runs of a batch stand, as their directories have it."""

from collections.abc import Sequence
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness import clock as clocks
from experiments.harness.grid import Run
from icl_causal import runs


class Saved(NamedTuple):
  """What the directories of a batch have.

  Attributes:
    state: of all runs, on the host, with a leading axis of runs.
    live: indices of the runs that are neither finished nor failed.
    maps: for each run, the layer-1 attention by step.
    spent: seconds, by the names of `clock.TIMES`.
  """

  state: Any
  live: set[int]
  maps: list[dict[int, np.ndarray]]
  spent: dict[str, float]


def nothing(start, num_runs: int) -> Saved:
  """Runs that start."""
  spent: dict[str, float] = dict.fromkeys(clocks.TIMES, 0.0)
  return Saved(
    start, set(range(num_runs)), [{} for _ in range(num_runs)], spent
  )


def split(batch: Sequence[Run]) -> list[list[Run]]:
  """Divides a batch so that resuming it drops no saved state.

  Runs with a saved step in common stay together, and so do runs of which none
  has a state. Otherwise runs that were trained apart are trained apart again,
  by their newest step.

  Finished runs are left out, unless the others have their last state as well:
  then a kill interrupted the results of this very batch, and the same batch
  gives the same bits.
  """
  live = [run for run in batch if not runs.is_done(run.workdir)]
  steps = {run.name: runs.saved_steps(run.workdir) for run in live}
  saved = [set(of_run) for of_run in steps.values() if of_run]
  common = set.intersection(*saved) if saved else set()
  is_fresh = any(
    not steps[run.name] and not runs.read_metrics(run.workdir) for run in live
  )
  # A kill while the first states were saved leaves rows without a state.
  if not saved or (common and not is_fresh):
    at_end = batch[0].config.train.steps in common
    return [
      [run for run in batch if at_end or not runs.is_finished(run.workdir)]
    ]
  groups: dict[int, list[Run]] = {}
  for run in live:
    newest = steps[run.name][-1] if steps[run.name] else 0
    groups.setdefault(newest, []).append(run)
  return list(groups.values())


def read(batch: Sequence[Run], start) -> Saved:
  """The newest states that all live runs have, with their rows and maps.

  Later rows, maps and states are dropped. Without a state in common, live runs
  start again. A run that is done keeps its files; its place in the stacked
  state is filled with a copy of another run.

  Args:
    batch: runs of one program.
    start: their states before the first step, on the host.

  Raises:
    RunError: if a history ends before the saved state.
  """
  _, _, maps, spent = nothing(start, len(batch))
  live = {r for r, run in enumerate(batch) if not runs.is_done(run.workdir)}
  workdirs = [batch[r].workdir for r in sorted(live)]
  like = jax.tree.map(lambda leaf: leaf[0], start)
  states, messages = runs.load_states(workdirs, like)
  for message in messages:
    print(f"warning: {message}", file=sys.stderr)
  step = int(states[0].step) if states else -1
  for workdir in workdirs:
    runs.delete_states(workdir, after=step)
  for r in sorted(live):
    row, maps[r] = _history(batch[r].workdir, step)
    spent = {name: max(spent[name], row.get(name, 0.0)) for name in spent}
  if states is None:
    return Saved(start, live, maps, spent)
  by_run = dict(zip(sorted(live), states, strict=True))
  filled = [by_run.get(r, states[0]) for r in range(len(batch))]
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
  return Saved(stacked, live, maps, spent)


def _history(workdir: pathlib.Path, step: int) -> tuple[dict, dict]:
  """The row of a step, and the maps up to it; later rows are dropped.

  A step of -1 stands for a run that starts again.
  """
  rows = runs.truncate_metrics(workdir, step)
  if step < 0:
    return {}, {}
  if not rows or rows[-1]["step"] != step:
    raise runs.RunError(
      f"{workdir}/metrics.jsonl ends before the saved state of step {step}: "
      "restore it, or start again with --overwrite"
    )
  saved = runs.read_attention(workdir)
  maps = {s: saved[s] for s in saved if s <= step}
  if len(maps) < len(rows):
    print(
      f"warning: {workdir}/attention.npz lacks maps of earlier steps",
      file=sys.stderr,
    )
  return rows[-1], maps
