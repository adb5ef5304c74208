"""Prints the path of the newest installed Python, if it is newer than 3.11.

Looks on PATH and in the versions of pyenv. A command of pyenv on PATH fails
unless its version is active, so each candidate is run.
"""

import os
import pathlib
import subprocess

_VERSION = "import sys; print(*sys.version_info[:4], sys.executable)"


def newest() -> str | None:
  """The path of the newest release after 3.11, or None."""
  pyenv = os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")
  folders = [pathlib.Path(name) for name in os.get_exec_path()]
  folders += pathlib.Path(pyenv).glob("versions/*/bin")
  found = {}
  for path in {p for folder in folders for p in folder.glob("python3.1?")}:
    command = [path, "-c", _VERSION]
    try:
      done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
      continue
    if done.returncode == 0:
      *version, level, executable = done.stdout.strip().split(" ", 4)
      if level == "final":
        found[tuple(map(int, version))] = executable
  version = max(found, default=(3, 11))
  return found[version] if version[:2] > (3, 11) else None


if __name__ == "__main__":
  print(newest() or "")
