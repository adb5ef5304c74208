"""Resuming, locks, stops, and runs that fail."""

import re
import shutil

import numpy as np
import pytest

from experiments.harness import app
from experiments.harness import batches
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from experiments.harness.signals import Stopped
from icl_causal import runs
from tests.support import artifacts
from tests.support import small_sweeps

STEPS = 8
AT_ONCE = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """(config, artifacts, workdir) of a sweep without interruption."""
  config = small_sweeps.config(steps=STEPS)
  workdir = tmp_path_factory.mktemp("sweep") / "run"
  small_sweeps.train(config, workdir)
  return config, artifacts.by_sweep(workdir), workdir


@pytest.fixture(scope="module")
def stopped_once(finished, tmp_path_factory):
  """The directory of a batch that was stopped at step 4."""
  workdir = tmp_path_factory.mktemp("stopped") / "run"
  batch = grid.every_run(finished[0], workdir)
  with pytest.raises(Stopped, match=rf"^6 runs stopped at step 4 of {STEPS}$"):
    loop.train_batch(batch, AT_ONCE, small_sweeps.stop_at(2))
  for run in batch[::2]:
    assert _steps(run) == [2, 4]
  return workdir


@pytest.fixture
def stopped(finished, stopped_once, tmp_path):
  """(workdir, runs) of a copy of it."""
  workdir = tmp_path / "run"
  shutil.copytree(stopped_once, workdir)
  return workdir, grid.every_run(finished[0], workdir)


def _steps(run):
  """The steps of the saved states."""
  names = (run.workdir / "checkpoints").glob("*")
  return sorted(int(path.stem) for path in names)


def _assert_close(actual, expected):
  """Equal but for rounding, which depends on the runs of a batch."""
  assert actual.keys() == expected.keys()
  for name, run in expected.items():
    assert (actual[name]["failed"] is None) == (run["failed"] is None)
    steps, losses = (
      [
        [row[field] for row in of_run["metrics"]]
        for of_run in (actual[name], run)
      ]
      for field in ("step", "loss")
    )
    assert steps[0] == steps[1]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert list(actual[name]["snapshots"]) == list(run["snapshots"])


def test_a_stopped_batch_resumes_in_other_batches(
  finished, stopped, monkeypatch
):
  _, expected, _ = finished
  workdir, batch = stopped
  calls = small_sweeps.count_calls(monkeypatch)
  for part in grid.divide(batch, 4):
    assert len(part) == 3
    loop.train_batch(part, AT_ONCE)
  assert calls == [4, 6, 4, 6]
  assert artifacts.by_sweep(workdir) == expected


def test_members_resume_at_the_newest_common_step(
  finished, stopped, monkeypatch
):
  """Rows and maps after that step are written again."""
  _, expected, _ = finished
  workdir, batch = stopped
  with pytest.raises(Stopped):
    loop.train_batch(batch[:2], AT_ONCE, small_sweeps.stop_at(1))
  assert _steps(batch[0]) == [4, 6]
  (batch[4].workdir / "checkpoints" / "2.npz").unlink()
  assert [_steps(run) for run in batch[::2]] == [[4, 6], [2, 4], [4]]
  calls = small_sweeps.count_calls(monkeypatch)
  loop.train_batch(batch, AT_ONCE)
  assert calls == [4, 6]
  assert artifacts.by_sweep(workdir) == expected


def test_members_without_a_common_step_are_trained_apart(
  finished, stopped, monkeypatch
):
  _, expected, _ = finished
  workdir, batch = stopped
  (batch[0].workdir / "checkpoints" / "2.npz").unlink()
  (batch[2].workdir / "checkpoints" / "4.npz").unlink()
  calls = small_sweeps.count_calls(monkeypatch)
  loop.train_batch(batch, AT_ONCE)
  assert calls == [4, 6, 2, 3, 4, 6]
  _assert_close(artifacts.by_sweep(workdir), expected)


