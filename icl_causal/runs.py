"""The run directory: a run's config, environment, metrics, states and result.

    config.json       the resolved config, canonical
    environment.json  versions, backend, devices, flags, git revision
    metrics.jsonl     a row for each evaluation
    checkpoints/      the newest states
    failed.json       where a loss or a gradient was not finite: what was seen
    result.json       written last: a run that has it is finished
    figures/, report.html

Every file is written whole or not at all, and what can't be written is told in
one line.
"""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from icl_causal import locks

if TYPE_CHECKING:  # matplotlib takes half a second to load
  from matplotlib.figure import Figure

State = TypeVar("State")

# Of run directories. A change after which an older directory, its states or
# its data, would be misread makes it one more.
FORMAT = 2

# What may be in a directory before the config is.
_EARLY = {locks.NAME, "environment.json"}
_EARLY |= {".environment.json.tmp", ".config.json.tmp"}


class RunError(Exception):
  """Something about a run directory that its user has to know, in one line."""


def canonical(config: Mapping) -> str:
  """The JSON text of a config: sorted keys, tuples as lists, no NaN."""
  return json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"


def digest(config: Mapping) -> str:
  """Twelve hexadecimal digits that name a config."""
  return hashlib.sha256(canonical(config).encode()).hexdigest()[:12]


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
  """Nested fields under dotted names, such as `train.steps`."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping) and value:
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


@contextlib.contextmanager
def opened(
  workdir: pathlib.Path, config: Mapping, overwrite: bool
) -> Iterator[bool]:
  """`prepare` for a run that no other process may touch meanwhile.

  A finished run is not held, for it is only read.

  Raises:
    RunError: as `prepare`, and if another process holds the directory.
  """
  _refuse_foreign(workdir)
  if not overwrite and (workdir / "result.json").exists():
    yield prepare(workdir, config, overwrite)
    return
  with held(workdir):
    yield prepare(workdir, config, overwrite)


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
  """Makes the folder where it is missing, and keeps other processes out.

  Raises:
    RunError: if another process holds it, which is named.
  """
  with contextlib.ExitStack() as stack:
    with _writing(folder):
      folder.mkdir(parents=True, exist_ok=True)
      try:
        stack.enter_context(locks.held(folder))
      except locks.InUse as error:
        raise RunError(str(error)) from error
    yield


def prepare(workdir: pathlib.Path, config: Mapping, overwrite: bool) -> bool:
  """Makes the directory ready for this config, or finds it so.

  Args:
    workdir: made where it is missing.
    config: of the run; the directory's own must equal it.
    overwrite: delete what the directory holds of an earlier run.

  Returns:
    Whether the run in it is finished.

  Raises:
    RunError: if the directory holds something that is not this run.
  """
  _refuse_foreign(workdir)
  config_path = workdir / "config.json"
  if config_path.exists() and not overwrite:
    _check_same(read_config(workdir), json.loads(canonical(config)), workdir)
    return (workdir / "result.json").exists()
  with _writing(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    _clear(workdir)
  write_text(workdir / "environment.json", canonical(environment()))
  write_text(config_path, canonical(config))
  return False


def read_config(workdir: pathlib.Path) -> dict:
  """The config of a run, as plain dicts and lists.

  Raises:
    RunError: also if the run is of a version whose directories differ.
  """
  config = _read_json(workdir / "config.json")
  made = _read_json(workdir / "environment.json")
  if made.get("format") != FORMAT:
    raise RunError(
      f"{workdir} was made by icl_causal {made.get('icl_causal', '< 0.1')}, "
      f"and {_version()} can't read it: use that version, or delete it with "
      "--overwrite"
    )
  return config


def write_result(workdir: pathlib.Path, result: Mapping):
  """Finishes the run."""
  write_text(workdir / "result.json", canonical(result))


def read_result(workdir: pathlib.Path) -> dict:
  """The result of a finished run."""
  return _read_json(workdir / "result.json")


def write_failure(workdir: pathlib.Path, failed: Mapping):
  """Marks a run that came to a number that is not finite."""
  write_text(workdir / "failed.json", canonical(failed))


def read_failure(workdir: pathlib.Path) -> dict | None:
  """What was seen there, or None."""
  path = workdir / "failed.json"
  return _read_json(path) if path.exists() else None


def append_metrics(workdir: pathlib.Path, row: Mapping):
  """Adds a row of flat keys to metrics.jsonl."""
  line = json.dumps(row, allow_nan=False) + "\n"
  path = workdir / "metrics.jsonl"
  with _writing(path), open(path, "ab", buffering=0) as file:
    _write_all(file, line.encode())


def read_metrics(workdir: pathlib.Path) -> list[dict]:
  """The rows of metrics.jsonl, but for a last one that was cut off."""
  path = workdir / "metrics.jsonl"
  if not path.exists():
    return []
  whole_lines = path.read_bytes().split(b"\n")[:-1]
  rows = []
  for number, line in enumerate(whole_lines, start=1):
    try:
      rows.append(json.loads(line))
    except ValueError as error:
      raise RunError(f"{path} is damaged in line {number}: {error}") from error
  return rows


def cut_metrics(workdir: pathlib.Path, step: int) -> list[dict]:
  """Drops the rows after `step`, which a resumed run writes again."""
  rows = [row for row in read_metrics(workdir) if row["step"] <= step]
  text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
  write_text(workdir / "metrics.jsonl", text)
  return rows


def save_state(workdir: pathlib.Path, step: int, state: Any, keep: int = 2):
  """Saves the state after `step` steps; the `keep` newest ones stay."""
  from icl_causal import checkpoints

  try:
    checkpoints.save(workdir / "checkpoints", step, state, keep)
  except Exception as error:  # whatever a full disk makes Orbax raise
    raise RunError(
      f"can't save the state of step {step} in {workdir}: {_cause(error)}"
    ) from error


def load_state(
  workdir: pathlib.Path, like: State
) -> tuple[State | None, list[str]]:
  """The newest state that can be read.

  Those that can't be are moved away, where there is an older one that can.

  Args:
    workdir: of the run.
    like: a state of the same structure, shapes and types.

  Returns:
    The state, or None if there is none, and a message for each newer one that
    could not be read.

  Raises:
    RunError: if there are states, and none can be read.
  """
  state, unreadable = None, {}
  for step in reversed(_saved_steps(workdir)):
    try:
      state = _restore(workdir, step, like)
      break
    except Exception as error:
      unreadable[step] = _cause(error)
  if unreadable and state is None:
    cause = unreadable[max(unreadable)]
    raise RunError(
      f"no checkpoint in {workdir} can be read ({cause}): --overwrite starts "
      "anew"
    )
  for step in unreadable:  # out of the way of later saves, but not deleted
    _move_away(workdir / "checkpoints" / str(step))
  return state, [
    f"the checkpoint of step {step} can't be read and was moved to "
    f"damaged_checkpoints; going back to the one before ({cause})"
    for step, cause in unreadable.items()
  ]


def load_states(
  workdir: pathlib.Path, like: State
) -> tuple[dict[int, State], list[str]]:
  """Every state that was kept and can be read, by its step; changes nothing.

  Args:
    workdir: of the run.
    like: a state of the same structure, shapes and types.

  Returns:
    The states, the oldest first, and a message for each that can't be read.
  """
  states, messages = {}, []
  for step in _saved_steps(workdir):
    try:
      states[step] = _restore(workdir, step, like)
    except Exception as error:
      messages.append(
        f"the checkpoint of step {step} can't be read ({_cause(error)})"
      )
  return states, messages


def save_figure(workdir: pathlib.Path, name: str, figure: "Figure"):
  """figures/NAME.png and .pdf, the same bytes for the same figure."""
  folder = workdir / "figures"
  for suffix, metadata in (("png", None), ("pdf", {"CreationDate": None})):
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
    figure.set_layout_engine("none")  # laid out once, the same in both
    with _writing(folder):
      folder.mkdir(exist_ok=True)
    _write(folder / f"{name}.{suffix}", buffer.getvalue())


def write_text(path: pathlib.Path, text: str):
  """Writes the whole file or leaves it as it was."""
  _write(path, text.encode())


def _write(path: pathlib.Path, data: bytes):
  temporary = path.with_name(f".{path.name}.tmp")
  with _writing(path):
    try:
      with open(temporary, "wb", buffering=0) as file:
        _write_all(file, data)
      os.replace(temporary, path)
    except OSError:
      with contextlib.suppress(OSError):
        temporary.unlink()
      raise


def _write_all(file: io.FileIO, data: bytes):
  left = memoryview(data)
  while left:  # a disk that is nearly full takes a part
    left = left[file.write(left) :]
  os.fsync(file.fileno())


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
  """Has an error of the system say what could not be written."""
  try:
    yield
  except OSError as error:
    raise RunError(f"can't write {path}: {error.strerror}") from error


def _cause(error: Exception) -> str:
  """The end of the first line, where Orbax names the cause; no details."""
  line = (str(error).strip() or repr(error)).partition("\n")[0]
  return line.partition(" [")[0][-200:]


def environment() -> dict:
  """What a run ran on, and the version whose directory it has."""
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  return {
    "icl_causal": _version(),
    "format": FORMAT,
    "python": platform.python_version(),
    "platform": platform.platform(),
    "versions": {name: importlib.metadata.version(name) for name in packages},
    "backend": jax.default_backend(),
    "devices": [device.device_kind for device in jax.devices()],
    "processes": jax.process_count(),
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
    "command": sys.argv,
    "git_revision": _git_revision(),
  }


def _version() -> str:
  return importlib.metadata.version("icl-causal")


def _git_revision() -> str | None:
  """Of the code, with a + where it has uncommitted changes."""
  command = ["git", "describe", "--always", "--dirty=+", "--abbrev=40"]
  try:
    found = subprocess.run(
      command,
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return found.stdout.strip()


def _saved_steps(workdir: pathlib.Path) -> list[int]:
  folder = workdir / "checkpoints"
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def _restore(workdir: pathlib.Path, step: int, like: State) -> State:
  from icl_causal import checkpoints  # loads Orbax, half a second

  return checkpoints.load(workdir / "checkpoints", step, like)


def _move_away(checkpoint: pathlib.Path):
  folder = checkpoint.parents[1] / "damaged_checkpoints"
  folder.mkdir(exist_ok=True)
  names = (f"{checkpoint.name}.{n}" for n in itertools.count(1))
  checkpoint.replace(
    next(folder / name for name in names if not (folder / name).exists())
  )


def _read_json(path: pathlib.Path) -> dict:
  if not path.parent.is_dir():
    raise RunError(f"{path.parent} does not exist: no run has been there")
  if not path.exists():
    raise RunError(f"{path.parent} has no {path.name}")
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise RunError(f"{path} is damaged: {error}") from error
  if not isinstance(value, dict):
    raise RunError(f"{path} is damaged: it holds no JSON object")
  return value


def _refuse_foreign(workdir: pathlib.Path):
  if workdir.exists() and not workdir.is_dir():
    raise RunError(f"{workdir} is not a directory")
  if not workdir.exists() or (workdir / "config.json").exists():
    return
  if {path.name for path in workdir.iterdir()} - _EARLY:
    raise RunError(
      f"{workdir} is not empty and not a run (it has no config.json): name "
      "another --workdir"
    )


def _clear(workdir: pathlib.Path):
  """Deletes a run; last its config, by which it is known to be one."""
  for path in sorted(workdir.iterdir(), key=lambda p: p.name == "config.json"):
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    elif path.name != locks.NAME:
      path.unlink()


def _check_same(found: dict, config: dict, workdir: pathlib.Path):
  old, new = flatten(found), flatten(config)
  keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
  if keys:
    fields = ", ".join(
      f"{key} is {old.get(key)} there and {new.get(key)} here" for key in keys
    )
    raise RunError(
      f"{workdir} holds another run ({fields}): name another --workdir, or "
      "delete it with --overwrite"
    )
