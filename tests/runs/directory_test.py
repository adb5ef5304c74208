"""The run directory: who may use it, and its metrics, attention and result."""

import json

import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from icl_causal import runs
from icl_causal.config import record
from icl_causal.runs import directory
from icl_causal.training import TrainState

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
  runs.write_result(workdir, {"loss": 1.5})
  assert runs.prepare(workdir, CONFIG, overwrite=False)
  assert runs.is_finished(workdir)
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
  runs.write_result(workdir, {"loss": 1.5})

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
    ({"format": 7, "icl_causal": "9.9"}, r"was made by icl_causal 9\.9, and "),
    ({"format": None, "icl_causal": "< 0.1"}, "was made by icl_causal < 0.1,"),
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
  (workdir / "metrics.jsonl").write_bytes(b'{"step": 0}\n{"ste\xff\n{')
  with pytest.raises(runs.RunError, match=r"metrics\.jsonl is damaged in line"):
    runs.read_metrics(workdir)


def test_metrics_with_an_incomplete_line_are_truncated_to_a_step(tmp_path):
  workdir = _workdir(tmp_path)
  rows = [{"step": step, "loss": 1 / (step + 1)} for step in (0, 10, 20)]
  for row in rows:
    runs.append_metrics(workdir, row)
  with open(workdir / "metrics.jsonl", "a") as file:
    file.write('{"step": 30, "lo')
  assert runs.read_metrics(workdir) == rows
  assert runs.truncate_metrics(workdir, 10) == rows[:2]
  runs.append_metrics(workdir, {"step": 20})
  assert runs.read_metrics(workdir) == [*rows[:2], {"step": 20}]


def test_failed_run_is_done_but_not_finished(tmp_path):
  workdir = _workdir(tmp_path)
  assert runs.read_failure(workdir) is None
  assert not runs.is_done(workdir)
  runs.write_failure(workdir, {"step": 3, "what": "the loss is not finite"})
  assert runs.read_failure(workdir)["step"] == 3
  assert runs.is_done(workdir)
  assert not runs.is_finished(workdir)


def _maps(num: int, heads: int, T: int):
  """Random causal attention maps; each row is a law."""
  weights = np.random.default_rng(0).gamma(0.5, size=(num, heads, T, T))
  weights *= np.tri(T)
  return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 2, 20), (2, 1, 129)])
def test_attention_history_round_trip(tmp_path, shape):
  num, heads, T = shape
  maps, steps = _maps(num, heads, T), list(range(0, 10 * num, 10))
  assert runs.read_attention(tmp_path) == {}
  runs.write_attention(tmp_path, steps, list(maps))
  read = runs.read_attention(tmp_path)
  assert list(read) == steps
  for step, map_HxTxT in zip(steps, maps, strict=True):
    assert read[step].shape == (heads, T, T)
    np.testing.assert_allclose(read[step], map_HxTxT, rtol=0, atol=1e-3)
    assert not np.triu(read[step], 1).any()


def test_attention_history_is_stored_as_lower_triangles_of_float16(tmp_path):
  num, heads, T = 50, 2, 20
  runs.write_attention(tmp_path, range(num), list(_maps(num, heads, T)))
  path = tmp_path / "attention.npz"
  with np.load(path, allow_pickle=False) as arrays:
    lower = arrays["lower_NxHxM"]
  assert (lower.dtype, lower.shape) == (np.float16, (num, heads, 210))
  assert path.stat().st_size < 2 * num * heads * 210 + 8 * num + 1000


def test_damaged_attention_history_is_reported_in_one_line(tmp_path):
  runs.write_attention(tmp_path, [0, 2], list(_maps(2, 1, 6)))
  path = tmp_path / "attention.npz"
  data = path.read_bytes()
  damaged = [data[:length] for length in range(0, len(data), 7)]
  damaged += [b"garbage", b"\0" * 500, data[:60] + b"\xff\0" + data[62:]]
  for content in damaged:
    path.write_bytes(content)
    with pytest.raises(
      runs.RunError, match=r"attention\.npz is damaged: .+"
    ) as e:
      runs.read_attention(tmp_path)
    assert "\n" not in str(e.value)
