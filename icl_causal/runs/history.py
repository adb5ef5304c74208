"""The history of a run: a line for each evaluation, in two files.

    metrics.jsonl    the metrics
    attention.jsonl  the layer-1 attention: the lower triangles of its maps as
                     float16, in base64

Lines are appended, so that an evaluation costs the same at any step.
"""

import base64
from collections.abc import Mapping
import functools
import pathlib
from typing import NamedTuple

import numpy as np

from icl_causal.runs import files
from icl_causal.runs import records
from icl_causal.runs.files import RunError

METRICS = "metrics.jsonl"
ATTENTION = "attention.jsonl"
_NAMES = (METRICS, ATTENTION)
_lower = functools.cache(np.tril_indices)


class Known(NamedTuple):
  """The checksums that a file of the history has had, and what ends them.

  Attributes:
    checksums: before the first line and after each undamaged line.
    problem: what is wrong with the line after them, or that there is none.
  """

  checksums: set[int]
  problem: str


def append_metrics(workdir: pathlib.Path, row: Mapping):
  """Adds a row of flat keys to metrics.jsonl."""
  records.append(workdir / METRICS, row)


def append_attention(workdir: pathlib.Path, step: int, map_HxTxT: np.ndarray):
  """Adds the layer-1 attention of an evaluation to attention.jsonl."""
  heads, T, _ = map_HxTxT.shape
  lower_HxM = map_HxTxT.astype("<f2")[:, *_lower(T)]
  text = base64.b64encode(lower_HxM.tobytes()).decode()
  row = {"step": step, "heads": heads, "lower": text}
  records.append(workdir / ATTENTION, row)


def sync_history(workdir: pathlib.Path):
  """Makes the history durable."""
  for name in _NAMES:
    files.sync(workdir / name)


def read_metrics(workdir: pathlib.Path) -> list[dict]:
  """The rows of metrics.jsonl, without a last one that was truncated.

  Raises:
    RunError: if a row is damaged.
  """
  rows, names = [], {}
  for where, line, _ in records.read_lines(workdir / METRICS):
    row = records.parse(line, records.METRICS, where)
    # A million rows share the strings of their names.
    rows.append({names.setdefault(name, name): row[name] for name in row})
    _check_order(rows[-2:], where)
  return rows


def read_attention(workdir: pathlib.Path) -> dict[int, np.ndarray]:
  """The layer-1 attention maps, H x T x T, by their steps.

  Raises:
    RunError: if a map is damaged.
  """
  maps = {}
  for where, line, _ in records.read_lines(workdir / ATTENTION):
    row = records.parse(line, records.ATTENTION, where)
    try:
      lower = np.frombuffer(
        base64.b64decode(row["lower"], validate=True), "<f2"
      )
      lower_HxM = lower.reshape(row["heads"], -1)
      T = round((2 * lower_HxM.shape[1] + 0.25) ** 0.5 - 0.5)
      map_HxTxT = np.zeros((len(lower_HxM), T, T), np.float32)
      map_HxTxT[:, *_lower(T)] = lower_HxM
      if not np.isfinite(map_HxTxT).all():
        raise ValueError("a number of it is not finite")
    except ValueError as error:
      raise RunError(f"{where} is damaged: {files.reason(error)}") from error
    maps[row["step"]] = map_HxTxT
  return maps


def checksums(workdir: pathlib.Path) -> list[int]:
  """The checksums of the last lines of the two files."""
  return [records.last_checksum(workdir / name) for name in _NAMES]


def known(workdir: pathlib.Path) -> list[Known]:
  """The undamaged part of each of the two files."""
  every = []
  for name in _NAMES:
    found = {records.checksum_of_config(workdir)}
    problem = f"{workdir / name} ends before it"
    try:
      found.update(crc for _, _, crc in records.read_lines(workdir / name))
    except RunError as error:
      problem = str(error)
    every.append(Known(found, problem))
  return every


def truncate_history(workdir: pathlib.Path, step: int) -> dict:
  """Drops the lines after `step`, which a resumed run writes again.

  Returns:
    The row of metrics of that step, or an empty one if no line is left.

  Raises:
    RunError: if a line up to that step is damaged.
  """
  last = {}
  for name, fields in (
    (METRICS, records.METRICS),
    (ATTENTION, records.ATTENTION),
  ):
    size, row = 0, {}
    lines = records.read_lines(workdir / name) if step >= 0 else ()
    for where, line, _ in lines:
      row = records.parse(line, fields, where)
      if row["step"] > step:
        break
      size += len(line)
      if name == METRICS:
        last = row
      if row["step"] == step:
        break
    files.cut(workdir / name, size)
  return last


def _check_order(rows: list[dict], where: str):
  steps = [row["step"] for row in rows]
  if steps[0] < 0 or steps != sorted(set(steps)):
    raise RunError(f"{where} is damaged: its steps are {steps}")
