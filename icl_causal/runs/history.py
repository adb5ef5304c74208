"""The history of a run, in two files of lines.

    metrics.jsonl    the metrics of each evaluation
    snapshots.jsonl  outputs of the model at each evaluation and at steps 0, 1,
                     2, 3, 4, 6, 8, 12, ..: arrays as float16, in base64, and
                     the phase of the training

Lines are appended, so that an evaluation costs the same at any step.
"""

import base64
from collections.abc import Mapping
import functools
import math
import pathlib
from typing import NamedTuple

import numpy as np

from icl_causal import phases
from icl_causal.runs import files
from icl_causal.runs import records
from icl_causal.runs.files import RunError

METRICS = "metrics.jsonl"
SNAPSHOTS = "snapshots.jsonl"
_FIELDS = {METRICS: records.METRICS, SNAPSHOTS: records.SNAPSHOT}
# Prompts are left out of a snapshot if they would take more numbers.
_MAX_PROMPT_SIZE = 2**20
_lower = functools.cache(np.tril_indices)
_PREDICTORS = {*phases.PREDICTORS, "dirichlet_edge_posterior"}
_ROUNDING = 1e-3  # of a weight


class Snapshot(NamedTuple):
  """Outputs of the model of one step.

  Attributes:
    loss: in nats, on the first `eval.batch_size` test prompts.
    attention: the layer-1 maps H x T x T, averaged over test prompts: over all
      of them at an evaluation, otherwise over those of the loss.
    prompts: of the first P test prompts, `law`, the predicted law P x S, and
      the attention of each layer, `attention_1`, `attention_2`, ..: P x H x T x
      T, and P x H x T for the last layer, which has one query.
    phase: on the prompts of the loss, as floats: the weights of predictors by
      their names in `phases.PREDICTORS`, or `dirichlet_edge_posterior` if the
      prior is another one, and losses in nats. `exact_posterior` has a weight
      only if `eval.posterior_prompts` is at least `eval.batch_size`.
  """

  loss: float
  attention: np.ndarray
  prompts: dict[str, np.ndarray]
  phase: phases.Phase


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


def append_snapshot(workdir: pathlib.Path, step: int, snapshot: Snapshot):
  """Adds a line to snapshots.jsonl."""
  entries = sum(a[0].size for a in snapshot.prompts.values())
  num = _MAX_PROMPT_SIZE // entries if entries else 0
  arrays = {name: a[:num] for name, a in snapshot.prompts.items()}
  row = {
    "step": step,
    "loss": snapshot.loss,
    "attention": _packed(snapshot.attention, is_maps=True),
    "prompts": {
      name: _packed(a, is_maps=a.ndim == 4) for name, a in arrays.items() if num
    },
    "phase": snapshot.phase._asdict(),
  }
  records.append(workdir / SNAPSHOTS, row)


def sync_history(workdir: pathlib.Path):
  """Makes the history durable."""
  for name in _FIELDS:
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
    _check_order([row["step"] for row in rows[-2:]], where)
  return rows


def read_snapshots(workdir: pathlib.Path) -> dict[int, Snapshot]:
  """The snapshots by their steps, in ascending order.

  Raises:
    RunError: if one is damaged.
  """
  snapshots, steps = {}, []
  for where, line, _ in records.read_lines(workdir / SNAPSHOTS):
    row = records.parse(line, records.SNAPSHOT, where)
    steps = [*steps[-1:], row["step"]]
    _check_order(steps, where)
    try:
      snapshots[row["step"]] = Snapshot(
        row["loss"],
        _unpacked(row["attention"]),
        {name: _unpacked(packed) for name, packed in row["prompts"].items()},
        _phase(row["phase"], where),
      )
    except (ValueError, TypeError, KeyError) as error:
      raise RunError(f"{where} is damaged: {files.reason(error)}") from error
  return snapshots


def checksums(workdir: pathlib.Path) -> list[int]:
  """The checksums of the last lines of the two files."""
  return [records.last_checksum(workdir / name) for name in _FIELDS]


def known(workdir: pathlib.Path) -> list[Known]:
  """The undamaged part of each of the two files."""
  every = []
  for name in _FIELDS:
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
  for name, fields in _FIELDS.items():
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


def _check_order(steps: list[int], where: str):
  if steps[0] < 0 or steps != sorted(set(steps)):
    raise RunError(f"{where} is damaged: its steps are {steps}")


def _phase(value: Mapping, where: str) -> phases.Phase:
  """The phase of a snapshot.

  Raises:
    RunError: if a field is missing or out of range.
  """
  records.check(value, records.PHASE, where)
  weights = value["weights"]
  wrong = RunError(f"{where} is damaged: its weights are {weights!r:.40}")
  if not weights.keys() <= _PREDICTORS:
    raise wrong
  records.check(weights, dict.fromkeys(weights, records.NUMBER), where)
  is_share = [0 <= weight <= 1 + _ROUNDING for weight in weights.values()]
  if not all(is_share) or abs(sum(weights.values()) - 1) > _ROUNDING:
    raise wrong
  found = phases.Phase(*(value[name] for name in records.PHASE))
  if not min(found[1:]) >= 0:
    raise RunError(f"{where} is damaged: its phase is {found[1:]!r:.40}")
  return found


def _packed(array: np.ndarray, is_maps: bool) -> dict:
  """An array as text; of causal maps .. x T x T, the lower triangles."""
  if is_maps:
    array = array[..., *_lower(array.shape[-1])]
  text = base64.b64encode(array.astype("<f2").tobytes()).decode()
  return {"shape": array.shape, "maps": is_maps, "float16": text}


def _unpacked(packed: Mapping) -> np.ndarray:
  """The array of `_packed`, as float32.

  Raises:
    ValueError, TypeError, KeyError: if it is damaged.
  """
  shape = packed["shape"]
  numbers = np.frombuffer(
    base64.b64decode(packed["float16"], validate=True), "<f2"
  )
  if not shape or min(shape) < 1 or math.prod(shape) != numbers.size:
    raise ValueError(f"{numbers.size} numbers do not have shape {shape!r:.40}")
  if not np.isfinite(numbers).all():
    raise ValueError("a number of it is not finite")
  array = numbers.reshape(shape).astype(np.float32)
  if not packed["maps"]:
    return array
  T = math.isqrt(2 * shape[-1])
  maps = np.zeros((*shape[:-1], T, T), np.float32)
  maps[..., *_lower(T)] = array
  return maps
