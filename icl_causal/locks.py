"""A folder in use by one process, and kept from the others."""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import socket
import sys
from typing import TextIO

NAME = ".lock"


class InUse(Exception):
  """Another process has the folder in use."""


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
  """Holds the folder; the system lets go of it when the process ends.

  Args:
    folder: must exist; has a file `.lock` while it is held.

  Raises:
    InUse: naming the process that holds it.
    OSError: if the folder can't be written to.
  """
  path = folder / NAME
  file = _locked(path)
  while not _is_still_at(path, file):  # its holder let go, and deleted it
    file.close()
    file = _locked(path)
  file.truncate(0)
  file.write(f"process {os.getpid()} on {socket.gethostname()}")
  file.flush()
  try:
    yield
  finally:
    path.unlink(missing_ok=True)
    file.close()


def _locked(path: pathlib.Path) -> TextIO:
  file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (handed on open)
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    holder = file.read() or "another process"
    file.close()
    raise InUse(f"{path.parent} is in use by {holder}") from None
  except OSError as error:
    print(
      f"warning: {path.parent} can't be locked ({error.strerror}): see that no "
      "other process uses it",
      file=sys.stderr,
    )
  return file


def _is_still_at(path: pathlib.Path, file: TextIO) -> bool:
  try:
    return os.path.samestat(path.stat(), os.fstat(file.fileno()))
  except FileNotFoundError:
    return False
