"""Trains a batch: runs of one program, side by side.

Every run of it has a run directory, as if it had been trained alone; the state
of all is saved together while they train.
"""

from collections.abc import Callable, Sequence
import math
import os
import pathlib
import shutil
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import build
from experiments import clocks
from experiments import program
from experiments import stopping
from experiments.train import against_exact
from experiments.train import failure
from experiments.train import means
from experiments.train import measures
from experiments.train import reference_losses
from icl_causal import recovery
from icl_causal import runs
from icl_causal import sweeps
from icl_causal import training
from icl_causal.graphs import Graph


class Run(NamedTuple):
  """One run of a sweep.

  Attributes:
    config: of the run alone, as `experiments.train` takes it.
    graph: of the config.
    point: the fields that the sweep varies, by name.
    name: of its directory.
  """

  config: build.Config
  graph: Graph
  point: dict[str, Any]
  name: str


def folder(workdir: pathlib.Path, run: Run) -> pathlib.Path:
  """The directory of a run."""
  return workdir / "members" / run.name


def is_done(home: pathlib.Path) -> bool:
  """Whether a run has come to its end, or to a loss that is not finite."""
  return (home / "result.json").exists() or (home / "failed.json").exists()


def train(
  batch: Sequence[Run],
  workdir: pathlib.Path,
  parallel: int,
  stop: Callable[[], bool] = stopping.never,
):
  """Trains runs of one program from where they stand to their end.

  Args:
    batch: the runs.
    workdir: of the sweep.
    parallel: runs at once on one device.
    stop: whether to stop here; asked after every evaluation.

  Raises:
    Stopped: if `stop` says so.
    RunError: if another process trains them, too.
  """
  homes = [folder(workdir, run) for run in batch]
  if all(map(is_done, homes)):
    return
  started = time.monotonic()
  saved = workdir / "batches" / runs.digest({"runs": [r.name for r in batch]})
  with runs.held(saved):
    for run, home in zip(batch, homes, strict=True):
      runs.prepare(home, run.config.to_dict(), overwrite=False)
    compiled = compile_batch(batch, parallel)
    state = _resume(saved, compiled.start, len(batch))
    step, last = int(state.step[0]), batch[0].config.train.steps
    unfinished = [home for home in homes if not is_done(home)]
    rows = [runs.cut_metrics(home, step) for home in unfinished]
    begun = all(mine and mine[-1]["step"] == step for mine in rows)
    if not begun:  # or trained in another batch since, and cut off there
      shutil.rmtree(saved / "checkpoints", ignore_errors=True)
      state, step = compiled.start, 0
      rows = [runs.cut_metrics(home, -1) for home in unfinished]
    spent = {
      name: max((mine[-1][name] for mine in rows if mine), default=0.0)
      for name in clocks.TIMES
    }
    clock = clocks.start(started, spent)
    if not begun:
      _record(batch, homes, compiled, state, None, clock)
    while step < last:
      state, steps = compiled.take_steps(compiled.own, state)
      step = int(state.step[0])
      _record(batch, homes, compiled, state, steps, clock)
      ends = stop() or step == last
      arguments = saved, step, _on_host(state, len(batch))
      clock.sparingly(ends, runs.save_state, *arguments)
      if ends and step < last:
        raise stopping.Stopped(
          f"{len(batch)} runs stopped at step {step} of {last}"
        )
    _finish(batch, homes, compiled, state, clock)


class Compiled(NamedTuple):
  """The functions of `program.Program` for the stacked runs of a batch.

  Attributes:
    own: the members.
    start: their states before the first step; given away to `take_steps`.
    test: their test sets.
    take_steps: maps (own, state) to (state, Steps).
    evaluate: maps (own, state, test) to Evaluation.
    exact: maps (own, test) to losses and effective sample sizes; compiled when
      it is called.
  """

  own: program.Member
  start: training.TrainState
  test: program.Test
  take_steps: Callable
  evaluate: Callable
  exact: Callable


