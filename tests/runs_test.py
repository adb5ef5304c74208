import json

import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from icl_causal import runs
from icl_causal.training import TrainState

CONFIG = {"seed": 0, "graph": {"name": "chain", "T": 5}, "heads": (1, 1)}


def _state(value):
  params = {"W": jnp.full((3, 2), value), "A1": jnp.full((1, 2, 2), -value)}
  return TrainState(params, optax.adam(0.1).init(params), jnp.int32(value))


def _workdir(tmp_path):
  workdir = tmp_path / "run"
  assert not runs.prepare(workdir, CONFIG, overwrite=False)
  return workdir


def test_canonical_config_has_one_text_and_one_digest():
  reordered = {"heads": [1, 1], "graph": {"T": 5, "name": "chain"}, "seed": 0}
  assert runs.canonical(CONFIG) == runs.canonical(reordered)
  assert runs.digest(CONFIG) == runs.digest(reordered)
  assert runs.digest(CONFIG) != runs.digest(CONFIG | {"seed": 1})
  with pytest.raises(ValueError, match="JSON compliant"):
    runs.canonical({"loss": float("nan")})


def test_prepare_makes_finds_and_finishes_a_run(tmp_path):
  workdir = _workdir(tmp_path)
  assert runs.read_config(workdir) == json.loads(runs.canonical(CONFIG))
  environment = json.loads((workdir / "environment.json").read_text())
  assert environment["versions"]["jax"] == jax.__version__
  assert environment["backend"] == jax.default_backend()
  assert not runs.prepare(workdir, CONFIG, overwrite=False)
  runs.write_result(workdir, {"loss": 1.5})
  assert runs.prepare(workdir, CONFIG, overwrite=False)
  assert runs.read_result(workdir) == {"loss": 1.5}


def test_prepare_refuses_another_run_and_foreign_folders(tmp_path):
  workdir = _workdir(tmp_path)
  runs.append_metrics(workdir, {"step": 1})
  other = {**CONFIG, "graph": {"name": "chain", "T": 6}}
  with pytest.raises(runs.RunError, match=r"graph\.T is 5 there and 6 here"):
    runs.prepare(workdir, other, overwrite=False)
  assert runs.read_metrics(workdir) == [{"step": 1}]
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


def test_a_directory_is_opened_by_one_process_at_a_time(tmp_path):
  workdir = tmp_path / "run"
  with runs.opened(workdir, CONFIG, overwrite=False) as finished:
    assert not finished
    for overwrite in (False, True):
      with (
        pytest.raises(runs.RunError, match=r"run is in use by process \d+ on"),
        runs.opened(workdir, CONFIG, overwrite),
      ):
        pass
    runs.append_metrics(workdir, {"step": 1})
    runs.write_result(workdir, {"loss": 1.5})
  assert runs.read_metrics(workdir) == [{"step": 1}]
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
def test_a_run_killed_while_it_was_made_ready(tmp_path, names):
  workdir = tmp_path / "run"
  workdir.mkdir()
  for name in names:
    (workdir / name).write_text("{")
  with runs.opened(workdir, CONFIG, overwrite=False) as finished:
    assert not finished
  assert runs.read_config(workdir) == json.loads(runs.canonical(CONFIG))
  assert {path.name for path in workdir.iterdir()} == {
    "config.json",
    "environment.json",
  }


