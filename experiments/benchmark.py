"""Times the library against the textbook, and against the machine's limit.

    python -m experiments.benchmark --parts=step,sweep,start

Parts: `step`, the work of a training step at S = 10, T = 20, batch 1024;
`sizes`, the same at other S and T; `batches`; `heads`, with one layer and two;
`sweep`, 64 runs side by side and one after another; `edges`, the time to every
edge of a chain from a cold start; `start`, imports and --help. By default all,
half an hour on two cores. Rivals take turns in one process, numbers are
medians. Leaves metrics.jsonl, a row for each comparison, result.json and
table.txt, and with `sizes` a figure. --before=FILE, the result.json of another
time, shows what has become faster since.
"""

import itertools
import json
import pathlib
import time
from typing import Any

from absl import flags
import jax
import numpy as np

from configs import many_graphs
from configs import single_parent
from experiments import build
from experiments import cli
from experiments import cold
from experiments import machine
from experiments import program
from experiments import rivals
from experiments import timings
from experiments.rivals import Case
from icl_causal import runs
from icl_causal import sweeps

CASES = {
  "step": [Case(10, 20, 1024)],
  "sizes": [Case(S, T, 64) for S in (3, 10, 50) for T in (20, 64, 256, 512)],
  "batches": [Case(10, 20, B) for B in (16, 64, 256, 4096)],
  "heads": [
    Case(10, 20, 256, heads)
    for heads in ((1,), (2,), (3,), (1, 1), (2, 1), (3, 1), (1, 2), (1, 3))
  ],
}
PARTS = (*CASES, "sweep", "edges", "start")


def main():
  """The command."""
  cli.use_cores(cli.cores())
  parts, repeats = flags.FLAGS.parts, flags.FLAGS.repeats
  for part in parts:
    if part not in PARTS:
      raise cli.Refused(f"--parts: {part!r} must be one of {', '.join(PARTS)}")
  before = _read(flags.FLAGS.before)
  workdir = cli.workdir(time.strftime("benchmark-%Y%m%d-%H%M%S"))
  record = {"parts": parts, "repeats": repeats}
  with runs.opened(workdir, record, flags.FLAGS.overwrite) as finished:
    if finished:
      raise cli.Refused(f"{workdir} is finished: name another --workdir")
    result = measure(workdir, parts, repeats)
  print(f"\n{timings.table(result)}\n{workdir}/result.json has every number")
  if before is not None:
    print(f"\n{timings.changes(before, result)}")


def measure(workdir: pathlib.Path, parts: list[str], repeats: int) -> dict:
  """Measures the parts, and writes each row as soon as it is there."""
  can = machine.limits()
  device = f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
  result: dict = {"device": device, "limits": can._asdict()}
  for part in parts:
    if part in CASES:
      print(timings.HEADER, flush=True)
      result[part] = []
      for case, kind in itertools.product(CASES[part], rivals.KINDS):
        row = compare(kind, case, can, repeats)
        print(timings.line(row), flush=True)
        runs.append_metrics(workdir, row)
        result[part].append(row)
    else:
      result[part] = {
        "sweep": lambda: side_by_side(
          repeats, many_graphs.get_config("rates"), num_runs=64
        ),
        "edges": lambda: to_all_edges(repeats),
        "start": lambda: cold.start(repeats),
      }[part]()
    if part == "sizes":
      result["growth"] = timings.growth(result[part])
      runs.save_figure(workdir, "sizes", timings.figure(result[part]))
  result = json.loads(runs.canonical(result))  # as its readers have it
  runs.write_text(workdir / "table.txt", timings.table(result))
  runs.write_result(workdir, result)
  return result


