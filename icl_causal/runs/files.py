"""Writes files completely or not at all; reads them with one-line errors."""

from collections.abc import Iterator, Mapping
import contextlib
import io
import json
import os
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib takes half a second to load
  from matplotlib.figure import Figure


class RunError(Exception):
  """A problem with a run directory, in one line for its user."""


def write_text(path: pathlib.Path, text: str):
  """Replaces the whole file, or leaves it as it was."""
  write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes):
  """Replaces the whole file, or leaves it as it was."""
  temporary = path.with_name(f".{path.name}.tmp")
  with writing(path):
    try:
      with open(temporary, "wb", buffering=0) as file:
        _write_all(file, data)
      os.replace(temporary, path)
      _sync_directory(path.parent)
    except OSError:
      with contextlib.suppress(OSError):
        temporary.unlink()
      raise


def append_line(path: pathlib.Path, record: Mapping):
  """Adds a line of JSON to a file."""
  line = json.dumps(record, allow_nan=False) + "\n"
  with writing(path), open(path, "ab", buffering=0) as file:
    _write_all(file, line.encode())


def read_json(path: pathlib.Path) -> dict:
  """The JSON object of a file.

  Raises:
    RunError: if the file is missing or damaged.
  """
  if not path.parent.is_dir():
    raise RunError(f"{path.parent} does not exist: no run has been there")
  if not path.exists():
    raise RunError(f"{path.parent} has no {path.name}")
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise RunError(f"{path} is damaged: {error}") from error
  if not isinstance(value, dict):
    raise RunError(f"{path} is damaged: it is not a JSON object")
  return value


def read_lines(path: pathlib.Path) -> list[dict]:
  """The lines of JSON of a file, without a last one that was truncated.

  Raises:
    RunError: if a line is damaged.
  """
  if not path.exists():
    return []
  rows = []
  for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
    try:
      rows.append(json.loads(line))
    except ValueError as error:
      raise RunError(f"{path} is damaged in line {number}: {error}") from error
  return rows


def save_figure(workdir: pathlib.Path, name: str, figure: "Figure"):
  """figures/NAME.png and .pdf, the same bytes for the same figure."""
  folder = workdir / "figures"
  for suffix, metadata in (("png", None), ("pdf", {"CreationDate": None})):
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
    figure.set_layout_engine("none")  # one layout for both files
    with writing(folder):
      folder.mkdir(exist_ok=True)
    write_bytes(folder / f"{name}.{suffix}", buffer.getvalue())


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Turns an OSError into a RunError that names the path."""
  try:
    yield
  except OSError as error:
    raise RunError(f"can't write {path}: {error.strerror}") from error


def _write_all(file: io.FileIO, data: bytes):
  left = memoryview(data)
  while left:  # a disk that is nearly full takes a part
    left = left[file.write(left) :]
  os.fsync(file.fileno())


def _sync_directory(folder: pathlib.Path):
  """Makes a rename durable."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
