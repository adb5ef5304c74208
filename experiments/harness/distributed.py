"""Runs several processes as one program, on one machine or on several.

All processes compute. Only process 0 prints and writes, except for runs that a
process trains alone. Process 0 reads from disk and broadcasts.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import pathlib
import re
from typing import Any, NamedTuple, TypeVar

from absl import flags
import jax
from jax.experimental import multihost_utils
import numpy as np

from experiments.harness.app import Refused
from icl_causal import runs

flags.disclaim_key_flags()  # flags defined here belong to the command

Tree = TypeVar("Tree")


def define_flags():
  """Defines the flags that connect a process to the others."""
  flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0 of several, or `auto` under srun and on a TPU pod, "
    "where the other two flags are not needed.",
  )
  flags.DEFINE_integer("num_processes", None, "Number of processes.", 1)
  flags.DEFINE_integer("process_id", None, "Index of this process, from 0.", 0)


def join():
  """Joins the other processes if the flags name a coordinator."""
  values = flags.FLAGS.flag_values_dict()
  where, num, index = (
    values.get(name) for name in ("coordinator", "num_processes", "process_id")
  )
  if where == "auto":
    try:
      jax.distributed.initialize()
    except ValueError as error:  # no address is known
      raise Refused(
        f"--coordinator=auto: needs srun or a TPU pod ({error})"
      ) from error
  elif where is not None:
    if not re.fullmatch(r"[^:]+:\d+", where):
      raise Refused(f"--coordinator={where}: must be HOST:PORT or auto")
    if num is None or index is None or index >= num:
      raise Refused(
        f"--coordinator={where}: needs --num_processes and a --process_id "
        "below it"
      )
    jax.distributed.initialize(where, num, index)
  elif num is not None or index is not None:
    raise Refused("--num_processes and --process_id need --coordinator")


def is_one_of_several() -> bool:
  """Whether the flags say that there are other processes."""
  return flags.FLAGS.coordinator is not None


def is_first() -> bool:
  """Whether this is the process that prints and writes."""
  return jax.process_index() == 0


def any_process(value: bool) -> bool:
  """Whether the value is true in any process; all processes must call it."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.process_allgather(np.array(value)).any())


@contextlib.contextmanager
def raise_together() -> Iterator[None]:
  """An error in one process raises in all, so that none waits for another.

  Raises:
    RunError: in the processes without an error.
  """
  failed = None
  try:
    yield
  except Exception as error:
    failed = error
  if any_process(failed is not None):
    raise failed or runs.RunError("another process failed and reports why")


def broadcast(tree: Tree) -> Tree:
  """Sends the arrays and numbers of process 0 to every process."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(
    jax.tree.map(np.asarray, tree), is_source=is_first()
  )


@contextlib.contextmanager
def opened(
  workdir: pathlib.Path, config: Mapping, overwrite: bool
) -> Iterator[bool]:
  """Calls `runs.opened` in process 0 and broadcasts what it returns.

  Raises:
    RunError: in every process, if `runs.opened` raises it in process 0.
  """
  with contextlib.ExitStack() as stack:
    finished = False
    with raise_together():
      if is_first():
        run = runs.opened(workdir, config, overwrite)
        finished = stack.enter_context(run)
    yield bool(broadcast(finished))


class Group(NamedTuple):
  """The processes that train the same runs.

  Attributes:
    is_writer: whether this process writes the run directories.
    raise_together: a context manager; an error in one process raises in all.
    broadcast: sends the arrays of the writer to all.
  """

  is_writer: bool
  raise_together: Callable[[], Any]
  broadcast: Callable[[Any], Any]


def every_process() -> Group:
  """All processes train the same runs."""
  return Group(is_first(), raise_together, broadcast)


def this_process() -> Group:
  """This process trains its runs alone."""
  return Group(True, contextlib.nullcontext, lambda tree: tree)
