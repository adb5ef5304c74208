"""The records of a run directory: JSON objects with known fields.

Every record has a checksum, the CRC-32 of its text. It starts from the checksum
of config.json, so that a record of another run does not match. In a file of
lines, it starts from the checksum of the line before, so that a line that is
lost, doubled, moved or changed is noticed.
"""

from collections.abc import Iterator, Mapping
import json
import os
import pathlib
import re
from typing import Any
import zlib

from icl_causal.config import record
from icl_causal.runs import files
from icl_causal.runs.files import RunError

# A name, and the types that its value may have.
Fields = Mapping[str, Any]

NUMBER = int | float
# Of a result that is recorded under results/, also by earlier versions.
RECORDED: dict[str, Any] = {
  "run": str,
  "seed": int,
  "steps": int,
  "loss": NUMBER,
  "loss_standard_error": NUMBER,
  "excess_loss": NUMBER | None,
  "excess_loss_standard_error": NUMBER | None,
  "edge_posterior_loss": NUMBER | None,
  "exact_posterior_loss": NUMBER | None,
  "excess_over_exact": NUMBER | None,
  "excess_over_exact_standard_error": NUMBER | None,
  "unigram_loss": NUMBER,
  "uniform_loss": NUMBER,
  "entropy": NUMBER,
  "edges": int,
  "edges_recovered": int,
  "false_parents": int,
  "parent_attention_mean": NUMBER | None,
  "parent_attention_min": NUMBER | None,
  "wall_seconds": NUMBER,
  "saving_seconds": NUMBER,
}
RESULT: dict[str, Any] = {
  name: types for name, types in RECORDED.items() if name not in ("run", "seed")
}
RESULT |= {
  "exact_posterior_loss_standard_error": NUMBER | None,
  "exact_posterior_bias": NUMBER | None,
  "position_attention_mean": NUMBER | None,
}
METRICS: Fields = {
  "step": int,
  **{
    name: RESULT[name]
    for name in (
      "loss",
      "excess_loss",
      "edges",
      "edges_recovered",
      "wall_seconds",
      "saving_seconds",
    )
  },
}
SNAPSHOT: Fields = {
  "step": int,
  "loss": NUMBER,
  "attention": dict,
  "prompts": dict,
  "phase": dict,
}
PHASE: Fields = {
  "weights": dict,
  "left": NUMBER,
  "decided_loss": NUMBER,
  "edge_loss": NUMBER,
}
FAILURE: Fields = {"step": int, "what": str}
TABLE: Fields = {"run": str, "status": str}
# The checksum of a line and its end.
_TAIL = re.compile(rb', "checksum": "([0-9a-f]{8})"}\n')
_TAIL_BYTES = 26


def check(value: Mapping, fields: Fields, where: str):
  """Checks a record; it may have other fields as well.

  Raises:
    RunError: if a field is missing or of another type.
  """
  for name, types in fields.items():
    if name not in value:
      raise RunError(f"{where} is damaged: its {name} is missing")
    found = value[name]
    if not isinstance(found, types) or isinstance(found, bool):
      raise RunError(f"{where} is damaged: its {name} is {found!r:.40}")


def checksum_of_config(workdir: pathlib.Path) -> int:
  """The CRC-32 of config.json, or 0 without one."""
  path = workdir / "config.json"
  return zlib.crc32(files.read_bytes(path)) if os.path.lexists(path) else 0


def write(path: pathlib.Path, value: Mapping, start: int):
  """Writes a record whose checksum starts from `start`."""
  checksum = zlib.crc32(record.canonical(value).encode(), start)
  text = record.canonical({**value, "checksum": f"{checksum:08x}"})
  files.write_text(path, text)


def read(path: pathlib.Path, fields: Fields, start: int, others: str) -> dict:
  """Reads what `write` wrote, without the checksum.

  Args:
    path: of the file.
    fields: to check.
    start: as for `write`.
    others: the files on which `start` depends, for the message.

  Raises:
    RunError: if the file is missing or damaged.
  """
  value = files.read_json(path)
  found = value.pop("checksum", None)
  try:
    text = record.canonical(value)
  except RecursionError as error:
    raise RunError(f"{path} is damaged: it is nested too deeply") from error
  if found != f"{zlib.crc32(text.encode(), start):08x}":
    raise RunError(
      f"{path} is damaged, or {others} is: its checksum does not match"
    )
  check(value, fields, str(path))
  return value


def append(path: pathlib.Path, value: Mapping):
  """Adds a line to a file of a run directory."""
  body = json.dumps(value, allow_nan=False).encode()
  checksum = zlib.crc32(body, last_checksum(path))
  files.append(path, body[:-1] + b', "checksum": "%08x"}\n' % checksum)


def last_checksum(path: pathlib.Path) -> int:
  """The checksum of the last line, or that of config.json without a line.

  Raises:
    RunError: if the last line has none.
  """
  tail = files.read_tail(path, _TAIL_BYTES)
  if not tail:
    return checksum_of_config(path.parent)
  match = _TAIL.fullmatch(tail)
  if not match:
    raise RunError(f"{path} is damaged: its last line has no checksum")
  return int(match[1], 16)


def read_lines(path: pathlib.Path) -> Iterator[tuple[str, bytes, int]]:
  """The lines of `append`, without a last one that has no end.

  Yields:
    Where the line is, for an error message; its text with the checksum; and
    the checksum.

  Raises:
    RunError: if the checksum of a line is wrong.
  """
  checksum = checksum_of_config(path.parent)
  for where, line in files.read_lines(path):
    checksum = zlib.crc32(line[:-_TAIL_BYTES] + b"}", checksum)
    match = _TAIL.fullmatch(line[-_TAIL_BYTES:])
    if not match or int(match[1], 16) != checksum:
      raise RunError(
        f"{where} is damaged: a line is lost, doubled, moved or changed, or it "
        "is of another run"
      )
    yield where, line, checksum


def parse(line: bytes, fields: Fields, where: str) -> dict:
  """The record of a line, without its checksum."""
  value = files.parse(line, where)
  value.pop("checksum", None)
  check(value, fields, where)
  return value


def read_table(path: pathlib.Path, fields: Fields) -> list[dict]:
  """The rows of a file of JSON lines without checksums.

  Raises:
    RunError: if a row is damaged, is incomplete or does not name a run.
  """
  rows = []
  if files.read_tail(path, 1) not in (b"", b"\n"):
    raise RunError(f"{path} is damaged: its last line is incomplete")
  for where, line in files.read_lines(path):
    rows.append(parse(line, fields, where))
    if not re.fullmatch("[0-9a-f]{12}", rows[-1]["run"]):
      raise RunError(f"{where} is damaged: its run is {rows[-1]['run']!r:.40}")
  return rows
