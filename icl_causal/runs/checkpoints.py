"""Training states on disk: a plain zip file of arrays for each state.

The state of step N is checkpoints/N.npz, whose arrays are named by their paths
in the state. A file is written under a temporary name, flushed, and renamed, so
that it is there completely or not at all. The zip format has a checksum for
each array, which reading verifies.
"""

from collections.abc import Sequence
import io
import itertools
import os
import pathlib
from typing import Any, TypeVar

import jax
import numpy as np

from icl_causal.runs import files
from icl_causal.runs.files import RunError

State = TypeVar("State")

# The most that numpy writes before the numbers of an array.
_HEADER_BYTES = 2**12


def save_state(workdir: pathlib.Path, step: int, state: Any, keep: int = 2):
  """Saves the state after `step` steps and deletes all but the `keep` newest.

  Raises:
    RunError: if it can't be written; the states before it are kept.
  """
  buffer = io.BytesIO()
  arrays: Any = {name: np.asarray(leaf) for name, leaf in _named(state).items()}
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
  """The states of runs at the newest step at which all of them can be read.

  Newer files that can't be read are moved to damaged_checkpoints.

  Args:
    workdirs: one for each run.
    like: a state of the same structure, shapes and types.

  Returns:
    The states, or None if the runs have no step in common, and a message for
    each file that can't be read.

  Raises:
    RunError: if there are common steps, but none at which all can be read.
  """
  steps_by_run = [set(saved_steps(workdir)) for workdir in workdirs]
  steps = set.intersection(*steps_by_run) if workdirs else set()
  states, unreadable = None, {}
  for step in sorted(steps, reverse=True):
    states = []
    for workdir in workdirs:
      try:
        states.append(read_state(workdir, step, like))
      except Exception as error:
        unreadable[workdir, step] = files.reason(error)
    if len(states) == len(workdirs):
      break
    states = None
  if unreadable and states is None:
    (workdir, _), cause = next(iter(unreadable.items()))
    raise RunError(
      f"no checkpoint in {workdir} can be read ({cause}): --overwrite starts "
      "again from step 0"
    )
  for workdir, step in unreadable:  # out of the way of later saves
    _move_away(_file(workdir, step))
  return states, [
    f"the checkpoint of step {step} can't be read and was moved to "
    f"damaged_checkpoints; going back to the one before ({cause})"
    for (_, step), cause in unreadable.items()
  ]


def read_state(workdir: pathlib.Path, step: int, like: State) -> State:
  """The state that was saved at a step; its leaves are numpy arrays.

  Args:
    workdir: of the run.
    step: of a saved state.
    like: a state of the same structure, shapes and types.

  Raises:
    Exception: of any type, if the file is damaged or not like `like`.
  """
  expected = _named(like)
  with (
    files.open_regular(_file(workdir, step), os.O_RDONLY) as file,
    np.load(file, allow_pickle=False) as archive,
  ):
    if set(archive.files) != expected.keys():
      raise ValueError(f"it has {archive.files}, not {sorted(expected)}")
    for part in archive.zip.infolist():  # before anything is unpacked
      leaf = expected[part.filename.removesuffix(".npy")]
      if part.file_size > leaf.size * leaf.dtype.itemsize + _HEADER_BYTES:
        raise ValueError(f"its {part.filename} has {part.file_size} bytes")
    arrays = dict(archive)
  for name, leaf in expected.items():
    if arrays[name].dtype.kind == "V":  # which numpy has no name for: bfloat16
      arrays[name] = arrays[name].view(leaf.dtype)
    actual, right = (
      f"{array.dtype}{list(array.shape)}" for array in (arrays[name], leaf)
    )
    if actual != right:
      raise ValueError(f"its {name} is {actual}, not {right}")
  leaves = [arrays[name] for name in expected]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


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
  with files.writing(folder):
    checkpoint.replace(
      next(folder / name for name in names if not (folder / name).exists())
    )
