import os
import pathlib
import signal
import sys
import types

import pytest

from experiments.harness import signals


@pytest.mark.parametrize("number", signals._SIGNALS)
def test_first_signal_requests_a_stop_and_a_second_one_ends(number):
  before = {n: signal.getsignal(n) for n in signals._SIGNALS}
  try:
    is_requested = signals.install_handlers()
    assert not is_requested()
    os.kill(os.getpid(), number)
    assert is_requested()
    assert signal.getsignal(number) == signal.SIG_DFL
  finally:
    for n, handler in before.items():
      signal.signal(n, handler)
  assert not signals.never()


@pytest.mark.parametrize(
  ("module", "name"),
  [
    ("experiments.train", "experiments.train"),
    ("experiments.sweep.__main__", "experiments.sweep"),
    (None, "?"),  # not started with python -m
  ],
)
def test_command_that_resumes(monkeypatch, module, name):
  spec = types.SimpleNamespace(name=module) if module else None
  main = types.SimpleNamespace(__spec__=spec)
  monkeypatch.setitem(sys.modules, "__main__", main)
  words = ["--config=a b", "--overwrite", "--nooverwrite", "--overwrite=true"]
  words += ["-overwrite", "--workdir=c"]
  monkeypatch.setattr(sys, "argv", ["x", *words])
  python = "bin/python"
  monkeypatch.setattr(sys, "executable", str(pathlib.Path.cwd() / python))
  expected = [python, "-m", name, "--config=a b", "--workdir=c"]
  assert signals.shlex.split(signals.command_again()) == expected
