"""The commands, `python -m experiments.NAME`."""

import gc
import signal
import sys

if sys.argv[0] == "-m":  # a command starts; Python sets argv[0] afterwards
  # Ctrl-C ends it at once, also while modules are imported or a program runs.
  # Commands that save their state replace this handler.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  # Imports and tracing make many objects, and most of them are kept. With the
  # default of 700, Python often searches all of them for garbage.
  gc.set_threshold(100_000, 10, 10)
