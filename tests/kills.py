"""Kills runs at random moments, and holds what they come to against the whole.

    python -m tests.kills --kills=50

Each run is killed once, with SIGKILL, at a moment that is uniform on the time
that a whole run takes; the same command then takes it to its end. What it
leaves must be the same to the bit: results, metrics and parameters, of every
run of a sweep; and what was finished before the kill must not be touched.
"""

import argparse
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from tests import left

ROOT = pathlib.Path(__file__).parents[1]
_SIZES = (
  "--config.train.steps=48",
  "--config.train.eval_every=2",
  "--config.train.batch_size=32",
  "--config.eval.test_size=64",
  "--config.eval.batch_size=64",
  "--config.eval.posterior_prompts=0",
)
COMMANDS = {
  "joint": (
    "train",
    "--config=configs/single_parent.py:manual",
    "--keep=2",
    *_SIZES,
  ),
  "sweep": (
    "sweep",
    "--config=configs/many_graphs.py:graphs",
    "--config.graph.T=6",
    "--config.train.first_steps=24",
    "--config.sweep.grid.seed=(0,1)",
    "--config.sweep.grid.graph.seed=(0,1)",
    "--runs_per_batch=2",
    *_SIZES,
  ),
  "two stages": (
    "train",
    "--config=configs/two_stage.py:forest",
    "--config.graph.T=6",
    "--config.train.first_steps=24",
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
      f"experiments.{module}",
      *arguments,
      f"--workdir={workdir}",
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(kind: str, workdir: pathlib.Path) -> float:
  """Takes a run to its end; the seconds of it."""
  started = time.monotonic()
  process = start(kind, workdir)
  _, stderr = process.communicate(timeout=300)
  if process.returncode or stderr:
    raise AssertionError(f"{kind} in {workdir}: {stderr}")
  return time.monotonic() - started


def found(kind: str, workdir: pathlib.Path) -> dict:
  """What the run has left."""
  by = left.by_sweep if kind == "sweep" else left.by_run
  return by(workdir)


def kill(kind: str, workdir: pathlib.Path, after: float) -> dict[str, bytes]:
  """Starts and kills; the results that were there by then."""
  with start(kind, workdir) as process:
    try:
      process.wait(timeout=after)
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
  return {str(p): p.read_bytes() for p in workdir.rglob("result.json")}


def stage(workdir: pathlib.Path) -> str:
  """How far a run had come, in words."""
  if not (workdir / "config.json").exists():
    return "before its config"
  if (workdir / "result.json").exists():
    return "finished"
  rows = sum(
    path.read_bytes().count(b"\n") for path in workdir.rglob("metrics.jsonl")
  )
  states = [
    path.name
    for path in workdir.rglob("checkpoints/*")
    if path.parent.name == "checkpoints"
  ]
  return f"{rows} rows, states {' '.join(sorted(states)) or 'none'}"


def trials(num: int, seed: int, folder: pathlib.Path) -> int:
  """How many of the kills ended as if they had not been.

  Args:
    num: of kills, by turns of each kind.
    seed: of the moments.
    folder: for the runs.
  """
  moments = random.Random(seed)
  kinds = list(COMMANDS)[: min(num, len(COMMANDS))]
  whole, seconds = {}, {}
  for kind in kinds:
    seconds[kind] = finish(kind, folder / f"whole-{kind}")
    whole[kind] = found(kind, folder / f"whole-{kind}")
  good = 0
  for i in range(num):
    kind, workdir = kinds[i % len(kinds)], folder / str(i)
    after = moments.uniform(0, seconds[kind])
    done = kill(kind, workdir, after)
    where = stage(workdir)
    finish(kind, workdir)
    same = found(kind, workdir) == whole[kind]
    kept = all(pathlib.Path(p).read_bytes() == b for p, b in done.items())
    good += same and kept
    print(
      f"{i + 1:>3}  {kind:<11}{after:>6.2f} s  {where:<44}"
      f"{'equal' if same else 'DIFFERENT'}"
      f"{'' if kept else ', A FINISHED RUN WAS TOUCHED'}",
      flush=True,
    )
  print(f"{good} of {num} bitwise equal to the uninterrupted run")
  return good


def main():
  """The command."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0)
  asked = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    os.environ["XDG_CACHE_HOME"] = folder
    sys.exit(
      trials(asked.kills, asked.seed, pathlib.Path(folder)) < asked.kills
    )


if __name__ == "__main__":
  main()
