"""The run directory: a run's config, environment, metrics, states and result.

    config.json       the resolved config, canonical
    environment.json  versions, backend, devices, flags, git revision, format
    metrics.jsonl     a row for each evaluation
    snapshots.jsonl   outputs of the model at these and at early steps
    checkpoints/      the newest states
    failed.json       where a loss or a gradient was not finite
    result.json       written last: a run that has it is finished
    figures/, report.html

Each file is written completely or not at all, and has checksums that bind it to
this run. A write error is reported in one line.
"""

from collections.abc import Iterator, Mapping
import contextlib
import functools
import json
import os
import pathlib
import shutil
import sys
import zlib

from icl_causal.config import record
from icl_causal.runs import environment
from icl_causal.runs import files
from icl_causal.runs import history
from icl_causal.runs import locking
from icl_causal.runs import records
from icl_causal.runs.files import RunError

_TRASH = ".deleted"
# What may be in a directory before the config is.
_EARLY = {locking.NAME, "environment.json", _TRASH}
_EARLY |= {".environment.json.tmp", ".config.json.tmp"}
# What a command may leave in the directory of a run, a sweep or a check.
_FILES = {"config.json", "environment.json", "metrics.jsonl", "snapshots.jsonl"}
_FILES |= {"attention.npz", "attention.jsonl"}  # of formats 3 and 4
_FILES |= {"failed.json", "result.json", "report.html"}
_FILES |= {"table.csv", "table.jsonl", "table.txt"}
_FOLDERS = {"checkpoints", "damaged_checkpoints", "figures", "analysis"}
_FOLDERS |= {"tensorboard", "wandb", "members", "slurm"}
_NAMES = _EARLY | _FILES | _FOLDERS | {f".{name}.tmp" for name in _FILES}


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
    if not is_finished(workdir):
      _note_machine(workdir)
    return is_finished(workdir)
  with files.writing(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    if overwrite:
      _refuse_to_delete(workdir)
    _clear(workdir)
  text = record.canonical(config)
  start = zlib.crc32(text.encode())
  made = environment.environment()
  records.write(workdir / "environment.json", made, start)
  files.write_text(config_path, text)
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
    RunError: also if the run is of a version whose directories differ, or if
      the directory is that of another member of the sweep.
  """
  path = workdir / "config.json"
  config = files.read_json(path)
  read_environment(workdir)
  try:
    record.from_record(config)
  except Exception as error:  # whatever ml_collections raises for a name
    raise RunError(f"{path} is damaged: {files.reason(error)}") from error
  if _is_member(workdir) and record.digest(config) != workdir.name:
    raise RunError(
      f"{workdir} is not its run: its config is that of {record.digest(config)}"
    )
  return config


def read_environment(workdir: pathlib.Path) -> dict:
  """What a run ran on.

  Raises:
    RunError: if it or config.json is damaged, or of another format.
  """
  path = workdir / "environment.json"
  made = files.read_json(path)
  if made.get("format") != environment.FORMAT:
    raise RunError(
      f"{workdir} has format {made.get('format')} of icl_causal "
      f"{made.get('icl_causal', '< 0.1')}, and {environment.version()} reads "
      f"format {environment.FORMAT}: use that version, or delete the directory"
    )
  start = records.checksum_of_config(workdir)
  return records.read(path, environment.FIELDS, start, "config.json")


def write_result(workdir: pathlib.Path, result: Mapping):
  """Finishes the run."""
  path = workdir / "result.json"
  records.write(path, result, _end_of_history(workdir))


def read_result(
  workdir: pathlib.Path, fields: records.Fields = records.RESULT
) -> dict:
  """The result of a finished run.

  Args:
    workdir: of the run.
    fields: of the result.

  Raises:
    RunError: if it is damaged, or is not that of this config and history.
  """
  if (workdir / "result.json").exists():  # otherwise it is what is missing
    read_config(workdir)
  return records.read(
    workdir / "result.json",
    fields,
    _end_of_history(workdir),
    "config.json or the end of metrics.jsonl",
  )


def write_failure(workdir: pathlib.Path, failed: Mapping):
  """Marks a run whose loss or gradient was not finite."""
  path = workdir / "failed.json"
  records.write(path, failed, _end_of_history(workdir))


def read_failure(workdir: pathlib.Path) -> dict | None:
  """The record of `write_failure`, or None."""
  path = workdir / "failed.json"
  if not os.path.lexists(path):
    return None
  read_config(workdir)
  return records.read(
    path,
    records.FAILURE,
    _end_of_history(workdir),
    "config.json or the end of metrics.jsonl",
  )


def _end_of_history(workdir: pathlib.Path) -> int:
  return records.last_checksum(workdir / history.METRICS)


def _is_member(workdir: pathlib.Path) -> bool:
  return workdir.parent.name == "members"


def _note_machine(workdir: pathlib.Path):
  """Records the machine of a resumed run if it is not the one before."""
  made, now = read_environment(workdir), environment.machine()
  last = (made["resumed"] or [made])[-1]
  before = record.flatten(last) if isinstance(last, dict) else {}
  changes = [
    f"{name} was {before.get(name)} and is {value}"
    for name, value in record.flatten(now).items()
    if before.get(name) != value
  ]
  if changes:
    made["resumed"].append(now)
    start = records.checksum_of_config(workdir)
    records.write(workdir / "environment.json", made, start)
    _warn(
      f"a run resumes elsewhere ({', '.join(changes)}): numbers may differ "
      "from those of an uninterrupted run in the last digits"
    )


@functools.cache  # the runs of a sweep say the same
def _warn(message: str):
  print(f"warning: {message}", file=sys.stderr)


def _refuse_foreign(workdir: pathlib.Path):
  if workdir.exists() and not workdir.is_dir():
    raise RunError(f"{workdir} is not a directory")
  if _is_member(workdir) and (
    workdir.is_symlink() or workdir.parent.is_symlink()
  ):
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
      files.move(path, trash / path.name)
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
      "delete the directory"
    )
