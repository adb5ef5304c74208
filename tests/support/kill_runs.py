"""Kills runs at random moments and compares them with uninterrupted runs.

    python -m tests.support.kill_runs --kills=50 [--kinds forests verify]

Each run is killed once, with SIGKILL, at a moment that is uniform over the time
of an uninterrupted run. The same command then resumes it, or starts again if it
keeps no state (`forests`). Its results, metrics, attention maps and states must
be bitwise equal to those of the uninterrupted run, for every run of a sweep.
Results that were written before the kill must not be written again. `verify` is
`tests.support.small_verify`; its recorded lines and its table are compared.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from icl_causal import runs
from tests.support import artifacts

ROOT = pathlib.Path(__file__).parents[2]
_SIZES = (
  "--config.train.steps=480",  # a second or two, half of a run
  "--config.train.eval_every=2",
  "--config.train.batch_size=32",
  "--config.eval.test_size=64",
  "--config.eval.batch_size=64",
  "--config.eval.posterior_prompts=0",
)
COMMANDS = {
  "joint": (
    "experiments.train",
    "--config=configs/single_parent.py:manual",
    "--keep=2",
    *_SIZES,
  ),
  "sweep": (
    "experiments.sweep",
    "--config=configs/many_graphs.py:graphs",
    "--config.graph.T=6",
    "--config.train.first_steps=240",
    "--config.sweep.grid.seed=(0,1)",
    "--config.sweep.grid.graph.seed=(0,1)",
    "--runs_per_batch=2",
    *_SIZES,
  ),
  "forests": (
    "experiments.forests",
    "--config=configs/two_stage.py:forest",
    "--config.graph.T=6",
    "--config.train.first_steps=240",
    "--num_graphs=8",
    *_SIZES,
  ),
  "verify": ("tests.support.small_verify",),
  "two stages": (
    "experiments.train",
    "--config=configs/two_stage.py:forest",
    "--config.graph.T=6",
    "--config.train.first_steps=240",
    "--config.train.stop=1.0",
    "--keep=2",
    *_SIZES,
  ),
}


def start(kind: str, workdir: pathlib.Path) -> subprocess.Popen:
  """Starts a command of one kind."""
  module, *arguments = COMMANDS[kind]
  return subprocess.Popen(
    [
      sys.executable,
      "-m",
      module,
      *arguments,
      f"--workdir={workdir}",
      *([f"--results={workdir}/results"] if kind == "verify" else []),
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(kind: str, workdir: pathlib.Path) -> float:
  """Runs a command to its end and returns the seconds that it took."""
  started = time.monotonic()
  process = start(kind, workdir)
  _, stderr = process.communicate(timeout=300)
  # After so few steps, rows of verify fail.
  if process.returncode not in (0, kind == "verify") or stderr:
    raise AssertionError(f"{kind} in {workdir}: {stderr}")
  return time.monotonic() - started


def files_of(kind: str, workdir: pathlib.Path) -> dict:
  """The artifacts of a run, or of every run of a sweep."""
  if kind == "sweep":
    return artifacts.by_sweep(workdir)
  if kind == "forests":
    return artifacts.timeless(runs.read_result(workdir, {}))
  if kind == "verify":
    lines = (workdir / "results/chain.jsonl").read_text().splitlines()
    return {
      "lines": [artifacts.timeless(json.loads(line)) for line in lines],
      "table": (workdir / "results/verify.json").read_text(),
      "runs": artifacts.by_sweep(workdir),
    }
  has_report = (workdir / "report.html").exists()
  return {**artifacts.by_run(workdir), "has_report": has_report}


def kill(kind: str, workdir: pathlib.Path, after: float) -> dict[str, bytes]:
  """Starts a command and kills it.

  Returns:
    The results that it had written, by path.
  """
  with start(kind, workdir) as process:
    try:
      process.wait(timeout=after)
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
  return {str(p): p.read_bytes() for p in workdir.rglob("result.json")}


def stage(workdir: pathlib.Path) -> str:
  """How far a killed run had progressed, in words."""
  if not (workdir / "config.json").exists():
    return "before its config"
  if (workdir / "report.html").exists():
    return "with its report"
  if (workdir / "result.json").exists():
    return "finished"
  rows = sum(
    path.read_bytes().count(b"\n") for path in workdir.rglob("metrics.jsonl")
  )
  steps = sorted({int(p.stem) for p in workdir.rglob("checkpoints/[0-9]*.npz")})
  return f"{rows} rows, states {' '.join(map(str, steps)) or 'none'}"


def trials(
  num: int, seed: int, folder: pathlib.Path, kinds: Sequence[str]
) -> int:
  """Kills and resumes runs.

  Args:
    num: of kills; the kinds of runs alternate.
    seed: of the moments.
    folder: for the runs.
    kinds: of `COMMANDS`.

  Returns:
    How many runs were equal to the uninterrupted one.
  """
  moments = random.Random(seed)
  kinds = kinds[:num]
  expected, seconds = {}, {}
  for kind in kinds:
    workdir = folder / f"uninterrupted-{kind}"
    seconds[kind] = finish(kind, workdir)
    expected[kind] = files_of(kind, workdir)
  num_equal = 0
  for i in range(num):
    kind, workdir = kinds[i % len(kinds)], folder / str(i)
    after = moments.uniform(0, seconds[kind])
    written = kill(kind, workdir, after)
    where = stage(workdir)
    finish(kind, workdir)
    is_equal = files_of(kind, workdir) == expected[kind]
    is_kept = all(pathlib.Path(p).read_bytes() == b for p, b in written.items())
    num_equal += is_equal and is_kept
    print(
      f"{i + 1:>3}  {kind:<11}{after:>6.2f} s  {where:<44}"
      f"{'equal' if is_equal else 'DIFFERENT'}"
      f"{'' if is_kept else ', A RESULT WAS WRITTEN TWICE'}",
      flush=True,
    )
  print(f"{num_equal} of {num} bitwise equal to the uninterrupted run")
  return num_equal


def main():
  """The command."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--kinds", nargs="+", choices=COMMANDS, default=list(COMMANDS)
  )
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    os.environ["XDG_CACHE_HOME"] = folder
    for kind in arguments.kinds:  # fills the compilation cache
      finish(kind, pathlib.Path(folder) / f"compile-{kind}")
    num_equal = trials(
      arguments.kills, arguments.seed, pathlib.Path(folder), arguments.kinds
    )
  sys.exit(num_equal < arguments.kills)


if __name__ == "__main__":
  main()
