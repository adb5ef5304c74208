"""The wall time of a run, and how much of it is spent on saving."""

from collections.abc import Callable, Mapping
import time
from typing import NamedTuple

TIMES = ("wall_seconds", "saving_seconds")
SHARE = 0.02  # saving states takes at most this share of the time


class Clock(NamedTuple):
  """The clock of a run.

  Attributes:
    seconds: () to the seconds so far, by the names of `TIMES`.
    save: calls a function with its arguments and counts the time as saving.
    save_if_due: `save`, skipped if saving would take more than `SHARE` of the
      time. The first argument forces it.
  """

  seconds: Callable[[], dict[str, float]]
  save: Callable
  save_if_due: Callable


def start(since: float, spent: Mapping[str, float]) -> Clock:
  """A clock that continues from earlier processes.

  Args:
    since: when this process began, by `time.monotonic`.
    spent: the seconds of earlier processes, by the names of `TIMES`.
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

  def save_if_due(force: bool, function, *arguments):
    nonlocal cost, ended
    started = time.monotonic()
    if force or started - ended >= cost / SHARE:
      save(function, *arguments)
      ended = time.monotonic()
      cost = ended - started

  return Clock(seconds, save, save_if_due)
