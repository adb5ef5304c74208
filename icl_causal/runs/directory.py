"""The run directory: a run's config, environment, metrics, states and result.

    config.json       the resolved config, canonical
    environment.json  versions, backend, devices, flags, git revision, format
    metrics.jsonl     a row for each evaluation
    attention.npz     the layer-1 attention maps of these evaluations
    checkpoints/      the newest states
    failed.json       where a loss or a gradient was not finite
    result.json       written last: a run that has it is finished
    figures/, report.html

Each file is written completely or not at all. A write error is reported in one
line.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import io
import json
import os
import pathlib
import shutil

import numpy as np

from icl_causal.config import record
from icl_causal.runs import environment
from icl_causal.runs import files
from icl_causal.runs import locking
from icl_causal.runs.files import RunError

_TRASH = ".deleted"
# What may be in a directory before the config is.
_EARLY = {locking.NAME, "environment.json", _TRASH}
_EARLY |= {".environment.json.tmp", ".config.json.tmp"}
# What a command may leave in the directory of a run, a sweep or a check.
_FILES = {"config.json", "environment.json", "metrics.jsonl", "attention.npz"}
_FILES |= {"failed.json", "result.json", "report.html"}
_FILES |= {"table.csv", "table.jsonl", "table.txt"}
_FOLDERS = {"checkpoints", "damaged_checkpoints", "figures", "analysis"}
_FOLDERS |= {"tensorboard", "wandb", "members", "slurm"}
_NAMES = _EARLY | _FILES | _FOLDERS | {f".{name}.tmp" for name in _FILES}
_MAX_MAP_BYTES = 2**30


@contextlib.contextmanager
def opened(
  workdir: pathlib.Path, config: Mapping, overwrite: bool
) -> Iterator[bool]:
  """`prepare` for a run, with a lock that keeps other processes out.

  A finished run is only read, and not locked.

  Raises:
    RunError: as `prepare`, and if another process has the lock.
  """
  _refuse_foreign(workdir)
  if not overwrite and is_finished(workdir):
    yield prepare(workdir, config, overwrite)
    return
  with locking.lock(workdir):
    yield prepare(workdir, config, overwrite)


def prepare(workdir: pathlib.Path, config: Mapping, overwrite: bool) -> bool:
  """Creates the directory for this config, or checks that it is of this config.

  Args:
    workdir: created if it is missing.
    config: of the run; the one in the directory must equal it.
    overwrite: delete what the directory holds of an earlier run.

  Returns:
    Whether the run in it is finished.

  Raises:
    RunError: if the directory holds something that is not this run.
  """
  _refuse_foreign(workdir)
  config_path = workdir / "config.json"
  if config_path.exists() and not overwrite:
    expected = json.loads(record.canonical(config))
    _check_same(read_config(workdir), expected, workdir)
    return is_finished(workdir)
  with files.writing(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    if overwrite:
      _refuse_to_delete(workdir)
    _clear(workdir)
  made = record.canonical(environment.environment())
  files.write_text(workdir / "environment.json", made)
  files.write_text(config_path, record.canonical(config))
  return False


def is_finished(workdir: pathlib.Path) -> bool:
  """Whether the run has its result."""
  return (workdir / "result.json").exists()


def is_done(workdir: pathlib.Path) -> bool:
  """Whether the run is finished, or stopped at a number that is not finite."""
  return is_finished(workdir) or (workdir / "failed.json").exists()


def read_config(workdir: pathlib.Path) -> dict:
  """The config of a run, as plain dicts and lists.

  Raises:
    RunError: also if the run is of a version whose directories differ.
  """
  config = files.read_json(workdir / "config.json")
  made = files.read_json(workdir / "environment.json")
  if made.get("format") != environment.FORMAT:
    raise RunError(
      f"{workdir} was made by icl_causal {made.get('icl_causal', '< 0.1')}, "
      f"and {environment.version()} can't read it: use that version, or delete "
      "it with --overwrite"
    )
  return config


def write_result(workdir: pathlib.Path, result: Mapping):
  """Finishes the run."""
  files.write_text(workdir / "result.json", record.canonical(result))


def read_result(workdir: pathlib.Path) -> dict:
  """The result of a finished run."""
  return files.read_json(workdir / "result.json")


def write_failure(workdir: pathlib.Path, failed: Mapping):
  """Marks a run whose loss or gradient was not finite."""
  files.write_text(workdir / "failed.json", record.canonical(failed))


def read_failure(workdir: pathlib.Path) -> dict | None:
  """The record of `write_failure`, or None."""
  path = workdir / "failed.json"
  if not os.path.lexists(path):
    return None
  failed = files.read_json(path)
  if not isinstance(failed.get("step"), int) or "what" not in failed:
    raise RunError(f"{path} is damaged: it has no step or does not say what")
  return failed


def append_metrics(workdir: pathlib.Path, row: Mapping):
  """Adds a row of flat keys to metrics.jsonl."""
  files.append_line(workdir / "metrics.jsonl", row)


def read_metrics(workdir: pathlib.Path) -> list[dict]:
  """The rows of metrics.jsonl, without a last one that was truncated."""
  path = workdir / "metrics.jsonl"
  rows = files.read_lines(path)
  for number, row in enumerate(rows, start=1):
    if type(row.get("step")) is not int:
      raise RunError(f"{path} is damaged in line {number}: it has no step")
  return rows


def truncate_metrics(workdir: pathlib.Path, step: int) -> list[dict]:
  """Drops the rows after `step`, which a resumed run writes again."""
  rows = [row for row in read_metrics(workdir) if row["step"] <= step]
  text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
  files.write_text(workdir / "metrics.jsonl", text)
  return rows


def write_attention(
  workdir: pathlib.Path, steps: Sequence[int], maps: Sequence[np.ndarray]
):
  """Writes the history of the layer-1 attention.

  Args:
    workdir: of the run.
    steps: N of them.
    maps: H x T x T for each step; stored are their lower triangles as float16.
  """
  maps_NxHxTxT = np.stack(maps).astype(np.float16)
  lower = np.tril_indices(maps_NxHxTxT.shape[-1])
  buffer = io.BytesIO()
  np.savez(
    buffer, steps=np.asarray(steps), lower_NxHxM=maps_NxHxTxT[..., *lower]
  )
  files.write_bytes(workdir / "attention.npz", buffer.getvalue())


def read_attention(workdir: pathlib.Path) -> dict[int, np.ndarray]:
  """The layer-1 attention maps, H x T x T, by their steps."""
  path = workdir / "attention.npz"
  if not os.path.lexists(path):
    return {}
  try:
    with (
      files.open_regular(path, os.O_RDONLY) as file,
      np.load(file, allow_pickle=False) as arrays,
    ):
      if sum(p.file_size for p in arrays.zip.infolist()) > _MAX_MAP_BYTES:
        raise ValueError("its maps are larger than 1 GiB")
      steps_N, lower_NxHxM = arrays["steps"], arrays["lower_NxHxM"]
    N, H, M = lower_NxHxM.shape
    T = round((2 * M + 0.25) ** 0.5 - 0.5)
    maps_NxHxTxT = np.zeros((N, H, T, T), np.float32)
    maps_NxHxTxT[..., *np.tril_indices(T)] = lower_NxHxM
    return dict(zip(steps_N.tolist(), maps_NxHxTxT, strict=True))
  except Exception as error:  # whatever numpy raises for a damaged file
    raise RunError(f"{path} is damaged: {files.reason(error)}") from error


def _refuse_foreign(workdir: pathlib.Path):
  if workdir.exists() and not workdir.is_dir():
    raise RunError(f"{workdir} is not a directory")
  in_sweep = workdir.parent.name == "members"
  if in_sweep and (workdir.is_symlink() or workdir.parent.is_symlink()):
    raise RunError(f"{workdir} is a symbolic link, or its parent is")
  if not workdir.exists() or (workdir / "config.json").exists():
    return
  if {path.name for path in workdir.iterdir()} - _EARLY:
    raise RunError(
      f"{workdir} is not empty and not a run (it has no config.json): name "
      "another --workdir"
    )


def _refuse_to_delete(workdir: pathlib.Path):
  """Refuses a directory that is not provably a run, or is in use."""
  if (workdir / "config.json").exists():
    made = files.read_json(workdir / "environment.json")
    if type(made.get("format")) is not int:
      raise RunError(f"{workdir} is not a run: its environment has no format")
  if others := sorted({p.name for p in workdir.iterdir()} - _NAMES):
    raise RunError(
      f"{workdir} holds {others[0]}, which is not part of a run: move it away, "
      "or name another --workdir"
    )
  for path in sorted(workdir.glob(f"members/*/{locking.NAME}")):
    with locking.lock(path.parent):
      pass


def _clear(workdir: pathlib.Path):
  """Moves a run aside and deletes it; last its config, which marks a run."""
  trash = workdir / _TRASH
  if trash.exists():
    shutil.rmtree(trash)
  trash.mkdir()
  for path in sorted(workdir.iterdir(), key=lambda p: p.name == "config.json"):
    if path.name not in (_TRASH, locking.NAME):
      path.replace(trash / path.name)
  shutil.rmtree(trash)


def _check_same(other: dict, config: dict, workdir: pathlib.Path):
  old, new = record.flatten(other), record.flatten(config)
  keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
  if keys:
    fields = ", ".join(
      f"{key} is {old.get(key)} there and {new.get(key)} here" for key in keys
    )
    raise RunError(
      f"{workdir} holds another run ({fields}): name another --workdir, or "
      "delete it with --overwrite"
    )
