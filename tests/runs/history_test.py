"""The history of a run: what is appended is read, and any change is noticed."""

import json

import numpy as np
import pytest

from icl_causal import runs
from icl_causal.runs import checkpoints
from icl_causal.runs import history
from icl_causal.runs import records as of_runs
from tests.support import records

STEPS = [0, 2, 4, 6]


def _maps(num: int, heads: int, T: int):
  """Random causal attention maps; each row is a law."""
  weights = np.random.default_rng(0).gamma(0.5, size=(num, heads, T, T))
  weights *= np.tri(T)
  return weights / weights.sum(-1, keepdims=True)


def _state(step):
  return {"W": np.full(3, step, np.float32), "step": np.int32(step)}


@pytest.fixture
def workdir(tmp_path):
  """Evaluations at four steps, and states at the last three."""
  path = tmp_path / "run"
  runs.prepare(path, {"seed": 0}, overwrite=False)
  for step, map_HxTxT in zip(STEPS, _maps(4, 1, 3), strict=True):
    runs.append_attention(path, step, map_HxTxT)
    runs.append_metrics(path, records.row(step, loss=1 / (step + 1)))
    if step:
      runs.sync_history(path)
      runs.save_state(path, step, _state(step), keep=3)
  return path


def _lines(path):
  return path.read_bytes().splitlines(keepends=True)


def _edited(line, **changes):
  return (json.dumps(json.loads(line) | changes) + "\n").encode()


DAMAGES = {
  "lost": lambda lines: [lines[0], *lines[2:]],
  "first lost": lambda lines: lines[1:],
  "doubled": lambda lines: [lines[0], *lines],
  "reordered": lambda lines: [lines[0], lines[2], lines[1], lines[3]],
  "step": lambda lines: [lines[0], _edited(lines[1], step=3), *lines[2:]],
  "value": lambda lines: [lines[0], _edited(lines[1], loss=9.0), *lines[2:]],
  "type": lambda lines: [lines[0], _edited(lines[1], step="2"), *lines[2:]],
  "text": lambda lines: [lines[0], lines[1][:-30] + b"\n", *lines[2:]],
  "empty": lambda lines: [lines[0], b"\n", *lines[2:]],
}


@pytest.mark.parametrize(
  ("name", "damage"),
  [
    *((history.METRICS, damage) for damage in DAMAGES),
    # A row of attention has no loss to change.
    *((history.ATTENTION, damage) for damage in DAMAGES if damage != "value"),
  ],
)
def test_changed_lines_are_noticed(workdir, name, damage):
  path = workdir / name
  lines = _lines(path)
  path.write_bytes(b"".join(DAMAGES[damage](lines)))
  read = {
    history.METRICS: runs.read_metrics,
    history.ATTENTION: runs.read_attention,
  }[name]
  with pytest.raises(runs.RunError, match=rf"{name}, line \d, is damaged") as e:
    read(workdir)
  assert "\n" not in str(e.value)
  with pytest.raises(runs.RunError, match="no checkpoint that can be used"):
    runs.load_state(workdir, _state(0))
  assert checkpoints.saved_steps(workdir) == [2, 4, 6]


@pytest.mark.parametrize("name", [history.METRICS, history.ATTENTION])
@pytest.mark.parametrize("damage", ["changed", "cut", "incomplete"])
def test_the_newest_state_whose_history_is_whole_is_loaded(
  workdir, name, damage
):
  """Its lines are kept, and the damage after them is dropped."""
  path = workdir / name
  lines = _lines(path)
  content, message = {
    "changed": (
      [*lines[:2], _edited(lines[2], step=5), lines[3]],
      "line 3, is damaged",
    ),
    "cut": (lines[:2], f"{name} ends before it"),
    "incomplete": ([*lines[:2], lines[2][:-1]], f"{name} ends before it"),
  }[damage]
  path.write_bytes(b"".join(content))
  state, messages = runs.load_state(workdir, _state(0))
  assert state is not None
  assert state["step"] == 2
  assert len(messages) == 2
  assert all(message in line for line in messages)
  assert not any("\n" in line for line in messages)
  assert checkpoints.saved_steps(workdir) == [2]
  assert runs.truncate_history(workdir, 2)["step"] == 2
  assert _lines(path) == lines[:2]