def compile_batch(batch: Sequence[Run], parallel: int) -> Compiled:
  """Compiles a batch, for fewer runs at once where memory is short."""
  mesh = sweeps.local_mesh()
  run = program.program(batch[0].config)
  members = [program.member(one.config, one.graph) for one in batch]
  while True:
    own = sweeps.stack(members, mesh, parallel)
    start, draw_test, take_steps, evaluate = (
      sweeps.over_runs(function, mesh, parallel)
      for function in (run.start, run.draw_test, run.take_steps, run.evaluate)
    )
    state, test = jax.jit(start)(own), jax.jit(draw_test)(own)
    steps = jax.jit(take_steps, donate_argnums=1).lower(own, state).compile()
    measures = jax.jit(evaluate).lower(own, state, test).compile()
    if parallel == 1 or max(map(_bytes, (steps, measures))) < _memory(mesh):
      exact = jax.jit(sweeps.over_runs(run.exact, mesh, parallel))
      return Compiled(own, state, test, steps, measures, exact)
    parallel = math.ceil(parallel / 2)


def _bytes(compiled) -> int:
  """What a compiled function needs on each device."""
  needs = compiled.memory_analysis()
  return (
    needs.argument_size_in_bytes
    + needs.output_size_in_bytes
    + needs.temp_size_in_bytes
  )


def _memory(mesh) -> float:
  """Nine tenths of the bytes that a device has; cores share the machine's."""
  if limits := mesh.devices.flat[0].memory_stats():
    return 0.9 * limits["bytes_limit"]
  whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return 0.9 * whole / mesh.size


def _resume(home: pathlib.Path, start: training.TrainState, num_runs: int):
  """The newest saved state of a batch, or its start."""
  saved, messages = runs.load_state(home, _on_host(start, num_runs))
  for message in messages:
    print(f"warning: {message}", file=sys.stderr)
  if saved is None:
    return start
  padding = start.step.shape[0] - num_runs

  def pad(leaf, like):
    whole = np.concatenate([leaf, np.repeat(leaf[-1:], padding, axis=0)])
    return jax.device_put(whole, like.sharding)

  return jax.tree.map(pad, saved, start)


def _on_host(state, num_runs: int):
  return jax.tree.map(lambda leaf: np.asarray(leaf)[:num_runs], state)


def _record(
  batch,
  homes,
  compiled: Compiled,
  state,
  steps: training.Steps | None,
  clock: clocks.Clock,
):
  """A row of metrics for every run, and a mark on those not finite."""
  step = int(state.step[0])
  rows = _measure(batch, compiled, state)
  all_steps = jax.device_get(steps)
  for r, (row, home) in enumerate(zip(rows, homes, strict=True)):
    if is_done(home):
      continue
    mine = jax.tree.map(lambda seen, r=r: seen[r], all_steps)
    failed = mine and failure(mine, step - len(mine.loss_N))
    if row is None and not failed:
      failed = {"step": step, "what": "the test loss is not finite"}
    if failed:
      runs.write_failure(home, failed)
    elif row is not None:
      row |= {"step": step, **means(mine), **clock.seconds()}
      clock.save(runs.append_metrics, home, row)


def _finish(batch, homes, compiled: Compiled, state, clock: clocks.Clock):
  """The result and the last state of every run."""
  states = _on_host(state, len(batch))
  results = _measure(batch, compiled, state)
  exact = None
  if batch[0].config.eval.posterior_prompts:
    exact = jax.device_get(compiled.exact(compiled.own, compiled.test))
  for r, (result, home) in enumerate(zip(results, homes, strict=True)):
    if is_done(home):
      continue
    assert result is not None  # or the run would have been marked
    predictors = _predictors(compiled.test, r)
    mine = jax.tree.map(lambda of_runs, r=r: of_runs[r], exact)
    result |= reference_losses(predictors) | against_exact(
      result, predictors, mine
    )
    mine = jax.tree.map(lambda leaf, r=r: leaf[r], states)
    clock.save(runs.save_state, home, int(mine.step), mine)
    result |= {"steps": int(mine.step), **clock.seconds()}
    runs.write_result(home, result)


def _measure(batch, compiled: Compiled, state) -> list[dict | None]:
  """What every evaluation is summed up in, or None where it is not finite."""
  found = compiled.evaluate(compiled.own, state, compiled.test)
  loss_RxN, attention_RxHxTxT = jax.device_get(
    (found.loss_N, found.attention["attention_1"])
  )
  return [
    measures(
      loss_RxN[r],
      recovery.compare(attention_RxHxTxT[r], run.graph, include_self=True),
      _predictors(compiled.test, r),
    )
    if np.isfinite(loss_RxN[r]).all()
    else None
    for r, run in enumerate(batch)
  ]


def _predictors(test: program.Test, r: int) -> dict:
  return {name: loss_RxN[r] for name, loss_RxN in test.predictors.items()}
