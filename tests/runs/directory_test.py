"""The run directory: who may use it, and its config and result."""

import json
import re

import jax
from jax import numpy as jnp
import optax
import pytest

from icl_causal import runs
from icl_causal.config import record
from icl_causal.runs import directory
from icl_causal.training import TrainState
from tests.support import records

CONFIG = {"seed": 0, "graph": {"name": "chain", "T": 5}, "heads": (1, 1)}


def _state(value):
  params = {"W": jnp.full((3, 2), value)}
  return TrainState(params, optax.adam(0.1).init(params), jnp.int32(value))


def _workdir(tmp_path):
  workdir = tmp_path / "run"
  assert not runs.prepare(workdir, CONFIG, overwrite=False)
  return workdir


def test_prepare_creates_resumes_and_finds_a_finished_run(tmp_path):
  workdir = _workdir(tmp_path)
  assert runs.read_config(workdir) == json.loads(record.canonical(CONFIG))
  environment = json.loads((workdir / "environment.json").read_text())
  assert environment["versions"]["jax"] == jax.__version__
  assert environment["backend"] == jax.default_backend()
  assert not runs.prepare(workdir, CONFIG, overwrite=False)
  assert not runs.is_finished(workdir)
  result = records.result(loss=1.5)
  runs.write_result(workdir, result)
  assert runs.prepare(workdir, CONFIG, overwrite=False)
  assert runs.is_finished(workdir)
  assert runs.read_result(workdir) == result


def test_prepare_refuses_another_run_and_foreign_folders(tmp_path):
  workdir = _workdir(tmp_path)
  runs.append_metrics(workdir, records.row(1))
  other = {**CONFIG, "graph": {"name": "chain", "T": 6}}
  with pytest.raises(runs.RunError, match=r"graph\.T is 5 there and 6 here"):
    runs.prepare(workdir, other, overwrite=False)
  assert runs.read_metrics(workdir) == [records.row(1)]
  assert not runs.prepare(workdir, other, overwrite=True)
  assert runs.read_metrics(workdir) == []

  foreign = tmp_path / "foreign"
  foreign.mkdir()
  (foreign / "thesis.tex").write_text("years of work")
  for overwrite in (False, True):
    with pytest.raises(runs.RunError, match="not empty and not a run"):
      runs.prepare(foreign, CONFIG, overwrite)
  with pytest.raises(runs.RunError, match="is not a directory"):
    runs.prepare(foreign / "thesis.tex", CONFIG, overwrite=True)
  assert (foreign / "thesis.tex").read_text() == "years of work"


def test_one_process_at_a_time_opens_a_directory(tmp_path):
  workdir = tmp_path / "run"
  with runs.opened(workdir, CONFIG, overwrite=False) as finished:
    assert not finished
    for overwrite in (False, True):
      with (
        pytest.raises(runs.RunError, match=r"run is in use by process \d+ on"),
        runs.opened(workdir, CONFIG, overwrite),
      ):
        pass
    runs.append_metrics(workdir, records.row(1))
    runs.write_result(workdir, records.result())
  assert runs.read_metrics(workdir) == [records.row(1)]
  with (
    runs.opened(workdir, CONFIG, overwrite=False) as finished,
    runs.opened(workdir, CONFIG, overwrite=False) as also_finished,
  ):
    assert finished
    assert also_finished
  with runs.opened(workdir, CONFIG, overwrite=True) as finished:
    assert not finished
    assert not (workdir / "result.json").exists()


@pytest.mark.parametrize(
  "names", [["environment.json"], [".config.json.tmp"], [".lock"]]
)
def test_run_killed_during_prepare(tmp_path, names):
  workdir = tmp_path / "run"
  workdir.mkdir()
  for name in names:
    (workdir / name).write_text("{")
  with runs.opened(workdir, CONFIG, overwrite=False) as finished:
    assert not finished
  assert runs.read_config(workdir) == json.loads(record.canonical(CONFIG))
  assert {path.name for path in workdir.iterdir()} == {
    "config.json",
    "environment.json",
  }


