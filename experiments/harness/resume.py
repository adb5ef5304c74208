"""Where the runs of a batch stand, as their directories have it."""

from collections.abc import Sequence
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
    spent: seconds, by the names of `clock.TIMES`.
  """

  state: Any
  live: set[int]
  spent: dict[str, float]


def nothing(start, num_runs: int) -> Saved:
  """Runs that start."""
  spent: dict[str, float] = dict.fromkeys(clocks.TIMES, 0.0)
  return Saved(start, set(range(num_runs)), spent)


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
  """The newest states that all live runs have.

  Later lines of the history and later states are dropped. Without a state in
  common, live runs start again. A run that is done keeps its files; its place
  in the stacked state is filled with a copy of another run.

  Args:
    batch: runs of one program.
    start: their states before the first step, on the host.

  Raises:
    RunError: if no saved state can be used.
  """
  spent = nothing(start, len(batch)).spent
  live = {r for r, run in enumerate(batch) if not runs.is_done(run.workdir)}
  workdirs = [batch[r].workdir for r in sorted(live)]
  like = jax.tree.map(lambda leaf: leaf[0], start)
  states, messages = runs.load_states(workdirs, like)
  for message in messages:
    print(f"warning: {message}", file=sys.stderr)
  step = int(states[0].step) if states else -1
  for workdir in workdirs:
    runs.delete_states(workdir, after=step)
    row = runs.truncate_history(workdir, step)
    spent = {name: max(spent[name], row.get(name, 0.0)) for name in spent}
  if states is None:
    return Saved(start, live, spent)
  by_run = dict(zip(sorted(live), states, strict=True))
  filled = [by_run.get(r, states[0]) for r in range(len(batch))]
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
  return Saved(stacked, live, spent)
