import os
import pathlib
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize("number", signals._SIGNALS)
def test_a_signal_ends_a_long_call_of_jax_at_once(number):
  """The call takes hours; it is in it when the signal comes."""
  code = """if True:
    import jax
    from experiments.harness import signals
    signals.end_at_once()
    def square(i, x):
      return x @ x
    x = jax.numpy.eye(64)
    call = jax.jit(lambda x: jax.lax.fori_loop(0, 2**31 - 1, square, x))
    compiled = call.lower(x).compile()
    print("ready", flush=True)
    compiled(x).block_until_ready()
  """
  process = subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
  )
  try:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(number)
    (line,) = process.communicate(timeout=30)[0].splitlines()
    assert line.startswith("stopped; start again with: ")
    assert process.returncode == 4
  finally:
    process.kill()
