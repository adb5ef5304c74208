"""Progress on stderr: a bar on a terminal, otherwise a line every 30 s."""

from collections.abc import Callable, Iterator
import contextlib
import sys
import threading
import time

import tqdm

_SECONDS = 30.0  # between lines
_UNKNOWN = "{desc} [{elapsed}]"  # a bar without a total


@contextlib.contextmanager
def shown(
  doing: str, total: int | None = None, unit: str = "", hidden: bool = False
) -> Iterator[Callable[[int, str], None]]:
  """Shows the progress of what happens inside.

  Args:
    doing: shown until the first update.
    total: number of units, if there are any.
    unit: its name.
    hidden: shows nothing.

  Yields:
    A function of the number of units that are done, and of a text.
  """
  started, ended = time.monotonic(), threading.Event()
  on_terminal, line = sys.stderr.isatty(), doing

  def repeat():
    while not ended.wait(1.0 if on_terminal else _SECONDS):
      if on_terminal:
        bar.refresh()
      else:
        seconds = time.monotonic() - started
        print(f"{line}, {seconds:.0f} s", file=sys.stderr, flush=True)

  def update(done: int, text: str):
    nonlocal line
    if line == doing:
      bar.initial = bar.n = done  # the rate is that of this process
      bar.set_description_str(refresh=False)
    line = f"{done} of {total} {unit}s, {text}"
    bar.set_postfix_str(text, refresh=False)
    bar.update(done - bar.n)
    bar.refresh()

  with tqdm.tqdm(
    desc=doing,
    total=total,
    unit=unit,
    bar_format=_UNKNOWN if total is None else None,
    disable=hidden or not on_terminal,
  ) as bar:
    thread = threading.Thread(target=repeat, daemon=True)
    if not hidden:
      thread.start()
    try:
      yield update
    finally:
      ended.set()
      if not hidden:
        thread.join()
