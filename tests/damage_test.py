"""A few damages of `tests.support.damage`."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]


def test_damaged_directories_give_the_same_output_or_one_line():
  command = ["-m", "tests.support.damage", "--damages=25", "--seed=0"]
  done = subprocess.run(
    [sys.executable, *command],
    cwd=ROOT,
    env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  counts = [int(line.split()[0]) for line in done.stdout.splitlines()]
  assert sum(counts) == 25
