"""Compiles the functions that the training loop calls, for one run or many.

A single run splits the prompts of every batch over all devices. Several runs of
one program are stacked and split over the devices of this process instead. The
training loop sees the same `Trainer` in both cases: the arrays that it returns
to the host have a leading axis of R runs, with R = 1 for a single run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
import functools
import itertools
import math
import os
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from jax.sharding import SingleDeviceSharding
import numpy as np

from experiments.harness import memory
from experiments.harness import program
from experiments.harness import traced
from experiments.harness.grid import Run
from experiments.harness.traced import RunInputs
from icl_causal import metrics
from icl_causal import parallel
from icl_causal import phases
from icl_causal import training


class Trainer(NamedTuple):
  """The compiled functions of R runs. Host arrays have a leading axis R.

  Attributes:
    start: on the devices, the states before the first step.
    baselines: on the host, the losses of the baselines on the test sets.
    take_steps: maps a state and a number of steps, at most `train.eval_every`,
      to (state, Steps on the host); donates the state.
    evaluate: maps a state and a number of batches of the test set to the
      Evaluation, without `law_NxS`, and the Phase, on the host.
    exact: computes the losses of the exact posterior and its effective sample
      sizes, R x M, on the host; None if `eval.posterior_prompts` is 0.
    to_host: copies a state to the host.
    to_devices: copies a state from the host to the devices.
  """

  start: training.TrainState
  baselines: dict[str, np.ndarray]
  take_steps: Callable[
    [training.TrainState, int], tuple[training.TrainState, training.Steps]
  ]
  evaluate: Callable[
    [training.TrainState, int], tuple[training.Evaluation, phases.Phase]
  ]
  exact: Callable[[], metrics.ExactLosses | None]
  to_host: Callable[[training.TrainState], training.TrainState]
  to_devices: Callable[[training.TrainState], training.TrainState]


def single(run: Run) -> Trainer:
  """One run, with the prompts of every batch split over all devices."""
  mesh, config = parallel.batch_mesh(), run.config
  full, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
  places = {
    "draw_test": program.Test._make((split, split, full, split)),
    "phase": SingleDeviceSharding(jax.local_devices()[0]),
  }
  inputs = jax.device_put(traced.run_inputs(config, run.graph), full)
  functions = program.program(config, mesh)
  compiled = _compile(
    functions, config, inputs, lambda name: places.get(name, full)
  )

  def to_devices(state, start):
    del start
    return jax.device_put(jax.tree.map(lambda leaf: leaf[0], state), full)

  return _trainer(
    *(config, mesh, inputs, compiled, _with_run_axis, to_devices),
    on_one=_on_one_device,
  )


def stacked(batch: Sequence[Run], at_once: int) -> Trainer:
  """Runs of one program, split over the devices of this process.

  Args:
    batch: the runs.
    at_once: number of runs per device at once; reduced if memory is short.
  """
  num, mesh = len(batch), parallel.runs_mesh()
  inputs, compiled = compile_stacked(batch, mesh, at_once)

  def to_host(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:num], tree)

  def to_devices(state, start):
    def pad(leaf, like):
      padding = np.repeat(leaf[-1:], len(like) - num, axis=0)
      return jax.device_put(np.concatenate([leaf, padding]), like.sharding)

    return jax.tree.map(pad, state, start)

  return _trainer(batch[0].config, None, inputs, compiled, to_host, to_devices)


def compile_stacked(
  batch: Sequence[Run], mesh: Mesh, at_once: int
) -> tuple[RunInputs, dict[str, futures.Future]]:
  """The inputs of a batch, and the compiled functions of its program by name.

  Halves `at_once` until they fit in memory.
  """
  config = batch[0].config
  functions = program.program(config)
  members = [traced.run_inputs(run.config, run.graph) for run in batch]
  while True:
    inputs = parallel.stack(members, mesh, at_once)
    over_runs = _over_runs(functions, mesh, at_once)
    sharding = jax.tree.leaves(inputs)[0].sharding
    compiled = _compile(over_runs, config, inputs, lambda name: sharding)  # noqa: B023
    largest = ("draw_test", "take_steps", "evaluate")
    needed = max(_bytes(compiled[name].result()) for name in largest)
    if at_once == 1 or needed < _memory(mesh):
      return inputs, compiled
    at_once = math.ceil(at_once / 2)


@functools.lru_cache(maxsize=program.MOST_KEPT)
def _over_runs(
  functions: program.Program, mesh: Mesh, at_once: int
) -> program.Program:
  """The functions of a program over stacked runs."""
  shared = {"take_steps": 1, "evaluate": 1, "exact": 1}  # numbers
  return program.Program(
    *(
      parallel.over_runs(function, mesh, at_once, shared.get(name, 0))
      for name, function in functions._asdict().items()
    )
  )


def _compile(
  functions: program.Program,
  config,
  inputs: RunInputs,
  place: Callable[[str], Any],
) -> dict[str, futures.Future]:
  """Starts to compile the functions of a program side by side.

  Args:
    functions: of one run, or of stacked runs.
    config: of the runs.
    inputs: on the devices.
    place: the shardings of the results of a function, by its name; the
      arguments of `phase` have those of its results.

  Returns:
    The compiled functions by name, in the order in which `_trainer` needs them,
    but for `take_steps`, which takes long.
  """
  pool, compiled = futures.ThreadPoolExecutor(os.cpu_count()), {}

  def compiles(name: str, *arguments, **options):
    """Submits a function; returns the shapes of its results."""
    out, function = place(name), getattr(functions, name)
    lowered = jax.jit(function, out_shardings=out, **options).lower(*arguments)
    compiled[name] = pool.submit(lowered.compile)
    return _placed(lowered.out_info, out)

  test = compiles("draw_test", inputs)
  state = compiles("start", inputs)
  compiles("take_steps", inputs, state, 1, donate_argnums=1)
  first = None
  if config.eval.posterior_prompts:
    first = compiles("exact", inputs, test, 0)
  of = compiles("draw_baselines", inputs, test, first)
  found = compiles("evaluate", inputs, state, test, 1)
  compiles("phase", *_placed((inputs, found, of), place("phase")))
  pool.shutdown(wait=False)
  return compiled


def _placed(tree, shardings):
  """The shapes and types of the arrays of a tree, on other devices."""
  return jax.tree.map(
    lambda sharding, part: jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), part
    ),
    shardings,
    tree,
  )


def _trainer(
  config,
  mesh: Mesh | None,
  inputs: RunInputs,
  compiled: Mapping[str, futures.Future],
  to_host: Callable,
  to_devices: Callable,
  on_one: Callable = lambda tree: tree,
) -> Trainer:
  """The trainer of compiled functions, with the results that all steps share.

  Args:
    config: of the runs.
    mesh: of devices that share the prompts of every batch.
    inputs: on the devices.
    compiled: the functions by name.
    to_host: copies a tree to the host, with a leading axis of runs.
    to_devices: copies a state from the host to the devices of a second one.
    on_one: places the arguments of the phase.
  """

  def run(name: str, *arguments):
    """One program must end before the next begins.

    On a CPU, two programs that run at once and whose devices wait for each
    other can deadlock.
    """
    return jax.block_until_ready(compiled[name].result()(*arguments))

  start, test, first = run("start", inputs), run("draw_test", inputs), None
  if config.eval.posterior_prompts:
    first = run("exact", inputs, test, 0)
  of = run("draw_baselines", inputs, test, first)

  def take_steps(state, num_steps):
    state, taken = run("take_steps", inputs, state, num_steps)
    return state, to_host(taken)

  def evaluate(state, num_batches):
    found = run("evaluate", inputs, state, test, num_batches)
    of_found = run("phase", *on_one((inputs, found, of)))
    return to_host((found._replace(law_NxS=None), of_found))

  def exact():
    blocks = (
      run("exact", inputs, test, block)
      for block in range(1, program.num_blocks(config, mesh))
    )
    return None if first is None else _joined(first, blocks, to_host)

  return Trainer(
    start=start,
    baselines=to_host(test.baselines),
    take_steps=take_steps,
    evaluate=evaluate,
    exact=exact,
    to_host=to_host,
    to_devices=lambda state: to_devices(state, start),
  )


def _joined(
  first: metrics.ExactLosses,
  others: Iterable[metrics.ExactLosses],
  to_host: Callable,
) -> metrics.ExactLosses:
  """The losses of all blocks on the host, R x M, without laws."""
  blocks = [
    to_host(block._replace(law_MxS=None))
    for block in itertools.chain([first], others)
  ]
  return jax.tree.map(lambda *a: np.concatenate(a, axis=1), *blocks)


def _with_run_axis(tree):
  """Copies a tree to the host and adds a leading axis of one run."""
  return jax.tree.map(lambda leaf: np.asarray(leaf)[None], tree)


def _on_one_device(tree):
  """The copy of replicated arrays that the first device of this process has."""
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def _bytes(compiled) -> int:
  """The memory that a compiled function needs on each device."""
  needs = compiled.memory_analysis()
  return (
    needs.argument_size_in_bytes
    + needs.output_size_in_bytes
    + needs.temp_size_in_bytes
  )


def _memory(mesh: Mesh) -> float:
  """90 % of a device's memory in bytes; CPU devices share the machine's."""
  return memory.available() / mesh.size
