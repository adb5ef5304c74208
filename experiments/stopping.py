"""Stopping when asked to, by a signal, with nothing lost.

Slurm sends SIGTERM at the end of a job's time and, by --signal, SIGUSR1 before
it; a user at the keyboard sends SIGINT.
"""

from collections.abc import Callable
import re
import shlex
import signal
import sys

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(Exception):
  """The run stopped because it was asked to, and goes on when called again."""


def never() -> bool:
  """Asks nobody."""
  return False


def when_asked() -> Callable[[], bool]:
  """From now on a signal asks to stop, and a second one of its kind ends.

  Returns:
    Whether one has asked.
  """
  seen = []

  def note(number, frame):
    del frame
    seen.append(number)
    signal.signal(number, signal.SIG_DFL)

  for number in _SIGNALS:
    signal.signal(number, note)
  return lambda: bool(seen)


def command_again() -> str:
  """The command that goes on with what this one began."""
  spec = sys.modules["__main__"].__spec__
  words = [
    word
    for word in sys.argv[1:]
    if not re.fullmatch("--?(no)?overwrite(=.*)?", word)
  ]
  return shlex.join(["python", "-m", spec.name if spec else "?", *words])
