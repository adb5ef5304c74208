"""What a run spends its time on, and how much of it on saving."""

from collections.abc import Callable, Mapping
import time
from typing import NamedTuple

TIMES = ("wall_seconds", "saving_seconds")
SHARE = 0.02  # of the time, at most, that states are saved in


class Clock(NamedTuple):
  """The clock of a run.

  Attributes:
    seconds: () to the seconds so far, by the names of `TIMES`.
    save: calls a function with its arguments; the time counts as saving.
    sparingly: the same after a first argument: whether it has to be now.
      Otherwise it is left out where it would take more than `SHARE`.
  """

  seconds: Callable[[], dict[str, float]]
  save: Callable
  sparingly: Callable


def start(since: float, spent: Mapping[str, float]) -> Clock:
  """A clock that goes on from what was spent before.

  Args:
    since: when this process began, by `time.monotonic`.
    spent: the seconds until then; empty where there are none.
  """
  wall, saving = (spent.get(name, 0.0) for name in TIMES)
  cost, ended = 0.0, 0.0

  def seconds() -> dict[str, float]:
    return dict(
      zip(TIMES, (wall + time.monotonic() - since, saving), strict=True)
    )

  def save(function, *arguments):
    nonlocal saving
    started = time.monotonic()
    function(*arguments)
    saving += time.monotonic() - started

  def sparingly(now: bool, function, *arguments):
    nonlocal cost, ended
    started = time.monotonic()
    if now or started - ended >= cost / SHARE:
      save(function, *arguments)
      ended = time.monotonic()
      cost = ended - started

  return Clock(seconds, save, sparingly)
