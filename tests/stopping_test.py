import os
import signal
import subprocess
import sys

import pytest

from experiments import stopping


@pytest.mark.parametrize("number", stopping._SIGNALS)
def test_a_signal_asks_and_a_second_one_ends(number):
  before = {n: signal.getsignal(n) for n in stopping._SIGNALS}
  try:
    asked = stopping.when_asked()
    assert not asked()
    os.kill(os.getpid(), number)
    assert asked()
    assert signal.getsignal(number) == signal.SIG_DFL
  finally:
    for n, handler in before.items():
      signal.signal(n, handler)
  assert not stopping.never()


def test_the_command_that_goes_on():
  script = (
    "import runpy, sys; sys.argv = ['x', '--config=a b', '--overwrite', "
    "'--nooverwrite', '--overwrite=true', '-overwrite', '--workdir=c'];"
    "from experiments import stopping; print(stopping.command_again())"
  )
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  assert done.stdout.endswith(" '--config=a b' --workdir=c\n")
