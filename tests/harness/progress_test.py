"""Lines without a terminal; app_test.py has the bar."""

import re
import time

from experiments.harness import progress


def test_lines_of_a_long_task(monkeypatch, capsys):
  monkeypatch.setattr(progress, "_SECONDS", 0.1)
  with progress.shown("compiling", 8, "step") as show:
    time.sleep(0.5)
    show(4, "loss 1.5")
    time.sleep(0.5)
  lines = capsys.readouterr().err.splitlines()
  assert re.fullmatch(r"compiling, \d s", lines[0])
  assert re.fullmatch(r"4 of 8 steps, loss 1\.5, \d s", lines[-1])
  assert len(lines) <= 11
  time.sleep(0.3)
  assert capsys.readouterr().err == ""  # it has ended


def test_nothing_is_shown_of_a_short_task_or_a_hidden_one(monkeypatch, capsys):
  with progress.shown("checking"):
    pass
  monkeypatch.setattr(progress, "_SECONDS", 0.01)
  with progress.shown("checking", hidden=True) as show:
    show(1, "text")
    time.sleep(0.1)
  assert capsys.readouterr().err == ""
