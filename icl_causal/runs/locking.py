"""A lock that keeps other processes out of a directory."""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import io
import os
import pathlib
import socket
import sys

from icl_causal.runs import files
from icl_causal.runs.files import RunError

NAME = ".lock"
# File systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def lock(folder: pathlib.Path) -> Iterator[None]:
  """Creates the folder if it is missing, and locks it.

  The system releases the lock when the process ends. The file `.lock` names the
  process while the lock exists.

  Raises:
    RunError: if another process has the lock, or the folder can't be written.
  """
  path = folder / NAME
  with files.writing(folder):
    folder.mkdir(parents=True, exist_ok=True)
    file = _locked(path)
    while not _is_at(path, file):  # released and deleted in the meantime
      file.close()
      file = _locked(path)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
  try:
    yield
  finally:
    path.unlink(missing_ok=True)
    file.close()


def _locked(path: pathlib.Path) -> io.FileIO:
  file = files.open_regular(path, os.O_RDWR | os.O_CREAT)
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    holder = file.read(200).decode(errors="replace") or "another process"
    file.close()
    raise RunError(f"{path.parent} is in use by {holder}") from None
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      file.close()
      raise
    print(
      f"warning: {path.parent} can't be locked ({error.strerror}): make sure "
      "that no other process uses it",
      file=sys.stderr,
    )
  return file


def _is_at(path: pathlib.Path, file: io.FileIO) -> bool:
  try:
    return os.path.samestat(path.stat(), os.fstat(file.fileno()))
  except FileNotFoundError:
    return False
