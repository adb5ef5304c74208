"""The measurements of the benchmark: its parts, and a function for each."""

from collections.abc import Sequence
import itertools
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

from configs import many_graphs
from configs import single_parent
from experiments.benchmark import cold_start
from experiments.benchmark import implementations
from experiments.benchmark import roofline
from experiments.benchmark import tables
from experiments.benchmark import tiers
from experiments.benchmark.implementations import Case
from experiments.harness import program
from experiments.harness import traced
from icl_causal import graphs
from icl_causal import parallel
from icl_causal import priors
from icl_causal import runs
from icl_causal.config import build
from icl_causal.config import record

CASES = {
  "step": [Case(10, 20, 1024)],
  "sizes": [Case(S, T, 64) for S in (3, 10, 50) for T in (20, 64, 256, 512)],
  "batches": [Case(10, 20, B) for B in (16, 64, 256, 4096)],
  "heads": [
    Case(10, 20, 256, heads)
    for heads in ((1,), (2,), (3,), (1, 1), (2, 1), (3, 1), (1, 2), (1, 3))
  ],
}
# With --smoke. The growth is fitted over T >= 64.
SMALL_CASES = {
  "step": [Case(3, 6, 16)],
  "sizes": [Case(3, T, 4) for T in (64, 80)],
  "batches": [Case(3, 6, 32)],
  "heads": [Case(3, 6, 16, (2, 1))],
}
# (S, parents of each token) of `parents`: T = 20, 256 prompts.
PARENTS = ((3, 3), (10, 2), (5, 3), (10, 3))
PARTS = (*CASES, "parents", "sweep", "edges", "start", "tiers")


def measure(
  workdir: pathlib.Path, parts: list[str], repeats: int, small: bool = False
) -> dict:
  """Measures the parts, and writes the results to `workdir`.

  Each row of a table is printed and appended to metrics.jsonl as soon as it is
  measured.

  Args:
    workdir: a run directory.
    parts: of `PARTS`.
    repeats: timings for each number.
    small: whether the problems are small, as with --smoke.
  """
  cases, num_runs = (SMALL_CASES, 2) if small else (CASES, 64)
  limits = roofline.measure_limits()
  device = f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
  result: dict = {"device": device, "limits": limits._asdict()}
  for part in parts:
    if part in cases:
      print(tables.HEADER, flush=True)
      result[part] = []
      for case, kind in itertools.product(cases[part], implementations.KINDS):
        row = compare(kind, case, limits, repeats)
        print(tables.line(row), flush=True)
        runs.append_metrics(workdir, row)
        result[part].append(row)
    elif part == "parents":
      result[part] = several_parents(repeats, PARENTS[:1] if small else PARENTS)
    elif part == "sweep":
      config = many_graphs.get_config("rates")
      result[part] = side_by_side(repeats, config, num_runs)
    elif part == "edges":
      result[part] = to_all_edges(repeats)
    elif part == "tiers":
      result[part] = tiers.hours(repeats, 1 if small else 3, small)
    else:
      result[part] = cold_start.start(repeats)
    if part == "sizes":
      result["growth"] = tables.growth(result[part])
      runs.save_figure(workdir, "sizes", tables.figure(result[part]))
  # The table is made from what result.json contains: sorted names, no tuples.
  result = json.loads(record.canonical(result))
  runs.write_text(workdir / "table.txt", tables.table(result))
  runs.write_result(workdir, result)
  return result


def compare(
  kind: str, case: Case, limits: roofline.Limits, repeats: int
) -> dict:
  """A row of the table: one kind of work at one size."""
  library = implementations.from_library(case)
  loops = [
    implementations.loop(kind, case, implementation)
    for implementation in (implementations.from_textbook(case), library)
  ]
  compiled = [implementations.compiled(loop) for loop in loops]
  timers = [
    implementations.timer(*pair) for pair in zip(loops, compiled, strict=True)
  ]
  ms = 1e3 * np.array([[timer() for timer in timers] for _ in range(repeats)])
  # Work is counted without a mesh and without chunks: the total over devices.
  undivided = implementations.loop(
    kind, case, library._replace(mesh=None, chunk_size=None), loops[1].data
  )
  work = roofline.count_work(undivided.step, undivided.carry, undivided.data)
  limit_ms = 1e3 * roofline.min_seconds(work, limits)
  textbook_ms, ours_ms = np.median(ms, axis=0)
  memory: Any = compiled[1].memory_analysis()
  return {
    "kind": kind,
    **case._asdict(),
    "textbook_ms": float(textbook_ms),
    "ours_ms": float(ours_ms),
    "times_faster": float(np.median(ms[:, 0] / ms[:, 1])),
    "limit_ms": limit_ms,
    "times_limit": float(ours_ms) / limit_ms,
    "MiB": memory.temp_size_in_bytes / 2**20,
  }


