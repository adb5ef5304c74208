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
PHASE = records.phase(8)


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
    snapshot = runs.Snapshot(1 / (step + 1), map_HxTxT, {}, PHASE)
    runs.append_snapshot(path, step, snapshot)
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
    *((history.SNAPSHOTS, damage) for damage in DAMAGES),
  ],
)
def test_changed_lines_are_noticed(workdir, name, damage):
  path = workdir / name
  lines = _lines(path)
  path.write_bytes(b"".join(DAMAGES[damage](lines)))
  read = {
    history.METRICS: runs.read_metrics,
    history.SNAPSHOTS: runs.read_snapshots,
  }[name]
  with pytest.raises(runs.RunError, match=rf"{name}, line \d, is damaged") as e:
    read(workdir)
  assert "\n" not in str(e.value)
  with pytest.raises(runs.RunError, match="no checkpoint that can be used"):
    runs.load_state(workdir, _state(0))
  assert checkpoints.saved_steps(workdir) == [2, 4, 6]


@pytest.mark.parametrize("name", [history.METRICS, history.SNAPSHOTS])
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
  assert list(runs.read_snapshots(workdir)) == STEPS[:3]
  runs.append_metrics(workdir, records.row(6))
  assert runs.read_metrics(workdir) == [*rows[:3], records.row(6)]
  assert runs.truncate_history(workdir, -1) == {}
  assert runs.read_metrics(workdir) == []
  assert runs.read_snapshots(workdir) == {}


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


@pytest.mark.parametrize(
  "shape", [(1, 1, 2), (3, 2, 20), (2, 2, 2), (2, 1, 129)]
)
def test_snapshots_round_trip(tmp_path, shape):
  """Also if the map of a last layer has as many heads as positions."""
  num, heads, T = shape
  maps = _maps(num, heads, T)
  assert runs.read_snapshots(tmp_path) == {}
  prompts = {
    "law": np.random.default_rng(1).uniform(size=(4, 10)),
    "attention_1": _maps(4, heads, T),
    "attention_2": np.random.default_rng(2).uniform(size=(4, heads, T)),
  }
  for n in range(num):
    snapshot = runs.Snapshot(n, maps[n], prompts, records.phase(n))
    runs.append_snapshot(tmp_path, 10 * n, snapshot)
  read = runs.read_snapshots(tmp_path)
  assert list(read) == [10 * n for n in range(num)]
  for n, found in enumerate(read.values()):
    assert found.loss == n
    assert found.phase == records.phase(n)
    assert found.attention.shape == (heads, T, T)
    np.testing.assert_allclose(found.attention, maps[n], rtol=0, atol=1e-3)
    assert not np.triu(found.attention, 1).any()
    assert found.prompts.keys() == prompts.keys()
    for name, array in found.prompts.items():
      np.testing.assert_allclose(array, prompts[name], rtol=0, atol=1e-3)


def test_a_snapshot_takes_the_same_space_at_any_step(tmp_path):
  sizes = [0]
  for step, map_HxTxT in enumerate(_maps(50, 2, 20)):
    snapshot = runs.Snapshot(0.5, map_HxTxT, {}, PHASE)
    runs.append_snapshot(tmp_path, step + 10, snapshot)
    sizes.append((tmp_path / history.SNAPSHOTS).stat().st_size)
  assert set(np.diff(sizes)) == {sizes[1]}
  assert sizes[1] < 2 * 2 * 210 * 4 / 3 + 350  # float16 in base64


def test_snapshots_of_long_prompts_leave_prompts_out(tmp_path):
  """A line has to stay below the limit for lines."""
  for step, (T, kept) in enumerate(((512, 3), (1024, 0))):
    prompts = {"law": np.ones((4, 10)), "attention_1": np.ones((4, 1, T, T))}
    snapshot = runs.Snapshot(0.5, np.ones((1, T, T)), prompts, PHASE)
    runs.append_snapshot(tmp_path, step, snapshot)
    found = runs.read_snapshots(tmp_path)[step].prompts
    assert (
      len(found.get("law", ())) == len(found.get("attention_1", ())) == kept
    )


