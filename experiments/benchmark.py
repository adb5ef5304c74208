"""Times the library against the textbook, and against the machine's limit.

    python -m experiments.benchmark --parts=step,sweep,start

Parts: `step`, the work of a training step at S = 10, T = 20, batch 1024;
`sizes`, the same at other S and T; `batches`; `heads`, with one layer and two;
`sweep`, 64 runs side by side and one after another; `edges`, the time to every
edge of a chain from a cold start; `start`, imports and --help. By default all,
half an hour on two cores. Rivals take turns in one process, numbers are
medians. Leaves metrics.jsonl, a row for each comparison, result.json, and with
`sizes` a figure.
"""

from collections.abc import Iterator, Sequence
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
_HEADER = ("", "S", "T", "batch", "heads", "textbook", "ours", "times faster")
_HEADER += ("limit", "of it", "MiB")


def main():
  """The command."""
  cli.use_cores(cli.cores())
  parts, repeats = flags.FLAGS.parts, flags.FLAGS.repeats
  for part in parts:
    if part not in PARTS:
      raise cli.Refused(f"--parts: {part!r} must be one of {', '.join(PARTS)}")
  workdir = cli.workdir(time.strftime("benchmark-%Y%m%d-%H%M%S"))
  record = {"parts": parts, "repeats": repeats}
  if runs.prepare(workdir, record, flags.FLAGS.overwrite):
    raise cli.Refused(f"{workdir} is finished: name another --workdir")
  can = machine.limits()
  print(
    f"{len(jax.devices())} x {jax.devices()[0].device_kind}: "
    f"{can.operations / 1e9:.0f} GFLOP/s, {can.bytes / 1e9:.0f} GB/s\n"
    "milliseconds a step, median ratios, the least that this machine allows, "
    "memory of ours"
  )
  result: dict = {"limits": can._asdict()}
  for part in parts:
    if part in CASES:
      rows = list(_show(_rows(CASES[part], can, repeats), workdir))
      result[part] = rows
      if part == "sizes":
        result["growth"] = growth(rows)
        _draw(workdir, rows)
    else:
      result[part] = {
        "sweep": lambda: side_by_side(
          repeats, many_graphs.get_config("rates"), num_runs=64
        ),
        "edges": lambda: to_all_edges(repeats),
        "start": lambda: cold.start(repeats),
      }[part]()
  print()
  for name in {*result} & {"growth", "sweep", "edges", "start"}:
    for what, value in result[name].items():
      print(f"{name}: {what}: {value:.3g}")
  runs.write_result(workdir, result)
  print(f"\n{workdir}/result.json has every number")


def compare(kind: str, case: Case, can: machine.Limits, repeats: int) -> dict:
  """A row of the table: one kind of work at one size."""
  loops = [
    rivals.loop(kind, case, made(case))
    for made in (rivals.from_textbook, rivals.from_library)
  ]
  compiled = [rivals.compiled(loop) for loop in loops]
  timers = [rivals.timer(*pair) for pair in zip(loops, compiled, strict=True)]
  ms = 1e3 * np.array([[timer() for timer in timers] for _ in range(repeats)])
  ours = loops[1]
  needs = machine.work(ours.step, ours.carry, ours.data)
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


def growth(rows: Sequence[dict]) -> dict[str, float]:
  """The power of T that the time of a training step grows with, for each S.

  By least squares on logarithms, from T = 64 on.
  """
  powers = {}
  for S in sorted({row["S"] for row in rows}):
    T, ms = _steps(rows, S, least=64)
    powers[f"power of T at S = {S}"] = float(
      np.polyfit(np.log(T), np.log(ms["ours_ms"]), 1)[0]
    )
  return powers


def to_all_edges(repeats: int) -> dict[str, float]:
  """Seconds until every edge of the chain is found, and the compiler's share.

  The textbook's, measured once, lack the start of Python.
  """
  result = cold.to_all_edges(repeats)
  result["share of the compiler"] = 1 - result["kept"] / result["cold"]
  config: build.Config = single_parent.get_config("chain")
  config.update_from_flattened_dict(cold.TRAINING)
  case = Case(config.prior.S, config.graph.T, config.train.batch_size)
  result["textbook"] = rivals.seconds_to_all_edges(
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


def _rows(cases, can: machine.Limits, repeats: int) -> Iterator[dict]:
  for case in cases:
    for kind in rivals.KINDS:
      yield compare(kind, case, can, repeats)


def _show(rows: Iterator[dict], workdir) -> Iterator[dict]:
  """Prints and keeps each row as soon as it is there."""
  line = "{:<14}{:>4}{:>5}{:>7}{:>9}{:>11}{:>10}{:>14}{:>9}{:>8}{:>9}"
  print("\n" + line.format(*_HEADER), flush=True)
  for row in rows:
    kind, S, T, batch, heads, *numbers = row.values()
    shown = (f"{number:.3g}" for number in numbers)
    print(line.format(kind, S, T, batch, str(heads), *shown), flush=True)
    runs.append_metrics(workdir, row)
    yield row


def _steps(rows: Sequence[dict], S: int, least: int = 0):
  """T, and by name what was measured of the training step."""
  chosen = [
    row
    for row in rows
    if row["kind"] == "training step" and row["S"] == S and row["T"] >= least
  ]
  names = ("textbook_ms", "ours_ms", "limit_ms")
  return [row["T"] for row in chosen], {
    name: [row[name] for row in chosen] for name in names
  }


def _draw(workdir, rows: Sequence[dict]):
  from icl_causal import plotting  # matplotlib, which --help can spare

  panels = {}
  for S in sorted({row["S"] for row in rows}):
    T, ms = _steps(rows, S)
    labels = ("textbook", "ours", "limit")
    panels[f"S = {S}"] = T, dict(zip(labels, ms.values(), strict=True))
  figure = plotting.scaling(panels, "T", "milliseconds a training step")
  runs.save_figure(workdir, "sizes", figure)


if __name__ == "__main__":
  flags.DEFINE_list("parts", list(PARTS), "What is timed.")
  flags.DEFINE_integer("repeats", 9, "Timings of each.", 1)
  flags.DEFINE_string("workdir", None, "Directory; by default one under runs/.")
  flags.DEFINE_bool("overwrite", False, "Delete what the directory holds.")
  cli.run(main)
