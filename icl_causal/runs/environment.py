"""What a run ran on: versions, devices, and the revision of this code."""

import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

import jax

import icl_causal

# The format of run directories. It is raised by a change after which an older
# directory, its states or its data would be misread.
FORMAT = 6
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
  return icl_causal.__version__


@functools.cache  # the members of a sweep have the same
def _git_revision() -> str | None:
  """Of the code, with a + if it has uncommitted changes.

  A repository that does not track this file, such as one in which a user has
  made an environment, says nothing about the code. pip records the commit of
  an installation from a repository.
  """
  here = pathlib.Path(__file__)
  if _git("ls-files", "--error-unmatch", here.name):
    return _git("describe", "--always", "--dirty=+", "--abbrev=40")
  for found in importlib.metadata.distributions(name="icl-causal"):
    installed = str(found.locate_file("icl_causal/runs/environment.py"))
    if pathlib.Path(installed).resolve() == here.resolve():
      source = json.loads(found.read_text("direct_url.json") or "{}")
      return source.get("vcs_info", {}).get("commit_id")
  return None


def _git(*arguments: str) -> str | None:
  """What git prints in the folder of this file; None if it fails."""
  try:
    done = subprocess.run(
      ["git", *arguments],
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return done.stdout.strip()