@pytest.mark.parametrize(
  "changes",
  [
    {"float16": "AAA"},
    {"float16": "é"},
    {"float16": 3},
    {"float16": "AHwAfAB8"},  # infinite numbers
    {"shape": [1, 2]},
    {"shape": [-1, -3]},
    {"shape": [0]},
    {"shape": []},
    {"shape": [1.0, 3.0]},
    {"shape": [[1], 3]},
    {"shape": ["1", 3]},
    {"shape": "13"},
    {"shape": None},
    {"shape": [1, 2**62]},
  ],
)
def test_damaged_arrays_are_refused(tmp_path, changes):
  good = {"shape": [1, 3], "maps": True, "float16": "ADwAOAA4"}
  row = {"step": 0, "loss": 1.0, "attention": good, "prompts": {}}
  row |= {"phase": PHASE._asdict()}
  of_runs.append(tmp_path / history.SNAPSHOTS, row)
  (found,) = runs.read_snapshots(tmp_path).values()
  np.testing.assert_array_equal(found.attention, [[[1, 0], [0.5, 0.5]]])
  of_runs.append(
    tmp_path / history.SNAPSHOTS, row | {"step": 1, "attention": good | changes}
  )
  with pytest.raises(runs.RunError, match=r"line 2, is damaged: .+") as caught:
    runs.read_snapshots(tmp_path)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"left": None}, "its left is None"),
    ({"left": "x"}, "its left is 'x'"),
    ({"left": -0.1}, "its phase is"),
    ({"decided_loss": True}, "its decided_loss is True"),
    ({"edge_loss": -1}, "its phase is"),
    ({"weights": [0.5, 0.5]}, r"its weights is \[0.5"),
    ({"weights": {}}, "its weights are {}"),
    ({"weights": {"uniform": "1"}}, "its uniform is '1'"),
    ({"weights": {"uniform": True}}, "its uniform is True"),
    ({"weights": {"uniform": 10**17}}, "its weights are"),
    ({"weights": {"uniform": 1.5, "unigram": -0.5}}, "its weights are"),
    ({"weights": {"uniform": 0.5}}, "its weights are"),
    ({"weights": {"banana": 1.0}}, "its weights are {'banana'"),
    ({"weights": {"x" * 10**6: 1.0}}, "its weights are {'xxx"),
  ],
)
def test_damaged_phases_are_refused(tmp_path, changes, message):
  runs.append_snapshot(
    tmp_path, 0, runs.Snapshot(0.5, np.ones((1, 2, 2)), {}, PHASE)
  )
  (line,) = _lines(tmp_path / history.SNAPSHOTS)
  row = {**json.loads(line), "step": 1}
  del row["checksum"]
  row["phase"] |= changes
  of_runs.append(tmp_path / history.SNAPSHOTS, row)
  with pytest.raises(
    runs.RunError, match=f"line 2, is damaged: {message}"
  ) as caught:
    runs.read_snapshots(tmp_path)
  assert "\n" not in str(caught.value)
  assert len(str(caught.value)) < 400


def test_a_snapshot_without_a_phase_is_refused(tmp_path):
  runs.append_snapshot(
    tmp_path, 0, runs.Snapshot(0.5, np.ones((1, 2, 2)), {}, PHASE)
  )
  (line,) = _lines(tmp_path / history.SNAPSHOTS)
  for name in ("phase", "left"):
    row = {**json.loads(line), "step": 1}
    del row["checksum"]
    (row if name == "phase" else row["phase"]).pop(name)
    (tmp_path / history.SNAPSHOTS).write_bytes(line)
    of_runs.append(tmp_path / history.SNAPSHOTS, row)
    with pytest.raises(runs.RunError, match=f"its {name} is missing"):
      runs.read_snapshots(tmp_path)
