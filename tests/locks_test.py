import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from icl_causal import locks

HOLD = """
import pathlib, sys
from icl_causal import locks
with locks.held(pathlib.Path(sys.argv[1])):
  print("held", flush=True)
  sys.stdin.read()
"""


def _holder(folder):
  process = subprocess.Popen(
    [sys.executable, "-c", HOLD, folder],
    cwd=pathlib.Path(__file__).parents[1],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "held\n"
  return process


def test_one_process_at_a_time(tmp_path):
  with _holder(tmp_path) as process:
    message = f"is in use by process {process.pid} on "
    with pytest.raises(locks.InUse, match=message), locks.held(tmp_path):
      pass
    process.stdin.close()
    assert process.wait(timeout=60) == 0
  assert list(tmp_path.iterdir()) == []
  with locks.held(tmp_path):
    assert [path.name for path in tmp_path.iterdir()] == [locks.NAME]
  assert list(tmp_path.iterdir()) == []


def test_a_killed_process_lets_go(tmp_path):
  with _holder(tmp_path) as process:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
  assert (tmp_path / locks.NAME).exists()
  with locks.held(tmp_path):
    assert f"process {os.getpid()} on" in (tmp_path / locks.NAME).read_text()


def test_a_lock_that_goes_with_its_folder(tmp_path):
  folder = tmp_path / "folder"
  folder.mkdir()
  with locks.held(folder):
    (folder / locks.NAME).unlink()
    folder.rmdir()
  with pytest.raises(FileNotFoundError), locks.held(folder):
    pass


def test_many_take_turns(tmp_path):
  """Never two at once, though the file comes and goes."""
  inside, turns, most = [], [0] * 4, []

  def work(i):
    while turns[i] < 50:
      try:
        with locks.held(tmp_path):
          inside.append(i)
          most.append(len(inside))
          inside.remove(i)
          turns[i] += 1
      except locks.InUse:
        pass

  threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(timeout=60)
  assert turns == [50] * 4
  assert max(most) == 1
