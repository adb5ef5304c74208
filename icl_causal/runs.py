"""The run directory: a run's config, environment, metrics, states and result.

    config.json       the resolved config, canonical
    environment.json  versions, backend, devices, flags, git revision
    metrics.jsonl     a row for each evaluation
    checkpoints/      the newest states
    result.json       written last: a run that has it is finished
    figures/, report.html

Every file is written whole or not at all.
"""

from collections.abc import Mapping
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import jax

if TYPE_CHECKING:  # matplotlib takes half a second to load
  from matplotlib.figure import Figure

State = TypeVar("State")


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
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


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
  if workdir.exists() and not workdir.is_dir():
    raise RunError(f"{workdir} is not a directory")
  config_path = workdir / "config.json"
  is_run = config_path.exists()
  if workdir.exists() and any(workdir.iterdir()) and not is_run:
    raise RunError(
      f"{workdir} is not empty and not a run (it has no config.json): name "
      "another --workdir"
    )
  if is_run and overwrite:
    shutil.rmtree(workdir)
  elif is_run:
    _check_same(_read_json(config_path), json.loads(canonical(config)), workdir)
    return (workdir / "result.json").exists()
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise RunError(f"can't make {workdir}: {error.strerror}") from error
  write_text(workdir / "environment.json", canonical(environment()))
  write_text(config_path, canonical(config))
  return False


def read_config(workdir: pathlib.Path) -> dict:
  """The config of a run, as plain dicts and lists."""
  return _read_json(workdir / "config.json")


def write_result(workdir: pathlib.Path, result: Mapping):
  """Finishes the run."""
  write_text(workdir / "result.json", canonical(result))


def read_result(workdir: pathlib.Path) -> dict:
  """The result of a finished run."""
  return _read_json(workdir / "result.json")


def append_metrics(workdir: pathlib.Path, row: Mapping):
  """Adds a row of flat keys to metrics.jsonl."""
  line = json.dumps(row, allow_nan=False)
  with open(workdir / "metrics.jsonl", "a", encoding="utf-8") as file:
    file.write(line + "\n")
    file.flush()
    os.fsync(file.fileno())


def read_metrics(workdir: pathlib.Path) -> list[dict]:
  """The rows of metrics.jsonl, but for a last one that was cut off."""
  path = workdir / "metrics.jsonl"
  if not path.exists():
    return []
  text = path.read_text(encoding="utf-8")
  whole_lines = text[: text.rfind("\n") + 1].splitlines()
  return [json.loads(line) for line in whole_lines]


def cut_metrics(workdir: pathlib.Path, step: int) -> list[dict]:
  """Drops the rows after `step`, which a resumed run writes again."""
  rows = [row for row in read_metrics(workdir) if row["step"] <= step]
  text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
  write_text(workdir / "metrics.jsonl", text)
  return rows


def save_state(workdir: pathlib.Path, step: int, state: Any, keep: int = 2):
  """Saves the state after `step` steps; the `keep` newest ones stay."""
  import orbax.checkpoint as ocp

  with _checkpoints(workdir, keep) as manager:
    manager.save(step, args=ocp.args.StandardSave(state))


def load_state(
  workdir: pathlib.Path, like: State
) -> tuple[State | None, list[str]]:
  """The newest state that can be read.

  Args:
    workdir: of the run.
    like: a state of the same structure, shapes and types.

  Returns:
    The state, or None if there is none, and a message for each newer one that
    could not be read.
  """
  if not (workdir / "checkpoints").is_dir():
    return None, []
  import orbax.checkpoint as ocp

  target = ocp.args.StandardRestore(
    jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  )
  state, unreadable = None, {}
  with _checkpoints(workdir) as manager:
    for step in sorted(manager.all_steps(), reverse=True):
      try:
        state = manager.restore(step, args=target)
        break
      except Exception as error:  # whatever a damaged file makes Orbax raise
        unreadable[step] = str(error).partition("\n")[0] or repr(error)
  for step in unreadable:  # out of the way of later saves, but not deleted
    damaged = workdir / "damaged_checkpoints"
    damaged.mkdir(exist_ok=True)
    (workdir / "checkpoints" / str(step)).replace(damaged / str(step))
  return state, [
    f"the checkpoint of step {step} can't be read and was moved to "
    f"damaged_checkpoints; going back to the one before ({cause[:100]})"
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
  if not (workdir / "checkpoints").is_dir():
    return {}, []
  import orbax.checkpoint as ocp

  target = ocp.args.StandardRestore(
    jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  )
  states, messages = {}, []
  with _checkpoints(workdir) as manager:
    for step in sorted(manager.all_steps()):
      try:
        states[step] = manager.restore(step, args=target)
      except Exception as error:  # whatever a damaged file makes Orbax raise
        cause = str(error).partition("\n")[0] or repr(error)
        messages.append(
          f"the checkpoint of step {step} can't be read ({cause[:100]})"
        )
  return states, messages


def save_figure(workdir: pathlib.Path, name: str, figure: "Figure"):
  """figures/NAME.png and .pdf, the same bytes for the same figure."""
  folder = workdir / "figures"
  folder.mkdir(exist_ok=True)
  for suffix, metadata in (("png", None), ("pdf", {"CreationDate": None})):
    temporary = folder / f".{name}.{suffix}.tmp"
    figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
    figure.set_layout_engine("none")  # laid out once, the same in both
    os.replace(temporary, folder / f"{name}.{suffix}")


def write_text(path: pathlib.Path, text: str):
  """Writes the whole file or leaves it as it was."""
  temporary = path.with_name(f".{path.name}.tmp")
  with open(temporary, "w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def environment() -> dict:
  """What a run ran on."""
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  return {
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


def _checkpoints(workdir: pathlib.Path, keep: int | None = None):
  import orbax.checkpoint as ocp

  # Of several processes, each saves what it is asked to, and waits for none.
  index = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
    primary_host=index,
    active_processes={index},
    barrier_sync_key_prefix=f"process_{index}",
  )
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep,
    enable_async_checkpointing=False,
    multiprocessing_options=alone,
    create=False,  # which Orbax leaves to the first process
  )
  folder = (workdir / "checkpoints").resolve()
  folder.mkdir(exist_ok=True)
  return ocp.CheckpointManager(folder, options=options)


def _read_json(path: pathlib.Path) -> dict:
  if not path.parent.is_dir():
    raise RunError(f"{path.parent} does not exist: no run has been there")
  if not path.exists():
    raise RunError(f"{path.parent} has no {path.name}")
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise RunError(f"{path} is damaged: {error}") from error


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