def test_a_run_killed_while_it_was_deleted_is_still_a_run(
  tmp_path, monkeypatch
):
  workdir = _workdir(tmp_path)
  for step in (1, 2):
    runs.save_state(workdir, step, _state(step))
  runs.write_result(workdir, {"loss": 1.5})

  def killed(path):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(runs.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
      runs.prepare(workdir, CONFIG, overwrite=True)
  assert not runs.prepare(workdir, CONFIG, overwrite=True)
  assert runs.load_state(workdir, _state(0)) == (None, [])


def test_a_run_of_another_version_is_named_and_refused(tmp_path):
  workdir = _workdir(tmp_path)
  made = json.loads((workdir / "environment.json").read_text())
  assert made["format"] == runs.FORMAT
  for change, named in (
    ({"format": 7, "icl_causal": "9.9"}, r"was made by icl_causal 9\.9, and "),
    ({"format": None, "icl_causal": "< 0.1"}, "was made by icl_causal < 0.1,"),
  ):
    (workdir / "environment.json").write_text(json.dumps(made | change))
    for read in (
      runs.read_config,
      lambda workdir: runs.prepare(workdir, CONFIG, overwrite=False),
    ):
      with pytest.raises(runs.RunError, match=named):
        read(workdir)
  assert not runs.prepare(workdir, CONFIG, overwrite=True)


def test_missing_and_damaged_files_are_named(tmp_path):
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
  (workdir / "metrics.jsonl").write_bytes(b'{"step": 0}\n{"ste\xff\n{')
  with pytest.raises(runs.RunError, match=r"metrics\.jsonl is damaged in line"):
    runs.read_metrics(workdir)


def test_metrics_are_cut_to_a_step_and_survive_a_torn_line(tmp_path):
  workdir = _workdir(tmp_path)
  rows = [{"step": step, "loss": 1 / (step + 1)} for step in (0, 10, 20)]
  for row in rows:
    runs.append_metrics(workdir, row)
  with open(workdir / "metrics.jsonl", "a") as file:
    file.write('{"step": 30, "lo')
  assert runs.read_metrics(workdir) == rows
  assert runs.cut_metrics(workdir, 10) == rows[:2]
  runs.append_metrics(workdir, {"step": 20})
  assert runs.read_metrics(workdir) == [*rows[:2], {"step": 20}]


def _equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_states_come_back_as_they_were(tmp_path):
  workdir = _workdir(tmp_path)
  assert runs.load_state(workdir, _state(0)) == (None, [])
  for step in (1, 2, 3):
    runs.save_state(workdir, step, _state(step))
  state, messages = runs.load_state(workdir, _state(0))
  _equal(state, _state(3))
  assert messages == []
  kept = sorted(path.name for path in (workdir / "checkpoints").iterdir())
  assert kept == ["2", "3"]


def test_all_kept_states_can_be_read_without_a_change(tmp_path):
  workdir = _workdir(tmp_path)
  assert runs.load_states(workdir, _state(0)) == ({}, [])
  for step in (1, 2, 3, 4):
    runs.save_state(workdir, step, _state(step), keep=3)
  for path in (workdir / "checkpoints" / "3").rglob("*"):
    if path.is_file():
      path.write_bytes(b"")
  states, messages = runs.load_states(workdir, _state(0))
  assert list(states) == [2, 4]
  for step, state in states.items():
    _equal(state, _state(step))
  assert len(messages) == 1
  assert "the checkpoint of step 3 can't be read" in messages[0]
  assert (workdir / "checkpoints" / "3").is_dir()


@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
  workdir = _workdir(tmp_path)
  for step in (1, 2):
    runs.save_state(workdir, step, _state(step))
  for path in sorted((workdir / "checkpoints" / "2").rglob("*")):
    if path.is_file() and damage == "removed":
      path.unlink()
    elif path.is_file():
      data = path.read_bytes()
      path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
  state, messages = runs.load_state(workdir, _state(0))
  _equal(state, _state(1))
  assert len(messages) == 1
  assert "the checkpoint of step 2 can't be read" in messages[0]
  assert "\n" not in messages[0]
  assert (workdir / "damaged_checkpoints" / "2.1").is_dir()
  runs.save_state(workdir, 2, _state(2))
  _equal(runs.load_state(workdir, _state(0))[0], _state(2))


def test_with_no_checkpoint_that_can_be_read_nothing_is_begun_anew(tmp_path):
  workdir = _workdir(tmp_path)
  runs.save_state(workdir, 1, _state(1))
  files = [p for p in (workdir / "checkpoints").rglob("*") if p.is_file()]
  kept = {path: path.read_bytes() for path in files}
  for path in files:
    path.write_bytes(b"")
  with pytest.raises(runs.RunError, match=r"no checkpoint in .* can be read"):
    runs.load_state(workdir, _state(0))
  for path, data in kept.items():  # where they were
    path.write_bytes(data)
  _equal(runs.load_state(workdir, _state(0))[0], _state(1))


def test_a_checkpoint_damaged_twice(tmp_path):
  workdir = _workdir(tmp_path)
  runs.save_state(workdir, 1, _state(1))
  for _ in range(2):
    runs.save_state(workdir, 2, _state(2))
    for path in (workdir / "checkpoints" / "2").rglob("*"):
      if path.is_file():
        path.write_bytes(b"")
    _equal(runs.load_state(workdir, _state(0))[0], _state(1))
  names = sorted(p.name for p in (workdir / "damaged_checkpoints").iterdir())
  assert names == ["2.1", "2.2"]


def test_a_failure_is_told_and_what_is_no_file_is_none(tmp_path):
  workdir = _workdir(tmp_path)
  assert runs.read_failure(workdir) is None
  runs.write_failure(workdir, {"step": 3, "what": "the loss is not finite"})
  assert runs.read_failure(workdir)["step"] == 3


def test_writing_replaces_the_whole_file(tmp_path):
  path = tmp_path / "file.txt"
  runs.write_text(path, "a long first text")
  runs.write_text(path, "short")
  assert path.read_text() == "short"
  assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
