"""The measured circuit of a run, in analysis/circuits.json."""

from collections.abc import Mapping
import itertools
import os
import pathlib
from typing import Any

from icl_causal.analysis import patches
from icl_causal.runs import files
from icl_causal.runs import history
from icl_causal.runs import records
from icl_causal.runs.files import RunError

PATH = "analysis/circuits.json"
_SCORES = ("parent", "matching", "by_chance", "evenness")
_FIELDS: records.Fields = {
  "step": int,
  "prompts": int,
  "scores": dict,
  "clamp": dict | None,
  "reason": str | None,
  "blocks": list,
  "patches": dict,
  "agreement": dict,
}
_MEAN: records.Fields = {
  "value": records.NUMBER | None,
  "error": records.NUMBER | None,
}
_BLOCK: records.Fields = {
  "matrix": str,
  "row": str,
  "column": str,
  "share": records.NUMBER,
  "cosine": records.NUMBER | None,
  "scale": records.NUMBER | None,
}


def write_circuits(workdir: pathlib.Path, value: Mapping):
  """Writes the record that `read_circuits` describes."""
  files.make_directory(workdir / "analysis")
  records.write(workdir / PATH, value, _end_of_history(workdir))


def read_circuits(workdir: pathlib.Path, T: int) -> dict[str, Any] | None:
  """The record of `experiments.circuits`, or None if there is none.

  Args:
    workdir: of a run.
    T: positions.

  Returns:
    - `step` and number of `prompts`;
    - `scores` by name, `value` and `error`;
    - `clamp`, the change of the loss in nats, or None with a `reason`;
    - `blocks`, as `circuits.Block`;
    - `patches`, by the names in `patches.MEASURED` and `PREDICTED`: T x T lists
      of numbers in nats, None outside of the pairs; empty with a `reason`;
    - `agreement`, by "MEASURED, PREDICTED", `value` and `error` by name.

  Raises:
    RunError: if it is damaged, or of another training.
  """
  path = workdir / PATH
  if not os.path.lexists(path):
    return None
  if path.parent.is_symlink():
    raise RunError(f"can't read {path.parent}: it is a symbolic link")
  others = "config.json or the end of metrics.jsonl"
  value = records.read(path, _FIELDS, _end_of_history(workdir), others)
  where = str(path)
  if min(value["step"], value["prompts"]) < 0:
    raise RunError(f"{where} is damaged: its step or prompts are below 0")
  records.check(value["scores"], dict.fromkeys(_SCORES, dict), where)
  means = [*value["scores"].values(), value["clamp"]]
  for of in value["agreement"].values():
    means += _entries(of, dict, where)
  for mean in means:
    if mean is not None:
      records.check(_of(mean, dict, where), _MEAN, where)
  for block in value["blocks"]:
    records.check(_of(block, dict, where), _BLOCK, where)
  names = (*patches.MEASURED, *patches.PREDICTED)
  found = value["patches"]
  if found.keys() not in (set(), set(names)):
    raise RunError(f"{where} is damaged: its patches are {[*found]!r:.40}")
  for name, matrix in found.items():
    if not _is_matrix(matrix, T):
      raise RunError(f"{where} is damaged: its {name} is not {T} x {T}")
  keys = {", ".join(p) for p in itertools.product(names[:2], names[2:])}
  if value["agreement"].keys() not in (set(), keys):
    raise RunError(f"{where} is damaged: its agreement has other names")
  return value


def _end_of_history(workdir: pathlib.Path) -> int:
  return records.last_checksum(workdir / history.METRICS)


def _of(value: Any, kind: type, where: str) -> Any:
  if not isinstance(value, kind):
    raise RunError(f"{where} is damaged: it has {value!r:.40}")
  return value


def _entries(value: Any, kind: type, where: str) -> list:
  return [_of(one, kind, where) for one in _of(value, dict, where).values()]


def _is_matrix(matrix: Any, T: int) -> bool:
  """Whether it has T rows of T entries: numbers or None."""

  def is_row(row) -> bool:
    return isinstance(row, list) and len(row) == T and all(map(is_entry, row))

  def is_entry(entry) -> bool:
    return entry is None or type(entry) in (int, float)

  return (
    isinstance(matrix, list) and len(matrix) == T and all(map(is_row, matrix))
  )
