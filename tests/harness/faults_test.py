"""Full disks, deleted directories, signals, damaged configs.

Every error is one line. Saved states are kept, and the run resumes from them to
the files of an uninterrupted run.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import single_parent
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from icl_causal import runs
from icl_causal.config import build
from icl_causal.report import run as report
from tests.support import artifacts

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {
  "train.steps": 8,
  "train.eval_every": 2,
  "train.batch_size": 32,
  "eval.test_size": 64,
  "eval.batch_size": 64,
  "eval.posterior_prompts": 0,
}


def _train(workdir, fault=None, figures=False, **changes):
  """Trains; the fault happens after step 6, before its state is saved."""
  config = single_parent.get_config("manual")
  config.update_from_flattened_dict(SMALL | changes)
  num_calls = 0

  def stop():
    nonlocal num_calls
    num_calls += 1
    if fault and num_calls == 3:
      fault()
    return False

  run = grid.Run(config, build.graph(config), {}, workdir)
  with runs.opened(workdir, config.to_dict(), overwrite=False) as finished:
    if not finished:
      group = distributed.this_process()
      loop.train_single(run, group, keep=2, stop=stop)
  if figures:
    report.write(workdir)


def _command(module, *arguments):
  return subprocess.Popen(
    [sys.executable, "-m", f"experiments.{module}", *arguments],
    cwd=ROOT,
    env=os.environ,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _refused(module, *arguments):
  """The line on stderr of a command that ends in exit code 2."""
  process = _command(module, *arguments)
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == 2, stderr
  assert stderr.startswith("error: ")
  assert stderr.count("\n") == 1, stderr
  return stderr


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
  """The artifacts of an uninterrupted run."""
  workdir = tmp_path_factory.mktemp("run") / "run"
  _train(workdir)
  expected = artifacts.by_run(workdir)
  assert expected["result"]["steps"] == 8
  assert list(expected["snapshots"]) == [0, 1, 2, 3, 4, 6, 8]
  return expected


@pytest.fixture
def disk(tmp_path):
  """A file system of 4 MiB."""
  folder = tmp_path / "disk"
  folder.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
  done = subprocess.run(mount, capture_output=True, text=True)
  if done.returncode:
    pytest.skip(f"only root can mount a small disk: {done.stderr.strip()}")
  yield folder
  subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(disk, spare):
  """Fills the disk, except for some bytes."""
  free = os.statvfs(disk)
  size = free.f_bavail * free.f_frsize - spare
  (disk / "filler").write_bytes(b"\0" * size)


def _saved(workdir):
  """Every byte of the checkpoints."""
  folder = workdir / "checkpoints"
  return {
    path.relative_to(folder): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file() and "tmp" not in str(path.relative_to(folder))
  }


@pytest.mark.parametrize("spare", [0, 4096, 65536])
def test_a_full_disk(expected, disk, spare):
  workdir, before = disk / "run", {}

  def fill():
    before.update(_saved(workdir))
    _fill(disk, spare)

  with pytest.raises(runs.RunError, match=r"can't (write|save)") as caught:
    _train(workdir, fill, figures=True)
  assert "\n" not in str(caught.value)
  assert "No space left" in str(caught.value)
  steps = [int(p.stem) for p in (workdir / "checkpoints").glob("?.npz")]
  assert max(steps) >= 4
  if max(steps) == 4:
    assert before.items() <= _saved(workdir).items()
  (disk / "filler").unlink()
  assert artifacts.by_run(workdir)["state"]
  _train(workdir, figures=True)
  assert artifacts.by_run(workdir) == expected
  assert (workdir / "report.html").exists()


def test_a_state_on_a_full_disk(disk, capfd):
  """With any space left it is saved or not, and the state before it is kept."""
  states = {step: {"W": np.full(5000, step, np.float32)} for step in (1, 2)}
  runs.save_state(disk, 1, states[1])
  seen = set()
  for spare in range(0, 60_000, 2048):
    _fill(disk, spare)
    newest, message = 2, "can't save: No space left"
    try:
      runs.save_state(disk, 2, states[2])
    except runs.RunError as error:
      newest, message = 1, str(error)
    assert re.fullmatch(r"can't save.*No space left[^\n]*", message)
    loaded, messages = runs.load_state(disk, states[1])
    np.testing.assert_array_equal(loaded["W"], states[newest]["W"])
    assert messages == []
    seen.add(newest)
    (disk / "filler").unlink()
    (disk / "checkpoints" / "2.npz").unlink(missing_ok=True)
    assert {p.name for p in (disk / "checkpoints").iterdir()} == {"1.npz"}
  assert seen == {1, 2}
  assert capfd.readouterr().err == ""


def test_the_message_of_a_full_disk(disk):
  """One line, wherever the space ends."""
  for spare in (0, 60_000):
    (disk / "filler").unlink(missing_ok=True)
    _fill(disk, spare)
    message = _refused(
      "train",
      "--config=configs/single_parent.py:manual",
      *(f"--config.{name}={value}" for name, value in SMALL.items()),
      f"--workdir={disk / 'run'}",
    )
    assert "No space left on device" in message


def test_a_read_only_disk(expected, disk):
  workdir = disk / "run"

  def killed():
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    _train(workdir, killed)

  def remount(how):
    command = ["mount", "-o", f"remount,{how}", str(disk)]
    subprocess.run(command, check=True)

  remount("ro")
  before = _saved(workdir)
  with pytest.raises(runs.RunError, match=r"can't write .*Read-only file sys"):
    _train(workdir)
  message = _refused(
    "train",
    "--config=configs/single_parent.py:manual",
    f"--workdir={disk / 'other'}",
  )
  assert "can't write" in message
  assert "Read-only file system" in message
  assert _saved(workdir) == before
  remount("rw")
  _train(workdir)
  assert artifacts.by_run(workdir) == expected


def test_a_deleted_directory(expected, tmp_path):
  workdir = tmp_path / "run"
  with pytest.raises(runs.RunError, match=r"can't write .*No such file"):
    _train(workdir, lambda: shutil.rmtree(workdir))
  assert not workdir.exists()
  _train(workdir)
  assert artifacts.by_run(workdir) == expected


def test_a_signal_saves_and_the_printed_command_resumes(tmp_path):
  """Of a run that takes seconds, so that the signal is not too late."""
  workdir, steps = tmp_path / "run", 400
  process = _command(
    "train",
    "--config=configs/single_parent.py:manual",
    *(f"--config.{name}={value}" for name, value in SMALL.items()),
    f"--config.train.steps={steps}",
    f"--workdir={workdir}",
    "--keep=2",  # saves at every evaluation
    "--overwrite",
  )
  deadline = time.monotonic() + 100
  while not list(workdir.glob("checkpoints/*.npz")):
    assert process.poll() is None, process.stderr.read()
    assert time.monotonic() < deadline
    time.sleep(0.002)
  process.send_signal(signal.SIGTERM)
  stdout, stderr = process.communicate(timeout=100)
  assert (process.returncode, stderr) == (4, "")
  match = re.fullmatch(
    rf"stopped at step (\d+) of {steps}; resume with: (.*)\n", stdout
  )
  assert match, stdout
  assert "--overwrite" not in match[2]
  assert (workdir / f"checkpoints/{match[1]}.npz").exists()
  again = subprocess.Popen(
    match[2], shell=True, stderr=subprocess.PIPE, text=True, cwd=ROOT
  )
  _, stderr = again.communicate(timeout=100)
  assert (again.returncode, stderr) == (0, "")
  _train(tmp_path / "uninterrupted", **{"train.steps": steps})
  expected = artifacts.by_run(tmp_path / "uninterrupted")
  assert artifacts.by_run(workdir) == expected


def _damaged(text):
  """Twenty ways in which a file may be damaged."""
  generator = np.random.default_rng(0)
  data = text.encode()
  for i in range(20):
    mutant = bytearray(data)
    at = int(generator.integers(len(data)))
    if i % 4 == 0:
      del mutant[at:]
    elif i % 4 == 1:
      mutant[at] ^= 1 << int(generator.integers(8))
    elif i % 4 == 2:
      del mutant[at : at + 5]
    else:
      mutant[at:at] = b"\0\xff"
    if bytes(mutant) != data:
      yield bytes(mutant)


def test_a_damaged_config(tmp_path):
  """Refused, unless it has the same meaning; no other file changes."""
  workdir = tmp_path / "run"
  _train(workdir)
  (workdir / "result.json").unlink()
  path = workdir / "config.json"
  text = path.read_text()
  before = _saved(workdir)
  refused = 0
  for mutant in _damaged(text):
    path.write_bytes(mutant)
    config = single_parent.get_config("manual")
    config.update_from_flattened_dict(SMALL)
    message = ""
    try:
      runs.prepare(workdir, config.to_dict(), overwrite=False)
    except runs.RunError as error:
      message = str(error)
    if message:
      assert re.search("is damaged|holds another run", message)
      refused += 1
    assert path.read_bytes() == mutant
  assert refused >= 18
  path.write_text(text[: len(text) // 2])
  for module, where in (
    ("train", "--config=configs/single_parent.py:manual"),
    ("analyze", "--num_prompts=64"),
  ):
    message = _refused(module, where, f"--workdir={workdir}")
    assert "config.json is damaged" in message
  assert _saved(workdir) == before
