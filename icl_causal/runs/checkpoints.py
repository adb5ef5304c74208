"""Training states on disk: a plain zip file of arrays for each state.

The state of step N is checkpoints/N.npz, whose arrays are named by their paths
in the state. A file is written under a temporary name, flushed, and renamed, so
that it is there completely or not at all. The zip format has a checksum for
each array, which reading verifies.

Another array, `saved`, has the step, the checksum of config.json, and those of
the history up to this step. A state of another step or run, or whose history is
damaged, is refused.
"""

from collections.abc import Sequence
import io
import itertools
import os
import pathlib
import re
from typing import Any, TypeVar
import zipfile

import jax
import numpy as np

from icl_causal.runs import files
from icl_causal.runs import history
from icl_causal.runs import records
from icl_causal.runs.files import RunError

State = TypeVar("State")

_SAVED = "saved"


def save_state(workdir: pathlib.Path, step: int, state: Any, keep: int = 2):
  """Saves the state after `step` steps and deletes all but the `keep` newest.

  Raises:
    RunError: if it can't be written; the states before it are kept.
  """
  buffer = io.BytesIO()
  arrays: Any = {name: np.asarray(leaf) for name, leaf in _named(state).items()}
  config = records.checksum_of_config(workdir)
  arrays[_SAVED] = np.array([step, config, *history.checksums(workdir)])
  np.savez(buffer, **arrays)
  folder = workdir / "checkpoints"
  try:
    files.make_directory(folder)
    files.write_bytes(_file(workdir, step), buffer.getvalue())
  except (OSError, RunError) as error:
    raise RunError(
      f"can't save the state of step {step} in {workdir}: {files.reason(error)}"
    ) from error
  for old in saved_steps(workdir)[:-keep]:
    _file(workdir, old).unlink(missing_ok=True)


def load_state(
  workdir: pathlib.Path, like: State
) -> tuple[State | None, list[str]]:
  """`load_states` for one run."""
  states, messages = load_states([workdir], like)
  return (states[0] if states else None), messages


def load_states(
  workdirs: Sequence[pathlib.Path], like: State
) -> tuple[list[State] | None, list[str]]:
  """The states of runs at the newest step at which all of them can be used.

  A state can't be used if it can't be read, or if the history up to it is
  damaged. Newer files that can't be used are moved to damaged_checkpoints.

  Args:
    workdirs: one for each run.
    like: a state of the same structure, shapes and types.

  Returns:
    The states, or None if the runs have no step in common, and a message for
    each file that can't be used.

  Raises:
    RunError: if there are common steps, but none at which all can be used.
  """
  steps_by_run = [set(saved_steps(workdir)) for workdir in workdirs]
  steps = set.intersection(*steps_by_run) if workdirs else set()
  known = {workdir: history.known(workdir) for workdir in workdirs}
  states, unusable = None, {}
  for step in sorted(steps, reverse=True):
    states = []
    for workdir in workdirs:
      try:
        states.append(read_state(workdir, step, like, known[workdir]))
      except Exception as error:
        unusable[workdir, step] = files.reason(error)
    if len(states) == len(workdirs):
      break
    states = None
  if unusable and states is None:
    (workdir, step), cause = next(iter(unusable.items()))
    raise RunError(
      f"{workdir} has no checkpoint that can be used (that of step {step}: "
      f"{cause}): restore the file, or delete the directory to start again"
    )
  for workdir, step in unusable:  # out of the way of later saves
    _move_away(_file(workdir, step))
  return states, [
    f"the checkpoint of step {step} can't be used and was moved to "
    f"damaged_checkpoints; going back to the one before ({cause})"
    for (_, step), cause in unusable.items()
  ]


def read_state(
  workdir: pathlib.Path,
  step: int,
  like: State,
  known: Sequence[history.Known] | None = None,
) -> State:
  """The state that was saved at a step; its leaves are numpy arrays.

  Args:
    workdir: of the run.
    step: of a saved state.
    like: a state of the same structure, shapes and types.
    known: the history of the run, if it is known already.

  Raises:
    Exception: of any type, if the state is damaged, not like `like`, or of
      another step, run or history.
  """
  arrays = _read(workdir, step, known)
  if arrays.keys() != _named(like).keys():
    raise ValueError(f"it has {sorted(arrays)}, not {sorted(_named(like))}")
  for name, leaf in _named(like).items():
    if arrays[name].dtype.kind == "V":  # which numpy has no name for: bfloat16
      arrays[name] = arrays[name].view(leaf.dtype)
    actual, right = (
      f"{array.dtype}{list(array.shape)}" for array in (arrays[name], leaf)
    )
    if actual != right:
      raise ValueError(f"its {name} is {actual}, not {right}")
  leaves = [arrays[name] for name in _named(like)]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def read_params(
  workdir: pathlib.Path,
  step: int,
  known: Sequence[history.Known] | None = None,
) -> dict[str, Any]:
  """The parameters that were saved at a step, without their model.

  Raises:
    Exception: of any type, as `read_state`.
  """
  params: dict[str, Any] = {}
  for name, array in _read(workdir, step, known, ".params").items():
    *outer, last = re.findall(r"\['([^']+)'\]", name)
    group = params
    for key in outer:
      group = group.setdefault(key, {})
    group[last] = array
  return params


def saved_steps(workdir: pathlib.Path) -> list[int]:
  """The steps of all saved states, ascending."""
  if (workdir / "checkpoints").is_symlink():
    raise RunError(f"{workdir}/checkpoints is a symbolic link")
  names = (p.stem for p in (workdir / "checkpoints").glob("*.npz"))
  return sorted(int(n) for n in names if n.isascii() and n.isdecimal())


def delete_states(workdir: pathlib.Path, after: int = -1):
  """Deletes the saved states after a step, by default all."""
  for step in saved_steps(workdir):
    if step > after:
      _file(workdir, step).unlink()


def _read(
  workdir: pathlib.Path,
  step: int,
  known: Sequence[history.Known] | None,
  prefix: str = "",
) -> dict[str, np.ndarray]:
  """The arrays of a checkpoint by name, of those whose name has a prefix."""
  known = history.known(workdir) if known is None else known
  with files.open_regular(_file(workdir, step), os.O_RDONLY) as file:
    if not zipfile.is_zipfile(file):
      raise ValueError("it is not a zip file")
    file.seek(0)
    archive = np.load(file, allow_pickle=False)
    for part in archive.zip.infolist():  # or it could unpack to any size
      if part.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"its {part.filename} is compressed")
    saved_step, config, *checksums = archive[_SAVED].tolist()
    arrays = {
      name: archive[name]
      for name in archive.files
      if name != _SAVED and name.startswith(prefix)
    }
  if saved_step != step:
    raise ValueError(f"it is of step {saved_step}")
  if config != records.checksum_of_config(workdir):
    raise ValueError("it is of another run")
  for file, checksum in zip(known, checksums, strict=True):
    if checksum not in file.checksums:
      raise ValueError(file.problem)
  return arrays


def _file(workdir: pathlib.Path, step: int) -> pathlib.Path:
  return workdir / "checkpoints" / f"{step}.npz"


def _named(state) -> dict[str, Any]:
  """The leaves of a pytree by their paths, such as `.params['W']`."""
  return {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }


def _move_away(checkpoint: pathlib.Path):
  folder = checkpoint.parents[1] / "damaged_checkpoints"
  names = (f"{checkpoint.stem}.{n}.npz" for n in itertools.count(1))
  files.make_directory(folder)
  free = next(name for name in names if not os.path.lexists(folder / name))
  files.move(checkpoint, folder / free)
