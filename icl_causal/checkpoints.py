"""States on disk: Orbax keeps the files, numpy writes and reads the numbers.

A state is the zip file STEP/default/state.npz under a folder of checkpoints.
Orbax's CheckpointManager gives it its name only once it is whole, and deletes
the oldest. The numbers go around Orbax's own format, which has no checksum: a
bit that flips there is read as another number. Those of a zip file are held
against its own when they are read.
"""

import dataclasses
import os
import pathlib
from typing import TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

State = TypeVar("State")

_FILE = "state.npz"


class _Handler(ocp.CheckpointHandler):
  """Has Orbax save arrays by their names."""

  def save(self, directory, args):
    with open(directory / _FILE, "wb") as file:
      np.savez(file, **args.arrays)
      os.fsync(file.fileno())

  def restore(self, directory, args=None):
    del args
    with (
      open(directory / _FILE, "rb") as file,
      np.load(file, allow_pickle=False) as arrays,
    ):
      return dict(arrays)


@ocp.args.register_with_handler(_Handler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Args(ocp.args.CheckpointArgs):
  arrays: dict[str, np.ndarray]


def save(folder: pathlib.Path, step: int, state, keep: int):
  """Saves a pytree of arrays; the `keep` newest ones stay.

  Each of several processes saves alone, and waits for none.

  Args:
    folder: of checkpoints; its parent must exist.
    step: later than those of the folder.
    state: any pytree of arrays.
    keep: how many stay.

  Raises:
    OSError: if it can't be written; what the folder held stays.
  """
  process = jax.process_index()
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep,
    enable_async_checkpointing=False,
    multiprocessing_options=ocp.options.MultiprocessingOptions(
      primary_host=process,
      active_processes={process},
      barrier_sync_key_prefix=f"process_{process}",
    ),
    create=False,  # which Orbax leaves to the first process
  )
  folder.mkdir(exist_ok=True)
  arrays = {name: np.asarray(leaf) for name, leaf in _named(state).items()}
  with ocp.CheckpointManager(folder.resolve(), options=options) as manager:
    manager.save(step, args=_Args(arrays))


def load(folder: pathlib.Path, step: int, like: State) -> State:
  """The state that was saved; its leaves are numpy arrays.

  Args:
    folder: of checkpoints.
    step: of one in it.
    like: a state of the same structure, shapes and types.

  Raises:
    Exception: of whatever kind, if it is damaged or not like `like`.
  """
  arrays = _Handler().restore(folder / str(step) / "default")
  wanted = _named(like)
  if arrays.keys() != wanted.keys():
    raise ValueError(f"it has {sorted(arrays)}, not {sorted(wanted)}")
  for name, leaf in wanted.items():
    if arrays[name].dtype.kind == "V":  # which numpy has no name for: bfloat16
      arrays[name] = arrays[name].view(leaf.dtype)
    found, right = (
      f"{array.dtype}{list(array.shape)}" for array in (arrays[name], leaf)
    )
    if found != right:
      raise ValueError(f"its {name} is {found}, not {right}")
  leaves = [arrays[name] for name in wanted]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(state) -> dict[str, jax.Array | np.ndarray]:
  """The leaves of a pytree by their paths, such as `.params['W']`."""
  return {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }
