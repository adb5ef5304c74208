"""Writes files completely or not at all; reads them with one-line errors.

A run directory may come from somebody else. No file of it is followed through a
symbolic link, and none but a regular file is opened.
"""

from collections.abc import Iterator
import contextlib
import errno
import io
import itertools
import json
import math
import os
import pathlib
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib takes half a second to load
  from matplotlib.figure import Figure


# A config, an environment or a result; these take a few KiB.
_MAX_JSON_BYTES = 2**24


class RunError(Exception):
  """A problem with a run directory, in one line for its user."""


def open_regular(path: pathlib.Path, flags: int) -> io.FileIO:
  """Opens a regular file; follows no symbolic link and waits for no pipe.

  Args:
    path: of the file.
    flags: of `os.open`. A file that is opened for writing may have no other
      name (hard link).

  Raises:
    OSError: if the file is missing or is not such a file.
  """
  try:
    descriptor = os.open(
      path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
    )
  except OSError as error:
    if error.errno == errno.ELOOP:
      error.strerror = "it is a symbolic link"
    raise
  is_written = flags & (os.O_WRONLY | os.O_RDWR)
  info, problem = os.fstat(descriptor), None
  if not stat.S_ISREG(info.st_mode):
    problem = "it is not a regular file"
  elif is_written and info.st_nlink > 1:
    problem = "it has a second name (a hard link)"
  if problem:
    os.close(descriptor)
    raise OSError(errno.EINVAL, problem, str(path))
  return io.FileIO(
    descriptor, "r+" if flags & os.O_RDWR else "w" if is_written else "r"
  )


def make_directory(path: pathlib.Path):
  """Creates a directory of a run if it is missing.

  Raises:
    RunError: if it can't be created, or is a symbolic link.
  """
  with writing(path):
    path.mkdir(exist_ok=True)
    if path.is_symlink():
      raise OSError(errno.ELOOP, "it is a symbolic link", str(path))


def write_text(path: pathlib.Path, text: str):
  """Replaces the whole file, or leaves it as it was."""
  write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes):
  """Replaces the whole file, or leaves it as it was.

  A symbolic link at the path is replaced, not followed.
  """
  temporary = path.with_name(f".{path.name}.tmp")
  with writing(path):
    try:
      temporary.unlink(missing_ok=True)  # of a killed process
      flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
      with open_regular(temporary, flags) as file:
        _write_all(file, data)
        os.fsync(file.fileno())
      os.replace(temporary, path)
      _sync_directory(path.parent)
    except OSError:
      with contextlib.suppress(OSError):
        temporary.unlink()
      raise


def append(path: pathlib.Path, data: bytes):
  """Adds bytes to a file; `sync` makes them durable."""
  flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
  with writing(path), open_regular(path, flags) as file:
    _write_all(file, data)


def cut(path: pathlib.Path, size: int):
  """Drops what a file has after its first `size` bytes; it may be missing."""
  if os.path.lexists(path):
    with writing(path), open_regular(path, os.O_WRONLY) as file:
      file.truncate(size)
      os.fsync(file.fileno())


def sync(path: pathlib.Path):
  """Makes a file that was appended to durable, and its name."""
  with writing(path), open_regular(path, os.O_RDONLY) as file:
    os.fsync(file.fileno())
    _sync_directory(path.parent)


def move(old: pathlib.Path, new: pathlib.Path):
  """Renames a file or a folder, durably."""
  with writing(new):
    os.replace(old, new)
    for folder in {old.parent, new.parent}:
      _sync_directory(folder)


def read_json(path: pathlib.Path) -> dict:
  """The JSON object of a file.

  Raises:
    RunError: if the file is missing or damaged.
  """
  return parse(read_bytes(path), str(path))


def read_bytes(path: pathlib.Path) -> bytes:
  """The bytes of a file of at most 16 MiB.

  Raises:
    RunError: if the file is missing, or is not such a file.
  """
  if not path.parent.is_dir():
    raise RunError(f"{path.parent} does not exist: no run has been there")
  if not os.path.lexists(path):
    raise RunError(f"{path.parent} has no {path.name}")
  with reading(path), open_regular(path, os.O_RDONLY) as file:
    if os.fstat(file.fileno()).st_size > _MAX_JSON_BYTES:
      raise ValueError("it is larger than 16 MiB")
    return file.readall()


def read_tail(path: pathlib.Path, size: int) -> bytes:
  """The last bytes of a file, at most `size`; none if it is missing."""
  if not os.path.lexists(path):
    return b""
  with reading(path), open_regular(path, os.O_RDONLY) as file:
    file.seek(max(0, file.seek(0, os.SEEK_END) - size))
    return file.read(size)


def read_lines(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
  """The lines of a file, without a last one that has no end.

  Yields:
    Where the line is, for an error message, and the line with its end.

  Raises:
    RunError: if the file can't be read, or a line is longer than 16 MiB.
  """
  if not os.path.lexists(path):
    return
  with (
    reading(path),
    open_regular(path, os.O_RDONLY) as file,
    io.BufferedReader(file) as lines,
  ):
    for number in itertools.count(1):
      line = lines.readline(_MAX_JSON_BYTES)
      if not line.endswith(b"\n"):
        if len(line) == _MAX_JSON_BYTES:
          raise ValueError(f"its line {number} is longer than 16 MiB")
        return
      yield f"{path}, line {number},", line


def parse(text: bytes, where: str) -> dict:
  """The JSON object of a text; its numbers are finite.

  Raises:
    RunError: names `where` the text is.
  """
  try:
    value = json.loads(
      text,
      parse_constant=_number,
      parse_float=_number,
      parse_int=_integer,
    )
    if not isinstance(value, dict):
      raise ValueError("it is not a JSON object")
  except (ValueError, RecursionError) as error:
    raise RunError(f"{where} is damaged: {reason(error)}") from error
  return value


def save_figure(workdir: pathlib.Path, name: str, figure: "Figure"):
  """figures/NAME.png and .pdf, the same bytes for the same figure."""
  folder = workdir / "figures"
  for suffix, metadata in (("png", None), ("pdf", {"CreationDate": None})):
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
    figure.set_layout_engine("none")  # one layout for both files
    make_directory(folder)
    write_bytes(folder / f"{name}.{suffix}", buffer.getvalue())


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Turns an OSError into a RunError that names the path."""
  try:
    yield
  except OSError as error:
    raise RunError(f"can't write {path}: {error.strerror}") from error


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
  """Turns an OSError or a ValueError into a RunError that names the path."""
  try:
    yield
  except (OSError, ValueError) as error:
    raise RunError(f"{path} is damaged: {reason(error)}") from error


def _number(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(f"{text} is not a finite number")
  return value


def _integer(text: str) -> int:
  if len(text) > 18:
    raise ValueError(f"{text[:18]}.. is too large a number")
  return int(text)


def reason(error: Exception) -> str:
  """The first line of an error, without its class and its path."""
  text = getattr(error, "strerror", None) or str(error).strip() or repr(error)
  return text.partition("\n")[0][:300]


def _write_all(file: io.FileIO, data: bytes):
  left = memoryview(data)
  while left:  # a disk that is nearly full takes a part
    left = left[file.write(left) :]


def _sync_directory(folder: pathlib.Path):
  """Makes a rename durable."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
