"""Times of whole commands, measured in a subprocess from the start of Python.

Seconds include the start of the interpreter, imports and compilation.
"""

import json
import os
import pathlib
import pkgutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from experiments.harness import app
import icl_causal

# Changes to the chain of configs/single_parent.py: more frequent evaluations
# on a smaller test set.
TRAINING = {"train.eval_every": 32, "eval.test_size": 4096}


def start(repeats: int) -> dict[str, float]:
  """Median seconds of --help and of importing the library."""
  commands = {
    "import icl_causal": ["-c", "import icl_causal"],
    "import of all its modules": ["-c", f"import {', '.join(modules())}"],
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
        raise app.Refused(f"{name} failed: {done.stderr.decode()}")
  return {name: float(np.median(s)) for name, s in seconds.items()}


def modules() -> list[str]:
  """The dotted names of all modules of the library."""
  modules = pkgutil.walk_packages(icl_causal.__path__, "icl_causal.")
  return [module.name for module in modules]


def to_all_edges(repeats: int) -> dict[str, float]:
  """Median seconds until `experiments.train` has recovered every edge.

  That is, until the first row of metrics.jsonl with every edge; the step of
  this row is also returned. A cold run starts with an empty cache of compiled
  programs, a warm run with a cache that has all of its programs.
  """
  seconds, steps = {"seconds, cold": [], "seconds, warm": []}, []
  for _ in range(repeats):
    with tempfile.TemporaryDirectory() as folder:
      for name in seconds:
        elapsed, step = _train_to_all_edges(
          pathlib.Path(folder) / name, pathlib.Path(folder) / "compiled"
        )
        seconds[name].append(elapsed)
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
        raise app.Refused("the run ended before it recovered every edge")
      time.sleep(0.02)
  finally:
    process.kill()
    process.wait()
