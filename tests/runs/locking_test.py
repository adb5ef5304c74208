import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from icl_causal import runs
from icl_causal.runs import locking

LOCK = """
import pathlib, sys
from icl_causal import runs
with runs.lock(pathlib.Path(sys.argv[1])):
  print("locked", flush=True)
  sys.stdin.read()
"""


def _locking_process(folder):
  process = subprocess.Popen(
    [sys.executable, "-c", LOCK, folder],
    cwd=pathlib.Path(__file__).parents[2],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "locked\n"
  return process


def test_one_process_at_a_time(tmp_path):
  with _locking_process(tmp_path) as process:
    message = f"is in use by process {process.pid} on "
    with pytest.raises(runs.RunError, match=message), runs.lock(tmp_path):
      pass
    process.stdin.close()
    assert process.wait(timeout=60) == 0
  assert list(tmp_path.iterdir()) == []
  with runs.lock(tmp_path):
    assert [path.name for path in tmp_path.iterdir()] == [locking.NAME]
  assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_released(tmp_path):
  with _locking_process(tmp_path) as process:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
  assert (tmp_path / locking.NAME).exists()
  with runs.lock(tmp_path):
    assert f"process {os.getpid()} on" in (tmp_path / locking.NAME).read_text()


def test_folder_is_created_and_may_be_deleted_while_it_is_locked(tmp_path):
  folder = tmp_path / "new" / "folder"
  for _ in range(2):
    with runs.lock(folder):
      (folder / locking.NAME).unlink()
      folder.rmdir()
    assert not folder.exists()


def test_folder_that_cannot_be_created(tmp_path):
  (tmp_path / "file").write_text("not a folder")
  with (
    pytest.raises(runs.RunError, match=r"can't write .*file: File exists"),
    runs.lock(tmp_path / "file"),
  ):
    pass


def test_threads_never_lock_at_the_same_time(tmp_path):
  """Also while the lock file is created and deleted."""
  inside, counts, most = [], [0] * 4, []

  def work(i):
    while counts[i] < 50:
      try:
        with runs.lock(tmp_path):
          inside.append(i)
          most.append(len(inside))
          inside.remove(i)
          counts[i] += 1
      except runs.RunError:
        pass

  threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(timeout=60)
  assert counts == [50] * 4
  assert max(most) == 1
