"""A run directory, opened after training."""

import shutil

import jax
import numpy as np
import pytest

from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from experiments.harness import program
from experiments.harness import traced
from experiments.sweep import summary
from icl_causal import config
from icl_causal import graphs
from icl_causal import models
from icl_causal import phases
from icl_causal import runs
from icl_causal import training
from icl_causal.config import streams

STEPS = [2, 4]  # of the checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A finished member of a sweep, with two checkpoints."""
  base = config.load(
    "configs.single_parent",
    "manual",
    **{
      "train.steps": 4,
      "train.eval_every": 2,
      "train.batch_size": 32,
      "eval.test_size": 64,
      "eval.batch_size": 64,
      "eval.posterior_prompts": 0,
      "eval.seed": 5,
    },
  )
  run = grid.run(base, {"seed": 3}, tmp_path_factory.mktemp("sweep"))
  runs.prepare(run.workdir, run.config.to_dict(), overwrite=False)
  loop.train_single(run, distributed.this_process(), keep=3)
  return run


@pytest.fixture
def copy(trained, tmp_path):
  """A copy of its directory, which a test may change."""
  return shutil.copytree(trained.workdir, tmp_path / "copy")


def _bytes(folder):
  return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _rewrite(old, new, config):
  """Writes a run again under another config."""
  runs.prepare(new, config, overwrite=False)
  rows = {row["step"]: row for row in runs.read_metrics(old)}
  like = {
    step: dict(runs.load(old).params[step]) for step in runs.saved_steps(old)
  }
  for step, snapshot in runs.read_snapshots(old).items():
    runs.append_snapshot(new, step, snapshot)
    if step in rows:
      runs.append_metrics(new, rows[step])
    if step in like:
      state = training.TrainState(like[step], (), np.int32(step))
      runs.save_state(new, step, state, keep=3)


def _assert_equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_run_has_what_its_directory_has(trained):
  run = runs.load(str(trained.workdir))
  assert run.path == trained.workdir
  assert run.config.to_dict() == trained.config.to_dict()
  _assert_equal(run.graph, trained.graph)
  assert run.model == models.Disentangled(3, 6, (1, 1), beta0=0.5)
  assert list(run.params) == STEPS
  assert run.history == runs.read_metrics(trained.workdir)
  assert [row["step"] for row in run.history] == [0, 2, 4]
  assert run.result == runs.read_result(trained.workdir)
  assert run.result["steps"] == 4
  assert run.warnings == []


def test_params_are_those_of_the_checkpoints(trained):
  run = runs.load(trained.workdir)
  functions = program.program(trained.config)
  inputs = traced.run_inputs(trained.config, trained.graph)
  start = jax.jit(functions.start)(inputs)
  _assert_equal(run.start, start.params)
  newest, _ = runs.load_state(trained.workdir, start)
  assert newest is not None
  _assert_equal(run.newest, newest.params)
  _assert_equal(run.params[4], newest.params)
  for earlier in (run.start, run.params[2]):
    assert np.abs(earlier["A1"] - run.newest["A1"]).max() > 0.01


def test_attention_has_the_layer_1_maps_of_every_evaluation(trained):
  run = runs.load(trained.workdir)
  assert list(run.attention) == [0, 1, 2, 3, 4]
  x_NxT = run.prompts(64).x_T
  for step, params in ((0, run.start), (2, run.params[2]), (4, run.newest)):
    _, out = run.apply(params, x_NxT)
    np.testing.assert_allclose(
      run.attention[step], out["attention_1"].mean(0), rtol=0, atol=1e-3
    )


def test_phases_are_those_of_the_model_on_the_first_prompts(trained):
  """On 64 prompts, without the exact posterior."""
  run = runs.load(trained.workdir)
  prompts = run.prompts(64)
  of = phases.baselines(
    prompts.x_T,
    prompts.y_S,
    run.graph,
    graphs.rewire(streams.key(5, "wrong_graph"), run.graph),
    0.1,
  )
  for step, params in ((0, run.start), (2, run.params[2]), (4, run.newest)):
    f_NxS, out = run.apply(params, prompts.x_T)
    maps_HxTxT = out["attention_1"].mean(0)
    expected = jax.jit(phases.phase)(f_NxS, maps_HxTxT, of, run.graph, 0.1)
    found = run.snapshots[step].phase
    assert list(found.weights) == list(phases.PREDICTORS[:-1])
    for name, weight in found.weights.items():
      assert weight == pytest.approx(float(expected.weights[name]), abs=1e-4)
    for value, same in zip(found[1:], expected[1:], strict=True):
      assert value == pytest.approx(float(same), abs=1e-5)


