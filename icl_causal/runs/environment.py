"""What a run ran on: versions, devices, and the revision of this code."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys

import jax

# The format of run directories. It is raised by a change after which an older
# directory, its states or its data would be misread.
FORMAT = 5
FIELDS = {
  "versions": dict,
  "backend": str,
  "devices": list,
  "processes": int,
  "resumed": list,
}

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def environment() -> dict:
  """The record that becomes environment.json."""
  return {
    "icl_causal": version(),
    "format": FORMAT,
    "python": platform.python_version(),
    "platform": platform.platform(),
    **machine(),
    "resumed": [],
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
    "command": sys.argv,
    "git_revision": _git_revision(),
  }


def machine() -> dict:
  """The part of it on which the last digits of a result depend."""
  return {
    "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    "backend": jax.default_backend(),
    "devices": [device.device_kind for device in jax.devices()],
    "processes": jax.process_count(),
  }


def version() -> str:
  """The version of icl_causal."""
  return importlib.metadata.version("icl-causal")


@functools.cache  # the members of a sweep have the same
def _git_revision() -> str | None:
  """Of the code, with a + if it has uncommitted changes."""
  command = ["git", "describe", "--always", "--dirty=+", "--abbrev=40"]
  try:
    done = subprocess.run(
      command,
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return done.stdout.strip()