def compare(kind: str, case: Case, can: machine.Limits, repeats: int) -> dict:
  """A row of the table: one kind of work at one size."""
  library = rivals.from_library(case)
  loops = [
    rivals.loop(kind, case, made)
    for made in (rivals.from_textbook(case), library)
  ]
  compiled = [rivals.compiled(loop) for loop in loops]
  timers = [rivals.timer(*pair) for pair in zip(loops, compiled, strict=True)]
  ms = 1e3 * np.array([[timer() for timer in timers] for _ in range(repeats)])
  # The work itself, however it is parted.
  library = library._replace(mesh=None, chunk_size=None)
  whole = rivals.loop(kind, case, library, loops[1].data)
  needs = machine.work(whole.step, whole.carry, whole.data)
  limit_ms = 1e3 * machine.least_seconds(needs, can)
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


def to_all_edges(repeats: int) -> dict[str, float]:
  """Seconds until every edge of the chain is found, and the compiler's share.

  The textbook's, measured once, lack the start of Python.
  """
  result = cold.to_all_edges(repeats)
  result["share of the compiler"] = (
    1 - result["seconds, warm"] / result["seconds, cold"]
  )
  config: build.Config = single_parent.get_config("chain")
  config.update_from_flattened_dict(cold.TRAINING)
  case = Case(config.prior.S, config.graph.T, config.train.batch_size)
  result["seconds, textbook"] = rivals.seconds_to_all_edges(
    rivals.from_textbook(case), config
  )
  return result


def side_by_side(
  repeats: int, config: build.Config, num_runs: int
) -> dict[str, float]:
  """Steps of runs a second: one run after another, and all in one program.

  Runs of different seeds, 8 steps of each, compiled before. One after another
  on one core, and as `experiments.train` does it, each batch split over the
  cores; side by side as `experiments.sweep` does it.
  """
  config = config.copy_and_resolve_references()
  config.train.eval_every = 8
  graph = build.graph(config)
  members = [program.member(config, graph) for _ in range(num_runs)]
  for r, own in enumerate(members):
    own.values["seed"] = own.values["seed"] + r
  mesh, parallel = sweeps.local_mesh(), 8
  alone, split = program.program(config), program.program(config, build.mesh())
  many = [
    jax.jit(sweeps.over_runs(function, mesh, parallel))
    for function in (alone.start, alone.take_steps)
  ]
  singly, spread = jax.jit(alone.take_steps), jax.jit(split.take_steps)
  start = jax.jit(alone.start)
  apart = [(own, start(own)) for own in members]
  replicated = jax.device_put(apart, build.whole(build.mesh()))
  stacked = sweeps.stack(members, mesh, parallel)
  together = [(stacked, many[0](stacked))]
  ways = {
    "one after another, on one core": (singly, apart),
    "one after another, on all cores": (spread, replicated),
    "side by side": (many[1], together),
  }

  def seconds(step, arguments) -> float:
    started = time.perf_counter()
    for one in arguments:  # never two at once, as in `experiments.train`
      jax.block_until_ready(step(*one))
    return time.perf_counter() - started

  for way in ways.values():
    seconds(*way)
  taken = np.array(
    [[seconds(*w) for w in ways.values()] for _ in range(repeats)]
  )
  steps = num_runs * config.train.eval_every
  result = dict(zip(ways, steps / np.median(taken, axis=0), strict=True))
  ratios = np.median(taken[:, :2] / taken[:, 2:], axis=0)
  result["times faster than on one core"] = ratios[0]
  result["times faster than on all cores"] = ratios[1]
  return {name: float(value) for name, value in result.items()}


def _read(path: str | None) -> dict | None:
  if path is None:
    return None
  try:
    return json.loads(pathlib.Path(path).read_text())
  except (OSError, ValueError) as error:
    raise cli.Refused(f"--before={path}: {error}") from error


if __name__ == "__main__":
  flags.DEFINE_list("parts", list(PARTS), "What is timed.")
  flags.DEFINE_integer("repeats", 9, "Timings of each.", 1)
  flags.DEFINE_string("before", None, "The result.json of another time.")
  flags.DEFINE_string("workdir", None, "Directory; by default one under runs/.")
  flags.DEFINE_bool("overwrite", False, "Delete what the directory holds.")
  cli.run(main)
