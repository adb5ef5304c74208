"""Several processes as one program, on one machine or on many.

All of them compute, and the first one alone prints and writes, except for runs
that a process has to itself. What the first one reads, it tells the others.
"""

from collections.abc import Iterator, Mapping
import contextlib
import pathlib
from typing import TypeVar

from absl import flags
import jax
from jax.experimental import multihost_utils
import numpy as np

from experiments.cli import Refused
from icl_causal import runs

Tree = TypeVar("Tree")


def define_flags():
  """Defines the flags by which a process finds the others."""
  flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of the first of several processes, or `auto` under srun and on "
    "a TPU pod, where the other two flags are not needed.",
  )
  flags.DEFINE_integer("num_processes", None, "How many processes.", 1)
  flags.DEFINE_integer("process_id", None, "Which one this is, from 0.", 0)


def join():
  """Joins the other processes, where the flags say that there are some."""
  values = flags.FLAGS.flag_values_dict()
  where, num, index = (
    values.get(name) for name in ("coordinator", "num_processes", "process_id")
  )
  if where == "auto":
    jax.distributed.initialize()
  elif where is not None:
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


def any_of_them(mine: bool) -> bool:
  """Whether it is so in one of the processes; all of them have to ask."""
  if jax.process_count() == 1:
    return mine
  return bool(multihost_utils.process_allgather(np.array(mine)).any())


def is_first() -> bool:
  """Whether this is the process that prints and writes."""
  return jax.process_index() == 0


@contextlib.contextmanager
def one_fate() -> Iterator[None]:
  """What fails in one process fails in all, and none waits for another.

  Raises:
    RunError: in those that would have gone on.
  """
  failed = None
  try:
    yield
  except Exception as error:
    failed = error
  if any_of_them(failed is not None):
    raise failed or runs.RunError("another process can't go on, and says why")


@contextlib.contextmanager
def opened(
  workdir: pathlib.Path, config: Mapping, overwrite: bool
) -> Iterator[bool]:
  """`runs.opened` by the first process, whose answer all of them have.

  Raises:
    RunError: in all of them, if the first one is refused.
  """
  with contextlib.ExitStack() as stack:
    finished = False
    with one_fate():
      if is_first():
        run = runs.opened(workdir, config, overwrite)
        finished = stack.enter_context(run)
    yield bool(from_first(finished))


def from_first(tree: Tree) -> Tree:
  """The arrays and numbers of the first process, in all of them."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(
    jax.tree.map(np.asarray, tree), is_source=is_first()
  )
