"""Commands timed from outside, from the start of Python on."""

import json
import os
import pathlib
import pkgutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from experiments import cli
import icl_causal

# The chain of configs/single_parent.py, looked at more often.
TRAINING = {"train.eval_every": 32, "eval.test_size": 4096}


def start(repeats: int) -> dict[str, float]:
  """Median seconds of --help and of importing the library."""
  modules = [
    f"icl_causal.{module.name}"
    for module in pkgutil.iter_modules(icl_causal.__path__)
  ]
  commands = {
    "import icl_causal": ["-c", "import icl_causal"],
    "import of all its modules": ["-c", f"import {', '.join(modules)}"],
    "import jax": ["-c", "import jax"],
    "experiments.train --help": ["-m", "experiments.train", "--help"],
  }
  seconds = {name: [] for name in commands}
  for _ in range(repeats):
    for name, command in commands.items():
      started = time.perf_counter()
      done = subprocess.run([sys.executable, *command], capture_output=True)
      seconds[name].append(time.perf_counter() - started)
      if done.stderr:
        raise cli.Refused(f"{name} failed: {done.stderr.decode()}")
  return {name: float(np.median(s)) for name, s in seconds.items()}


def to_all_edges(repeats: int) -> dict[str, float]:
  """Median seconds of `experiments.train` until a row of its metrics has every
  edge, and the step of that row.

  Cold, no compiled program is kept from before; warm, all are.
  """
  seconds, steps = {"seconds, cold": [], "seconds, warm": []}, []
  for _ in range(repeats):
    with tempfile.TemporaryDirectory() as folder:
      for name in seconds:
        taken, step = _train_to_all_edges(
          pathlib.Path(folder) / name, pathlib.Path(folder) / "compiled"
        )
        seconds[name].append(taken)
        steps.append(step)
  return {
    **{name: float(np.median(s)) for name, s in seconds.items()},
    "step with every edge": float(np.median(steps)),
  }


def _train_to_all_edges(workdir: pathlib.Path, compiled: pathlib.Path):
  started = time.perf_counter()
  process = subprocess.Popen(
    [
      sys.executable,
      "-m",
      "experiments.train",
      "--config=configs/single_parent.py:chain",
      *(f"--config.{name}={value}" for name, value in TRAINING.items()),
      f"--workdir={workdir}",
    ],
    env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compiled)},
    stdout=subprocess.DEVNULL,
  )
  metrics = workdir / "metrics.jsonl"
  try:
    while True:
      finished = process.poll() is not None
      written = metrics.read_text() if metrics.exists() else ""
      for line in written[: written.rfind("\n") + 1].splitlines():
        row = json.loads(line)
        if row["edges_recovered"] == row["edges"]:
          return time.perf_counter() - started, row["step"]
      if finished:
        raise cli.Refused("the run came to its end without every edge")
      time.sleep(0.02)
  finally:
    process.kill()
    process.wait()
