"""Compiles the functions that the training loop calls, for one run or many.

A single run splits the prompts of every batch over all devices. Several runs of
one program are stacked and split over the devices of this process instead. The
training loop sees the same `Trainer` in both cases: the arrays that it returns
to the host have a leading axis of R runs, with R = 1 for a single run.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
import functools
import itertools
import math
import os
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from jax.sharding import Sharding
from jax.sharding import SingleDeviceSharding
import numpy as np

from experiments.harness import memory
from experiments.harness import program
from experiments.harness.grid import Run
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
  mesh = parallel.batch_mesh()
  functions = program.program(run.config, mesh)
  full = parallel.replicated(mesh)
  inputs = jax.device_put(program.run_inputs(run.config, run.graph), full)
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    compiled = _compile(functions, run.config, inputs, mesh, pool)
    # One program must end before the next begins: on a CPU, two programs that
    # run at once and whose devices wait for each other can deadlock.
    test = jax.block_until_ready(compiled["draw_test"].result()(inputs))
    baselines = jax.block_until_ready(
      jax.jit(lambda tree: tree, out_shardings=full)(test.baselines)
    )
    first = None
    if run.config.eval.posterior_prompts:
      run_exact = compiled["exact"].result()
      first = jax.block_until_ready(run_exact(inputs, test, 0))
    of = jax.block_until_ready(
      compiled["draw_baselines"].result()(inputs, test, first)
    )
    start = compiled["start"].result()(inputs)
    take_steps, evaluate, phase = (
      compiled[name].result() for name in ("take_steps", "evaluate", "phase")
    )

  def steps(state, num_steps):
    state, taken = take_steps(inputs, state, num_steps)
    return state, _with_run_axis(taken)

  def evaluation(state, num_batches):
    found = jax.block_until_ready(evaluate(inputs, state, test, num_batches))
    of_found = phase(*_on_one_device((inputs, found, of)))
    return _with_run_axis((found._replace(law_NxS=None), of_found))

  def exact():
    blocks = (
      run_exact(inputs, test, block)
      for block in range(1, program.num_blocks(run.config, mesh))
    )
    return None if first is None else _joined(first, blocks, _with_run_axis)

  def to_devices(state):
    return jax.device_put(jax.tree.map(lambda leaf: leaf[0], state), full)

  return Trainer(
    start=start,
    baselines=_with_run_axis(baselines),
    take_steps=steps,
    evaluate=evaluation,
    exact=exact,
    to_host=_with_run_axis,
    to_devices=to_devices,
  )


def _compile(
  functions: program.Program, config, inputs, mesh: Mesh, pool: futures.Executor
) -> dict[str, futures.Future]:
  """Compiles the functions of one run side by side, before they have arguments.

  The compilers start in the order in which `single` needs the functions, but
  for `take_steps`, which takes long.
  """
  full, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
  compiled = {}

  def compiles(name: str, *arguments, sharding: Sharding = full, **options):
    """Submits a function; returns the shapes of its results."""
    function = getattr(functions, name)
    lowered = jax.jit(function, out_shardings=sharding, **options).lower(
      *arguments
    )
    compiled[name] = pool.submit(lowered.compile)
    return _placed(lowered.out_info, sharding)

  test = compiles("draw_test", inputs, sharding=split)
  state = compiles("start", inputs)
  compiles("take_steps", inputs, state, 1, donate_argnums=1)
  first = None
  if config.eval.posterior_prompts:
    first = compiles("exact", inputs, test, 0)
  of = compiles("draw_baselines", inputs, test, first)
  found = compiles("evaluate", inputs, state, test, 1)
  one = SingleDeviceSharding(jax.local_devices()[0])
  compiles("phase", *_placed((inputs, found, of), one), sharding=one)
  return compiled


def _placed(tree, sharding: Sharding):
  """The shapes and types of the arrays of a tree, on other devices."""
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree
  )


def stacked(batch: Sequence[Run], at_once: int) -> Trainer:
  """Runs of one program, split over the devices of this process.

  Args:
    batch: the runs.
    at_once: number of runs per device at once; reduced if memory is short.
  """
  num, mesh = len(batch), parallel.runs_mesh()
  compiled = compile_stacked(batch, mesh, at_once)
  inputs, test = compiled.inputs, compiled.test

  def to_host(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:num], tree)

  def steps(state, num_steps):
    state, taken = compiled.take_steps(inputs, state, num_steps)
    return state, to_host(taken)

  def evaluation(state, num_batches):
    found = compiled.evaluate(inputs, state, test, num_batches)
    of_found = compiled.phase(inputs, found, compiled.baselines)
    return to_host((found._replace(law_NxS=None), of_found))

  def exact():
    if compiled.exact is None:
      return None
    blocks = (
      compiled.run_exact(inputs, test, block)
      for block in range(1, program.num_blocks(batch[0].config))
    )
    return _joined(compiled.exact, blocks, to_host)

  def to_devices(state):
    def pad(leaf, like):
      padding = np.repeat(leaf[-1:], len(like) - num, axis=0)
      return jax.device_put(np.concatenate([leaf, padding]), like.sharding)

    return jax.tree.map(pad, state, compiled.start)

  return Trainer(
    start=compiled.start,
    baselines=to_host(test.baselines),
    take_steps=steps,
    evaluate=evaluation,
    exact=exact,
    to_host=to_host,
    to_devices=to_devices,
  )


class Stacked(NamedTuple):
  """`program.Program` for stacked runs: results, and compiled functions.

  Of the exact posterior, the first block and the function for the others.
  """

  inputs: program.RunInputs
  start: Any
  test: Any
  exact: Any
  run_exact: Any
  baselines: Any
  take_steps: Any
  evaluate: Any
  phase: Any


def compile_stacked(batch: Sequence[Run], mesh: Mesh, at_once: int) -> Stacked:
  """Compiles a batch; halves `at_once` until the program fits in memory."""
  functions = program.program(batch[0].config)
  members = [program.run_inputs(run.config, run.graph) for run in batch]
  while True:
    inputs = parallel.stack(members, mesh, at_once)
    over_runs = functools.partial(
      parallel.over_runs, mesh=mesh, parallel=at_once
    )
    start, draw_test = map(over_runs, (functions.start, functions.draw_test))
    take_steps, evaluate, run_exact = (
      over_runs(function, num_shared=1)
      for function in (
        functions.take_steps,
        functions.evaluate,
        functions.exact,
      )
    )
    state = jax.jit(start)(inputs)
    draw = jax.jit(draw_test).lower(inputs).compile()
    if at_once == 1 or _bytes(draw) < _memory(mesh):
      test = draw(inputs)
      steps = jax.jit(take_steps, donate_argnums=1).lower(inputs, state, 1)
      measure = jax.jit(evaluate).lower(inputs, state, test, 1)
      with futures.ThreadPoolExecutor() as pool:
        steps, measure = pool.map(lambda a: a.compile(), (steps, measure))
      needed = max(map(_bytes, (steps, measure)))
      if at_once == 1 or needed < _memory(mesh):
        exact, run_exact = None, jax.jit(run_exact)
        if batch[0].config.eval.posterior_prompts:
          exact = run_exact(inputs, test, 0)
        of = jax.jit(over_runs(functions.draw_baselines))(inputs, test, exact)
        phase = jax.jit(over_runs(functions.phase))
        return Stacked(
          *(inputs, state, test, exact, run_exact, of, steps, measure, phase)
        )
    at_once = math.ceil(at_once / 2)


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
