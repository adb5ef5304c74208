"""Signals that stop a command.

Slurm sends SIGTERM at the end of a job's time and, by --signal, SIGUSR1 before
it. Ctrl-C sends SIGINT.
"""

from collections.abc import Callable
import os
import pathlib
import re
import shlex
import signal
import sys
import threading

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(Exception):
  """The run stopped on a signal; the same command resumes it."""


def never() -> bool:
  """No stop is ever requested."""
  return False


def install_handlers() -> Callable[[], bool]:
  """Lets a run stop after the current steps, with its state saved.

  A second signal of a kind ends the process.

  Returns:
    A function that says whether a stop is requested.
  """
  received = []

  def handle(number, frame):
    del frame
    received.append(number)
    signal.signal(number, signal.SIG_DFL)

  for number in _SIGNALS:
    signal.signal(number, handle)
  return lambda: bool(received)


def end_at_once():
  """Ends the process at a signal, with one line and exit code 4.

  For a command that keeps no state. Python runs a handler between two of its
  own instructions, and a call of jax can take minutes. So a thread waits for
  the signal.
  """
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  signal.set_wakeup_fd(writing)
  for number in _SIGNALS:
    signal.signal(number, lambda number, frame: None)

  def wait():
    os.read(reading, 1)
    print(f"stopped; start again with: {command_again()}", flush=True)
    os._exit(4)

  threading.Thread(target=wait, daemon=True).start()


def command_again() -> str:
  """The command line that resumes what this process started."""
  spec = sys.modules["__main__"].__spec__
  name = spec.name.removesuffix(".__main__") if spec else "?"
  words = [
    word
    for word in sys.argv[1:]
    if not re.fullmatch("--?(no)?overwrite(=.*)?", word)
  ]
  python = pathlib.Path(sys.executable)
  if python.is_relative_to(pathlib.Path.cwd()):
    python = python.relative_to(pathlib.Path.cwd())
  return shlex.join([str(python), "-m", name, *words])
