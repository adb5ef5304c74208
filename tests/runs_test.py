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


def test_missing_and_damaged_files_are_named(tmp_path):
  with pytest.raises(runs.RunError, match="does not exist"):
    runs.read_config(tmp_path / "nowhere")
  workdir = _workdir(tmp_path)
  with pytest.raises(runs.RunError, match=r"has no result\.json"):
    runs.read_result(workdir)
  (workdir / "config.json").write_text('{"seed": ')
  with pytest.raises(runs.RunError, match=r"config\.json is damaged"):
    runs.prepare(workdir, CONFIG, overwrite=False)


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
  assert (workdir / "damaged_checkpoints" / "2").is_dir()
  runs.save_state(workdir, 2, _state(2))
  _equal(runs.load_state(workdir, _state(0))[0], _state(2))


def test_writing_replaces_the_whole_file(tmp_path):
  path = tmp_path / "file.txt"
  runs.write_text(path, "a long first text")
  runs.write_text(path, "short")
  assert path.read_text() == "short"
  assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