def test_new_members_do_not_set_others_back(finished, stopped, monkeypatch):
  """Four runs stand at step 4, two are new."""
  _, expected, _ = finished
  workdir, batch = stopped
  for run in batch[4:]:
    shutil.rmtree(run.workdir)
  calls = small_sweeps.count_calls(monkeypatch)
  loop.train_batch(batch, AT_ONCE)
  assert calls == [4, 6, 0, 1, 2, 3, 4, 6]
  _assert_close(artifacts.by_sweep(workdir), expected)


def test_finished_members_are_not_trained_again(
  finished, tmp_path, monkeypatch
):
  """Alone first, then in a batch with others, which stops and resumes."""
  batch = grid.every_run(finished[0], tmp_path / "run")[::2]
  loop.train_batch(batch[:1], AT_ONCE)
  names, stacked = [], loop.batches.stacked

  def recorded(part, at_once):
    names.append([run.name for run in part])
    return stacked(part, at_once)

  monkeypatch.setattr(loop.batches, "stacked", recorded)
  with pytest.raises(Stopped):
    loop.train_batch(batch, AT_ONCE, small_sweeps.stop_at(1))
  loop.train_batch(batch, AT_ONCE)
  assert names == [[run.name for run in batch[1:]]] * 2
  # A kill between the results of a batch: the same batch again.
  (batch[2].workdir / "result.json").unlink()
  loop.train_batch(batch[1:], AT_ONCE)
  assert names[2] == [run.name for run in batch[1:]]


def test_a_kill_during_the_first_save_starts_all_again(
  finished, stopped, monkeypatch
):
  """One run has rows and no state: all start again, in one batch."""
  _, expected, _ = finished
  workdir, batch = stopped
  shutil.rmtree(batch[4].workdir / "checkpoints")
  calls = small_sweeps.count_calls(monkeypatch)
  loop.train_batch(batch, AT_ONCE)
  assert calls == [0, 1, 2, 3, 4, 6]
  assert artifacts.by_sweep(workdir) == expected


def test_a_damaged_state_of_one_member_sets_all_back(
  finished, stopped, monkeypatch, capsys
):
  _, expected, _ = finished
  workdir, batch = stopped
  path = batch[2].workdir / "checkpoints" / "4.npz"
  path.write_bytes(path.read_bytes()[:100])
  calls = small_sweeps.count_calls(monkeypatch)
  loop.train_batch(batch, AT_ONCE)
  assert calls == [2, 3, 4, 6]
  message = "warning: the checkpoint of step 4 can't be used and was moved to"
  assert capsys.readouterr().err.startswith(message)
  assert (batch[2].workdir / "damaged_checkpoints" / "4.1.npz").exists()
  assert artifacts.by_sweep(workdir) == expected


def test_states_after_the_common_step_are_deleted_first(stopped, monkeypatch):
  """Else a kill between two saves leaves a state beside older maps."""
  _, batch = stopped
  with pytest.raises(Stopped):
    loop.train_batch(batch[:2], AT_ONCE, small_sweeps.stop_at(1))
  assert _steps(batch[0]) == [4, 6]

  def killed(*arguments):
    raise KeyboardInterrupt

  monkeypatch.setattr(loop, "_record", killed)
  with pytest.raises(KeyboardInterrupt):
    loop.train_batch(batch, AT_ONCE)
  assert _steps(batch[0]) == [4]


def test_lost_rows_set_the_batch_back_to_the_state_before_them(
  finished, stopped, capsys
):
  _, expected, _ = finished
  workdir, batch = stopped
  path = batch[2].workdir / "metrics.jsonl"
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"4", b"5", 1)]))
  loop.train_batch(batch, AT_ONCE)
  (line,) = capsys.readouterr().err.splitlines()
  assert "the checkpoint of step 4 can't be used" in line
  assert f"{path}, line 3, is damaged" in line
  assert artifacts.by_sweep(workdir) == expected