def test_run_killed_during_deletion_is_still_a_run(tmp_path, monkeypatch):
  workdir = _workdir(tmp_path)
  for step in (1, 2):
    runs.save_state(workdir, step, _state(step))
  runs.write_result(workdir, records.result())

  def killed(path):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(directory.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
      runs.prepare(workdir, CONFIG, overwrite=True)
  assert not runs.prepare(workdir, CONFIG, overwrite=True)
  assert runs.load_state(workdir, _state(0)) == (None, [])


def test_run_of_another_version_is_refused(tmp_path):
  workdir = _workdir(tmp_path)
  made = json.loads((workdir / "environment.json").read_text())
  assert made["format"] == runs.FORMAT
  for change, message in (
    ({"format": 3, "icl_causal": "9.9"}, r"has format 3 of icl_causal 9\.9, "),
    (
      {"format": None, "icl_causal": "< 0.1"},
      "has format None of icl_causal <",
    ),
  ):
    (workdir / "environment.json").write_text(json.dumps(made | change))
    for read in (
      runs.read_config,
      lambda workdir: runs.prepare(workdir, CONFIG, overwrite=False),
    ):
      with pytest.raises(runs.RunError, match=message):
        read(workdir)
  with pytest.raises(runs.RunError, match="environment has no format"):
    runs.prepare(workdir, CONFIG, overwrite=True)
  (workdir / "environment.json").write_text(json.dumps(made | {"format": 7}))
  assert not runs.prepare(workdir, CONFIG, overwrite=True)


def test_errors_name_missing_and_damaged_files(tmp_path):
  with pytest.raises(runs.RunError, match="does not exist"):
    runs.read_config(tmp_path / "nowhere")
  workdir = _workdir(tmp_path)
  with pytest.raises(runs.RunError, match=r"has no result\.json"):
    runs.read_result(workdir)
  text = (workdir / "config.json").read_bytes()
  for damaged in (b'{"seed": ', b"", b"\xff" + text, b"[1, 2]", b"[" * 10**5):
    (workdir / "config.json").write_bytes(damaged)
    with pytest.raises(runs.RunError, match=r"config\.json is damaged"):
      runs.prepare(workdir, CONFIG, overwrite=False)
  (workdir / "config.json").write_bytes(text)


def test_failed_run_is_done_but_not_finished(tmp_path):
  workdir = _workdir(tmp_path)
  assert runs.read_failure(workdir) is None
  assert not runs.is_done(workdir)
  runs.write_failure(workdir, {"step": 3, "what": "the loss is not finite"})
  assert runs.read_failure(workdir)["step"] == 3
  assert runs.is_done(workdir)
  assert not runs.is_finished(workdir)


CHANGES = {
  "result.json": lambda w: runs.read_result(w),
  "failed.json": lambda w: runs.read_failure(w),
  "environment.json": lambda w: runs.read_config(w),
  "config.json": lambda w: runs.read_config(w),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_digit_is_noticed(tmp_path, name):
  workdir = _workdir(tmp_path)
  runs.append_metrics(workdir, records.row(0))
  runs.write_result(workdir, records.result())
  runs.write_failure(workdir, {"step": 3, "what": "the loss is not finite"})
  CHANGES[name](workdir)
  text = (workdir / name).read_text()
  digits = [match.start() for match in re.finditer(r"\d", text)]
  for at in digits:
    changed = f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}"
    (workdir / name).write_text(changed)
    with pytest.raises(runs.RunError, match=r"damaged|format") as caught:
      CHANGES[name](workdir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["result.json", "failed.json"])
def test_the_record_of_another_run_is_noticed(tmp_path, name):
  workdirs = [tmp_path / "a", tmp_path / "b"]
  for seed, workdir in enumerate(workdirs):
    runs.prepare(workdir, CONFIG | {"seed": seed}, overwrite=False)
    runs.write_result(workdir, records.result())
    runs.write_failure(workdir, {"step": 3, "what": "the loss is not finite"})
  (workdirs[0] / name).replace(workdirs[1] / name)
  with pytest.raises(runs.RunError, match=f"{name} is damaged, or config"):
    CHANGES[name](workdirs[1])


def test_lost_last_rows_of_a_finished_run_are_noticed(tmp_path):
  workdir = _workdir(tmp_path)
  for step in (0, 2, 4):
    runs.append_metrics(workdir, records.row(step))
  runs.write_result(workdir, records.result())
  lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
  for kept in (lines[:2], [], [*lines[:2], lines[2][:-5]]):
    (workdir / "metrics.jsonl").write_text("".join(kept))
    with pytest.raises(runs.RunError, match="damaged"):
      runs.read_result(workdir)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("loss", None),
    ("loss", "1.5"),
    ("edges", 1.5),
    ("edges", True),
    ("excess_loss", [1]),
    ("entropy", {}),
  ],
)
def test_types_of_a_result(tmp_path, name, value):
  workdir = _workdir(tmp_path)
  runs.write_result(workdir, records.result(**{name: value}))
  message = f"result.json is damaged: its {name} is "
  with pytest.raises(runs.RunError, match=message):
    runs.read_result(workdir)
  nothing = {k: v for k, v in records.result().items() if k != name}
  runs.write_result(workdir, nothing)
  with pytest.raises(runs.RunError, match=message + "missing"):
    runs.read_result(workdir)


@pytest.mark.parametrize("name", ["a.b", "__class__"])
def test_names_that_a_config_can_not_have(tmp_path, name):
  workdir = tmp_path / "run"
  runs.prepare(workdir, CONFIG | {name: 1}, overwrite=False)
  with pytest.raises(runs.RunError, match=r"config\.json is damaged: ") as e:
    runs.read_config(workdir)
  assert "\n" not in str(e.value)


def test_a_renamed_member_is_noticed(tmp_path):
  workdir = tmp_path / "members" / record.digest(CONFIG)
  runs.prepare(workdir, CONFIG, overwrite=False)
  runs.write_result(workdir, records.result())
  runs.read_result(workdir)
  renamed = workdir.rename(tmp_path / "members" / ("0" * 12))
  for read in (runs.read_config, runs.read_result):
    with pytest.raises(runs.RunError, match="is not its run"):
      read(renamed)