def several_parents(
  repeats: int, settings: Sequence[tuple[int, int]]
) -> dict[str, float]:
  """Milliseconds for 256 prompts of 20 tokens with several parents each.

  With the whole kernel drawn first, as for any function as a prior, and with
  the rows that a prompt visits alone, as for independent rows.

  Args:
    repeats: timings for each number.
    settings: (S, number of parents), with at least three rows for each token.
  """
  result = {}
  for S, K in settings:
    prior = priors.dirichlet(implementations.ALPHA)
    timers = [
      implementations.sampling_timer(graphs.kgram(20, K), law, S, 256)
      for law in (lambda *drawn, prior=prior: prior(*drawn), prior)
    ]
    ms = 1e3 * np.array([[timer() for timer in timers] for _ in range(repeats)])
    name = f"S = {S}, {K} parents, {(S + 1) ** K} rows"
    result[f"{name}: all"], result[f"{name}: visited"] = np.median(ms, axis=0)
    result[f"{name}: times faster"] = np.median(ms[:, 0] / ms[:, 1])
  return {name: float(value) for name, value in result.items()}


def to_all_edges(repeats: int) -> dict[str, float]:
  """Seconds until every edge of the chain is recovered.

  Includes the share of them that compilation takes. The textbook version is
  measured once, and its seconds do not include the start of Python.
  """
  result = cold_start.to_all_edges(repeats)
  result["share of the compiler"] = (
    1 - result["seconds, warm"] / result["seconds, cold"]
  )
  config: build.Config = single_parent.get_config("chain")
  config.update_from_flattened_dict(cold_start.TRAINING)
  case = Case(config.prior.S, config.graph.T, config.train.batch_size)
  result["seconds, textbook"] = implementations.seconds_to_all_edges(
    implementations.from_textbook(case), config
  )
  return result


def side_by_side(
  repeats: int, config: build.Config, num_runs: int
) -> dict[str, float]:
  """Training steps per second, summed over runs, for three ways to train them.

  The runs differ in their seeds and take 8 steps each, already compiled. One
  after another: on one core, and on all cores as in `experiments.train`, which
  splits each batch over them. Side by side: one program for all runs, as in
  `experiments.sweep`. XLA lets other cores help the one core, but this saves no
  time: a process that is bound to one core takes as long.
  """
  config = config.copy_and_resolve_references()
  config.train.eval_every = 8
  graph = build.graph(config)
  inputs = [traced.run_inputs(config, graph) for _ in range(num_runs)]
  for r, run in enumerate(inputs):
    run.values["seed"] = run.values["seed"] + r
  ways = _ways_to_train(config, inputs)

  def seconds(step, arguments) -> float:
    started = time.perf_counter()
    for one in arguments:  # one call at a time, as in `experiments.train`
      jax.block_until_ready(step(*one))
    return time.perf_counter() - started

  for way in ways.values():
    seconds(*way)  # compiles
  times = np.array(
    [[seconds(*way) for way in ways.values()] for _ in range(repeats)]
  )
  steps = num_runs * config.train.eval_every
  result = dict(zip(ways, steps / np.median(times, axis=0), strict=True))
  ratios = np.median(times[:, :2] / times[:, 2:], axis=0)
  result["times faster than on one core"] = ratios[0]
  result["times faster than on all cores"] = ratios[1]
  return {name: float(value) for name, value in result.items()}


def _ways_to_train(
  config: build.Config, inputs: list[traced.RunInputs]
) -> dict[str, tuple]:
  """(step, arguments of each call) for each way to train the runs."""
  runs_mesh, batch_mesh = parallel.runs_mesh(), parallel.batch_mesh()
  runs_at_once = 8
  single = program.program(config)
  split = program.program(config, batch_mesh)
  start_all, steps_of_all = (
    jax.jit(parallel.over_runs(function, runs_mesh, runs_at_once))
    for function in (single.start, single.take_steps)
  )
  start = jax.jit(single.start)
  separate = [(run, start(run)) for run in inputs]
  stacked = parallel.stack(inputs, runs_mesh, runs_at_once)
  return {
    "one after another, on one core": (jax.jit(single.take_steps), separate),
    "one after another, on all cores": (
      jax.jit(split.take_steps),
      jax.device_put(separate, parallel.replicated(batch_mesh)),
    ),
    "side by side": (steps_of_all, [(stacked, start_all(stacked))]),
  }