@pytest.mark.parametrize("kept", [0, -1])
def test_metrics_that_end_before_every_state_are_refused(stopped, kept):
  _, batch = stopped
  runs.truncate_history(batch[2].workdir, kept)
  before = artifacts.all_bytes(batch[2].workdir / "checkpoints")
  with pytest.raises(runs.RunError) as caught:
    loop.train_batch(batch, AT_ONCE)
  assert re.fullmatch(
    rf"{batch[2].workdir} has no checkpoint that can be used \(that of step 4: "
    rf"{batch[2].workdir}/metrics\.jsonl ends before it\): [^\n]*delete"
    r" the directory to start again",
    str(caught.value),
  )
  assert artifacts.all_bytes(batch[2].workdir / "checkpoints") == before


def test_finished_and_failed_members_keep_their_files(
  finished, stopped, monkeypatch
):
  _, expected, _ = finished
  workdir, batch = stopped
  loop.train_batch(batch[:3], AT_ONCE)
  assert all(runs.is_finished(run.workdir) for run in (batch[0], batch[2]))
  assert all(runs.read_failure(run.workdir) for run in batch[1::2])
  done = [*batch[:4], batch[5]]
  before = [artifacts.all_bytes(run.workdir) for run in done]
  calls = small_sweeps.count_calls(monkeypatch)
  loop.train_batch(batch, AT_ONCE)
  assert calls == [4, 6]
  assert [artifacts.all_bytes(run.workdir) for run in done] == before
  assert artifacts.by_sweep(workdir) == expected


def test_a_finished_batch_is_not_compiled_again(finished, monkeypatch):
  config, _, workdir = finished
  before = artifacts.all_bytes(workdir)
  monkeypatch.setattr(batches, "compile_stacked", None)  # can't be called
  small_sweeps.train(config, workdir)
  assert artifacts.all_bytes(workdir) == before


def test_a_locked_member_refuses_the_batch(tmp_path):
  """Each member has its lock; the locks of the others are released."""
  batch = grid.every_run(small_sweeps.config(), tmp_path)[:3]
  with (
    runs.lock(batch[1].workdir),
    pytest.raises(
      runs.RunError, match=f"^{batch[1].workdir} is in use by process"
    ),
  ):
    loop.train_batch(batch, AT_ONCE)
  assert not any((run.workdir / ".lock").exists() for run in batch)
  assert not any((run.workdir / "metrics.jsonl").exists() for run in batch)


def test_every_member_is_locked_while_the_batch_trains(tmp_path):
  batch = grid.every_run(small_sweeps.config(), tmp_path)[:3]
  refused = []

  def stop():
    for run in batch:
      with (
        pytest.raises(runs.RunError, match="is in use by process"),
        runs.lock(run.workdir),
      ):
        pass
      refused.append(run.name)
    return True

  with pytest.raises(Stopped):
    loop.train_batch(batch, AT_ONCE, stop)
  assert len(refused) == 3
  assert not any((run.workdir / ".lock").exists() for run in batch)


def test_a_single_run_that_failed_is_tried_again(tmp_path):
  run = grid.every_run(small_sweeps.config(), tmp_path)[1]
  for attempt in range(2):
    config = run.config.to_dict()
    with (
      runs.opened(run.workdir, config, overwrite=False),
      pytest.raises(
        app.NonFinite, match="the test loss is not finite at step 1"
      ),
    ):
      loop.train_single(run, distributed.this_process())
    assert runs.read_failure(run.workdir)["step"] == 1, attempt
    (run.workdir / "failed.json").write_text('{"step": -1}')


@pytest.mark.parametrize(
  ("every", "steps"),
  [
    (1, [1, 2, 3, 4, 5]),
    (4, [1, 2, 3, 4, 6, 8, 12, 16, 20, 24]),
    (10, [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 30, 32, 40, 48, 50, 60, 64]),
    (64, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192]),
  ],
)
def test_steps_of_snapshots(every, steps):
  found = [0]
  while len(found) <= len(steps):
    found.append(loop._next_step(found[-1], every))
  assert found[1:] == steps