def test_weights_of_other_predictors_are_refused(tmp_path, copy):
  path = tmp_path / "changed"
  _rewrite(copy, path, runs.read_config(copy))
  (path / "snapshots.jsonl").unlink()
  for step, snapshot in runs.read_snapshots(copy).items():
    if step == 2:
      one = snapshot.phase._replace(weights={"unigram": 1.0})
      snapshot = snapshot._replace(phase=one)
    runs.append_snapshot(path, step, snapshot)
  with pytest.raises(runs.RunError, match="weights of other predictors"):
    runs.load(path)


def test_prompts_are_the_first_of_the_test_set(trained):
  run = runs.load(trained.workdir)
  functions = program.program(trained.config)
  inputs = traced.run_inputs(trained.config, trained.graph)
  test = jax.jit(functions.draw_test)(inputs)
  for num in (8, 64):
    prompts = run.prompts(num)
    np.testing.assert_array_equal(prompts.x_T, test.x_NxT[:num])
    np.testing.assert_allclose(prompts.y_S, test.y_NxS[:num], atol=1e-6)
    assert prompts.kernel.shape == (num, 4, 3)
    without = run.prompts(num, kernels=False)
    assert without.kernel is None
    np.testing.assert_array_equal(without.x_T, prompts.x_T)
  for num in (0, 65):
    with pytest.raises(ValueError, match=f"has 64 prompts, got num = {num}"):
      run.prompts(num)


def test_apply_is_the_model_on_a_batch(trained):
  run = runs.load(trained.workdir)
  x_BxT = run.prompts(8).x_T
  f_BxS, out = run.apply(run.newest, x_BxT)
  assert f_BxS.shape == (8, 3)
  np.testing.assert_allclose(f_BxS.sum(-1), 1, atol=1e-6)
  for b in range(8):
    f_S, out_of_prompt = run.model.apply({"params": run.newest}, x_BxT[b])
    np.testing.assert_allclose(f_BxS[b], f_S, atol=1e-6)
    for name, value in out_of_prompt.items():
      np.testing.assert_allclose(out[name][b], value, atol=1e-5)


def test_apply_reproduces_the_loss_of_the_result(trained):
  run = runs.load(trained.workdir)
  prompts = run.prompts(64)
  f_NxS, _ = run.apply(run.newest, prompts.x_T)
  loss_N = -(prompts.y_S * np.log(f_NxS)).sum(-1)
  assert loss_N.mean() == pytest.approx(run.result["loss"], abs=1e-5)


def test_load_only_reads(trained):
  before = _bytes(trained.workdir)
  with runs.lock(trained.workdir):  # as while another process trains
    locked = set(_bytes(trained.workdir))
    run = runs.load(trained.workdir)
    run.prompts(8)
    assert set(_bytes(trained.workdir)) == locked
  assert run.result == runs.read_result(trained.workdir)
  assert _bytes(trained.workdir) == before


def test_unfinished_run_has_no_result(copy):
  (copy / "result.json").unlink()
  run = runs.load(copy)
  assert run.result is None
  assert list(run.params) == STEPS


def test_run_without_checkpoints(copy):
  runs.delete_states(copy)
  run = runs.load(copy)
  assert run.params == {}
  assert set(run.start) == {"A1", "A2", "W"}
  with pytest.raises(runs.RunError, match=f"{copy} has no checkpoint"):
    _ = run.newest


def test_damaged_checkpoint_is_a_warning(copy):
  path = copy / "checkpoints" / "2.npz"
  path.write_bytes(path.read_bytes()[:100])
  before = _bytes(copy)
  run = runs.load(copy)
  assert list(run.params) == [4]
  assert len(run.warnings) == 1
  assert "the checkpoint of step 2 can't be used (" in run.warnings[0]
  assert "\n" not in run.warnings[0]
  assert _bytes(copy) == before


def test_parameters_of_another_shape_are_a_warning(tmp_path, copy):
  """As of a custom model that has changed since."""
  config = runs.read_config(copy)
  flags = dict.fromkeys(
    ("norm", "scaled", "orthonormal", "scaled_biases"), False
  )
  config["model"] = {"name": "standard", "heads": [1, 1], "width": 9, **flags}
  config["model"] |= {"mlp": "none", "beta0": 0.0, "sinks": [0.0, 0.0]}
  _rewrite(copy, tmp_path / "changed", config)
  run = runs.load(tmp_path / "changed")
  assert run.params == {}
  assert len(run.warnings) == 2
  for line in run.warnings:
    assert "can't be used (its parameters are {" in line
    assert "\n" not in line


