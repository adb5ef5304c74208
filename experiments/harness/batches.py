"""Compiles the functions that the training loop calls, for one run or many.

A single run splits the prompts of every batch over all devices. Several runs of
one program are stacked and split over the devices of this process instead. The
training loop sees the same `Trainer` in both cases: what it returns to the host
has a leading axis R of runs, which is 1 for a single run.
"""

from collections.abc import Callable, Sequence
import math
import os
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
import numpy as np

from experiments.harness import program
from experiments.harness.grid import Run
from icl_causal import parallel
from icl_causal import training


class Trainer(NamedTuple):
  """The compiled functions of R runs. Host arrays have a leading axis R.

  Attributes:
    start: on the devices, the states before the first step.
    predictors: on the host, the losses of the baselines on the test sets.
    take_steps: (state) to (state, Steps on the host); donates its argument.
    evaluate: (state) to losses R x N and layer-1 maps R x H x T x T, on the
      host.
    exact: () to losses and effective sample sizes, R x M, on the host.
    to_host: copies a state.
    to_devices: copies a state back.
  """

  start: training.TrainState
  predictors: dict[str, np.ndarray]
  take_steps: Callable[
    [training.TrainState], tuple[training.TrainState, training.Steps]
  ]
  evaluate: Callable[[training.TrainState], tuple[np.ndarray, np.ndarray]]
  exact: Callable[[], tuple[np.ndarray, np.ndarray]]
  to_host: Callable[[training.TrainState], training.TrainState]
  to_devices: Callable[[training.TrainState], training.TrainState]


def single(run: Run) -> Trainer:
  """One run, with the prompts of every batch split over all devices."""
  mesh = parallel.batch_mesh()
  functions = program.program(run.config, mesh)
  full = parallel.replicated(mesh)
  inputs = jax.device_put(program.run_inputs(run.config, run.graph), full)
  # One program ends before the next begins: on a CPU, two programs whose
  # devices wait for each other can deadlock.
  test = jax.block_until_ready(
    jax.jit(functions.draw_test, out_shardings=parallel.batch_sharding(mesh))(
      inputs
    )
  )
  predictors = jax.block_until_ready(
    jax.jit(lambda tree: tree, out_shardings=full)(test.predictors)
  )
  take_steps = jax.jit(
    functions.take_steps, donate_argnums=1, out_shardings=full
  )
  evaluate = jax.jit(functions.evaluate, out_shardings=full)
  exact = jax.jit(functions.exact, out_shardings=full)

  def steps(state):
    state, seen = take_steps(inputs, state)
    return state, _with_run_axis(seen)

  def evaluation(state):
    result = evaluate(inputs, state, test)
    return _with_run_axis((result.loss_N, result.attention["attention_1"]))

  def to_devices(state):
    return jax.device_put(jax.tree.map(lambda leaf: leaf[0], state), full)

  return Trainer(
    start=jax.jit(functions.start, out_shardings=full)(inputs),
    predictors=_with_run_axis(predictors),
    take_steps=steps,
    evaluate=evaluation,
    exact=lambda: _with_run_axis(exact(inputs, test)),
    to_host=_with_run_axis,
    to_devices=to_devices,
  )


def stacked(batch: Sequence[Run], at_once: int) -> Trainer:
  """Runs of one program, split over the devices of this process.

  Args:
    batch: the runs.
    at_once: how many runs a device works on at once; fewer if memory is short.
  """
  num, mesh = len(batch), parallel.runs_mesh()
  compiled = compile_stacked(batch, mesh, at_once)
  inputs, test = compiled.inputs, compiled.test

  def to_host(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:num], tree)

  def steps(state):
    state, seen = compiled.take_steps(inputs, state)
    return state, to_host(seen)

  def evaluation(state):
    result = compiled.evaluate(inputs, state, test)
    return to_host((result.loss_N, result.attention["attention_1"]))

  def to_devices(state):
    def pad(leaf, like):
      padding = np.repeat(leaf[-1:], len(like) - num, axis=0)
      return jax.device_put(np.concatenate([leaf, padding]), like.sharding)

    return jax.tree.map(pad, state, compiled.start)

  return Trainer(
    start=compiled.start,
    predictors=to_host(test.predictors),
    take_steps=steps,
    evaluate=evaluation,
    exact=lambda: to_host(compiled.exact(inputs, test)),
    to_host=to_host,
    to_devices=to_devices,
  )


class Stacked(NamedTuple):
  """`program.Program` compiled for stacked runs, with its first values."""

  inputs: program.RunInputs
  start: Any
  test: Any
  take_steps: Any
  evaluate: Any
  exact: Any


def compile_stacked(batch: Sequence[Run], mesh: Mesh, at_once: int) -> Stacked:
  """Compiles a batch, for fewer runs at once if memory is short."""
  functions = program.program(batch[0].config)
  members = [program.run_inputs(run.config, run.graph) for run in batch]
  while True:
    inputs = parallel.stack(members, mesh, at_once)
    start, draw_test, take_steps, evaluate = (
      parallel.over_runs(function, mesh, at_once)
      for function in (
        functions.start,
        functions.draw_test,
        functions.take_steps,
        functions.evaluate,
      )
    )
    state, test = jax.jit(start)(inputs), jax.jit(draw_test)(inputs)
    steps = jax.jit(take_steps, donate_argnums=1).lower(inputs, state)
    steps = steps.compile()
    measure = jax.jit(evaluate).lower(inputs, state, test).compile()
    needed = max(map(_bytes, (steps, measure)))
    if at_once == 1 or needed < _memory(mesh):
      exact = jax.jit(parallel.over_runs(functions.exact, mesh, at_once))
      return Stacked(inputs, state, test, steps, measure, exact)
    at_once = math.ceil(at_once / 2)


def _with_run_axis(tree):
  """On the host, with a leading axis of one run."""
  return jax.tree.map(lambda leaf: np.asarray(leaf)[None], tree)


def _bytes(compiled) -> int:
  """The memory that a compiled function needs on each device."""
  needs = compiled.memory_analysis()
  return (
    needs.argument_size_in_bytes
    + needs.output_size_in_bytes
    + needs.temp_size_in_bytes
  )


def _memory(mesh: Mesh) -> float:
  """Nine tenths of the bytes of a device; cores share those of the machine."""
  if limits := mesh.devices.flat[0].memory_stats():
    return 0.9 * limits["bytes_limit"]
  total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return 0.9 * total / mesh.size
