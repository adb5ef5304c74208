"""Disks that fill, folders that vanish, signals, numbers that are not finite.

Whatever happens is told in one line, what was saved stays, and the run goes on
from there to the end that it would have come to.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import single_parent
from experiments import build
from experiments import draw
from experiments import train
from icl_causal import runs
from icl_causal.training import Steps
from tests import left

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
  "train.steps": 8,
  "train.eval_every": 2,
  "train.batch_size": 32,
  "eval.test_size": 64,
  "eval.batch_size": 64,
  "eval.posterior_prompts": 0,
}


def _train(workdir, fault=None, figures=False):
  """Trains; after step 6, before its state is saved, the fault happens.

  Without the figures, which take half of the time.
  """
  config = single_parent.get_config("manual")
  config.update_from_flattened_dict(SMALL)
  asked = []

  def stop():
    asked.append(None)
    if fault and len(asked) == 3:
      fault()
    return False

  with (
    runs.opened(workdir, config.to_dict(), overwrite=False),
    pytest.MonkeyPatch.context() as patch,
  ):
    if not figures:
      patch.setattr(draw, "write", lambda *arguments: None)
    train.train(config, build.graph(config), workdir, keep=2, stop=stop)


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
def whole(tmp_path_factory):
  """What an uninterrupted run leaves."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  _train(workdir)
  found = left.by_run(workdir)
  assert found["result"]["steps"] == 8
  return found


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
  """Fills the disk, but for some bytes."""
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
def test_a_full_disk(whole, disk, spare):
  workdir, before = disk / "run", {}

  def fill():
    before.update(_saved(workdir))
    _fill(disk, spare)

  with pytest.raises(runs.RunError, match=r"can't (write|save)") as caught:
    _train(workdir, fill, figures=True)
  assert "\n" not in str(caught.value)
  assert "No space left" in str(caught.value)
  steps = [int(path.name) for path in (workdir / "checkpoints").glob("?")]
  assert max(steps) >= 4
  if max(steps) == 4:
    assert before.items() <= _saved(workdir).items()
  (disk / "filler").unlink()
  assert left.by_run(workdir)["state"]
  _train(workdir)
  assert left.by_run(workdir) == whole


def test_a_state_on_a_full_disk(disk, capfd):
  """At every size that is left it is saved or not, and the one before stays."""
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
    found, messages = runs.load_state(disk, states[1])
    np.testing.assert_array_equal(found["W"], states[newest]["W"])
    assert messages == []
    seen.add(newest)
    (disk / "filler").unlink()
    shutil.rmtree(disk / "checkpoints" / "2", ignore_errors=True)
  assert seen == {1, 2}
  assert capfd.readouterr().err == ""


def test_a_full_disk_as_a_user_sees_it(disk):
  """At every size that is left, one line."""
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


def test_a_disk_that_can_only_be_read(whole, disk):
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
  assert left.by_run(workdir) == whole


def test_a_folder_that_vanishes(whole, tmp_path):
  workdir = tmp_path / "run"
  with pytest.raises(runs.RunError, match=r"can't save .*No such file"):
    _train(workdir, lambda: shutil.rmtree(workdir))
  assert not workdir.exists()
  _train(workdir)
  assert left.by_run(workdir) == whole


def test_what_was_not_finite_is_told():
  fine = np.linspace(2, 1, 20, dtype=np.float32)
  assert train.failure(Steps(fine, fine), 100) is None
  for bad in (np.nan, np.inf):
    broken = fine.copy()
    broken[12:] = bad
    found = train.failure(Steps(fine, broken), 100)
    assert found["step"] == 113
    assert found["what"] == "the gradient is not finite"
    assert found["last_gradient_norms"][-1] == str(bad)
    assert found["last_losses"][-1] == f"{fine[12]:.6g}"
    assert len(found["last_losses"]) == 8
    assert train.failure(Steps(broken, broken), 0)["what"] == (
      "the loss is not finite"
    )


def test_a_signal_saves_and_the_command_that_is_named_goes_on(whole, tmp_path):
  workdir = tmp_path / "run"
  process = _command(
    "train",
    "--config=configs/single_parent.py:manual",
    *(f"--config.{name}={value}" for name, value in SMALL.items()),
    f"--workdir={workdir}",
    "--keep=2",  # one of each evaluation
    "--overwrite",
  )
  deadline = time.monotonic() + 100
  while not (workdir / "checkpoints" / "2").exists():
    assert process.poll() is None, process.stderr.read()
    assert time.monotonic() < deadline
    time.sleep(0.002)
  process.send_signal(signal.SIGTERM)
  stdout, stderr = process.communicate(timeout=100)
  assert (process.returncode, stderr) == (0, "")
  found = re.fullmatch(
    r"stopped at step \d of 8; resume with: python -m experiments\.(.*)\n",
    stdout,
  )
  assert found, stdout
  assert "--overwrite" not in found[1]
  again = _command(*shlex.split(found[1]))
  _, stderr = again.communicate(timeout=100)
  assert (again.returncode, stderr) == (0, "")
  assert left.by_run(workdir) == whole


def _mutants(text):
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
  """Refused, unless it still says the same; nothing else is touched."""
  workdir = tmp_path / "run"
  _train(workdir)
  (workdir / "result.json").unlink()
  path = workdir / "config.json"
  text = path.read_text()
  before = _saved(workdir)
  refused = 0
  for mutant in _mutants(text):
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