@pytest.mark.parametrize(
  ("group", "field"),
  [
    ("graph", "name"),
    ("prior", "name"),
    ("model", "name"),
    ("train", "optimizer"),
  ],
)
def test_run_with_an_unregistered_part_opens_without_it(
  tmp_path, copy, group, field
):
  path = tmp_path / "changed"
  config = runs.read_config(copy)
  config[group][field] = "banana"
  _rewrite(copy, path, config)
  run = runs.load(path)
  line = f"{group}.{field} = 'banana' is not registered: import the config"
  assert run.warnings[0].startswith(line)
  assert len(run.warnings) == 1
  assert list(run.params) == STEPS
  original = runs.load(copy)
  _assert_equal(run.newest, original.newest)
  assert run.history == original.history
  _assert_equal(run.attention, original.attention)
  if group == "train":
    run.apply(run.newest, run.prompts(4).x_T)
    return
  assert getattr(run, group) is None
  unusable = {
    "graph": (lambda: run.prompts(4), lambda: run.start),
    "prior": (lambda: run.prompts(4),),
    "model": (lambda: run.apply(run.newest, None), lambda: run.start),
  }
  for use in unusable[group]:
    message = f"{path} has no .*{line}"
    with pytest.raises(runs.RunError, match=message) as caught:
      use()
    assert "\n" not in str(caught.value)


def test_an_invalid_config_is_refused_in_one_line(tmp_path, copy):
  for group, field, value in (
    ("prior", "alpha", -1.0),
    ("model", "heads", (1,)),
    ("graph", "parents", (5, 0, 0)),
  ):
    config = runs.read_config(copy)
    config[group][field] = value
    path = tmp_path / field
    runs.prepare(path, config, overwrite=False)
    with pytest.raises(runs.RunError, match="can't be opened: ") as caught:
      runs.load(path)
    assert "\n" not in str(caught.value)
    config["prior"]["name"] = "banana"  # and nothing is checked in advance
    config.pop("graph")
    runs.prepare(tmp_path / f"{field}2", config, overwrite=False)
    with pytest.raises(runs.RunError, match="can't be opened: "):
      runs.load(tmp_path / f"{field}2")


def test_opening_compiles_nothing(trained):
  """But for copies of arrays to the device, once in a process."""
  runs.load(trained.workdir)
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: compiled.append(event)
  )
  try:
    runs.load(trained.workdir)
    assert not [event for event in compiled if "backend_compile" in event]
    jax.jit(lambda x: x + 41.5)(np.ones(3))
    assert [event for event in compiled if "backend_compile" in event]
  finally:
    jax.monitoring.clear_event_listeners()


def test_missing_and_damaged_runs(copy):
  with pytest.raises(runs.RunError, match="does not exist"):
    runs.load(copy / "nowhere")
  (copy / "config.json").write_text("{")
  with pytest.raises(runs.RunError, match=r"config\.json is damaged"):
    runs.load(copy)


def test_members_of_a_sweep(trained):
  workdir = trained.workdir.parents[1]
  for path, message in (
    (workdir, r"has no config\.json"),
    (workdir / "typo", "does not exist"),
    (trained.workdir, "is a single run: open it with load"),
  ):
    with pytest.raises(runs.RunError, match=message):
      runs.load_sweep(path)
  unfinished = grid.run(trained.config, {"seed": 4}, workdir)
  summary.write_table(workdir, summary.rows([unfinished, trained]))
  try:
    members = runs.load_sweep(str(workdir))
  finally:
    for path in workdir.glob("table.*"):
      path.unlink()
  assert [m.path for m in members] == [unfinished.workdir, trained.workdir]
  assert [m.row["status"] for m in members] == ["unfinished", "finished"]
  assert [m.row["seed"] for m in members] == [4, 3]
  run = members[1].load()
  assert run.config.seed == 3
  assert members[1].row["loss"] == run.result["loss"]


@pytest.mark.parametrize(
  "damage",
  [
    {"law": np.ones((4, 2))},
    {"law": np.ones((3, 3))},
    {"attention_1": np.ones((4, 2, 6, 6))},
    {"attention_2": np.ones((4, 1, 5))},
    {"attention_3": np.ones((4, 1, 6))},
    {"attention": np.ones((1, 5, 5))},
    {"attention_2": None},
  ],
)
def test_snapshots_of_another_shape_are_refused(tmp_path, copy, damage):
  """Of valid checksums, as a directory from somebody else can have."""
  path = tmp_path / "changed"
  _rewrite(copy, path, runs.read_config(copy))
  runs.load(path)
  (path / "snapshots.jsonl").unlink()
  for step, snapshot in runs.read_snapshots(copy).items():
    arrays = {"attention": snapshot.attention, **snapshot.prompts}
    if step == 2:
      arrays |= damage
    attention = arrays.pop("attention")
    prompts = {name: a for name, a in arrays.items() if a is not None}
    snapshot = snapshot._replace(attention=attention, prompts=prompts)
    runs.append_snapshot(path, step, snapshot)
  with pytest.raises(runs.RunError, match="of step 2 have wrong shapes"):
    runs.load(path)