def test_the_history_of_another_run_is_noticed(workdir, tmp_path):
  other = tmp_path / "other"
  runs.prepare(other, {"seed": 1}, overwrite=False)
  (workdir / history.METRICS).rename(other / history.METRICS)
  with pytest.raises(
    runs.RunError, match=r"line 1, is damaged: .* another run"
  ):
    runs.read_metrics(other)


def test_rows_round_trip_and_an_incomplete_last_line_is_skipped(workdir):
  rows = [records.row(step, loss=1 / (step + 1)) for step in STEPS]
  assert runs.read_metrics(workdir) == rows
  with open(workdir / history.METRICS, "a") as file:
    file.write('{"step": 30, "lo')
  assert runs.read_metrics(workdir) == rows
  assert runs.truncate_history(workdir, 4) == rows[2]
  assert list(runs.read_attention(workdir)) == STEPS[:3]
  runs.append_metrics(workdir, records.row(6))
  assert runs.read_metrics(workdir) == [*rows[:3], records.row(6)]
  assert runs.truncate_history(workdir, -1) == {}
  assert runs.read_metrics(workdir) == []
  assert runs.read_attention(workdir) == {}


def test_nan_is_never_written(tmp_path):
  with pytest.raises(ValueError, match="JSON compliant"):
    runs.append_metrics(tmp_path, {"step": 0, "loss": float("nan")})
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"step": "0"}, "its step is '0'"),
    ({"step": True}, "its step is True"),
    ({"step": -2}, "its steps are"),
    ({"loss": None}, "its loss is None"),
  ],
)
def test_rows_with_other_fields_are_refused(tmp_path, changes, message):
  runs.append_metrics(tmp_path, records.row(0) | changes)
  with pytest.raises(runs.RunError, match=f"line 1, is damaged: {message}"):
    runs.read_metrics(tmp_path)


def test_rows_without_a_field_are_refused(tmp_path):
  row = records.row(0)
  del row["excess_loss"]
  runs.append_metrics(tmp_path, row)
  with pytest.raises(runs.RunError, match="its excess_loss is missing"):
    runs.read_metrics(tmp_path)


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 2, 20), (2, 1, 129)])
def test_attention_round_trip(tmp_path, shape):
  num, heads, T = shape
  maps = _maps(num, heads, T)
  assert runs.read_attention(tmp_path) == {}
  for n in range(num):
    runs.append_attention(tmp_path, 10 * n, maps[n])
  read = runs.read_attention(tmp_path)
  assert list(read) == [10 * n for n in range(num)]
  for found, map_HxTxT in zip(read.values(), maps, strict=True):
    assert found.shape == (heads, T, T)
    np.testing.assert_allclose(found, map_HxTxT, rtol=0, atol=1e-3)
    assert not np.triu(found, 1).any()


def test_an_evaluation_takes_the_same_space_at_any_step(tmp_path):
  sizes = [0]
  for step, map_HxTxT in enumerate(_maps(50, 2, 20)):
    runs.append_attention(tmp_path, step + 10, map_HxTxT)
    sizes.append((tmp_path / history.ATTENTION).stat().st_size)
  assert set(np.diff(sizes)) == {sizes[1]}
  assert sizes[1] < 2 * 2 * 210 * 4 / 3 + 100  # float16 in base64


@pytest.mark.parametrize(
  ("heads", "lower"),
  [
    (1, "AAA"),
    (1, "AAAA"),
    (0, ""),
    (-5, "AAAAAAAA"),
    (1, "AHwAfAB8"),
    (2, "é"),
  ],
)
def test_maps_of_another_shape_are_refused(tmp_path, heads, lower):
  """Among them one with infinite numbers."""
  row = {"step": 0, "heads": heads, "lower": lower}
  of_runs.append(tmp_path / history.ATTENTION, row)
  with pytest.raises(runs.RunError, match=r"line 1, is damaged: .+") as caught:
    runs.read_attention(tmp_path)
  assert "\n" not in str(caught.value)
