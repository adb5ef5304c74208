"""Sweeps: every member is the run that `experiments.train` would have done."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from configs import many_graphs
from configs import single_parent
from experiments import batch
from experiments import build
from experiments import clocks
from experiments import plan
from experiments import program
from experiments import summary
from experiments import train
from experiments.cli import Refused
from experiments.stopping import Stopped
from icl_causal import runs


def _config(grid, random=None, samples=1):
  config = single_parent.get_config("random")
  config.graph.T, config.prior.S = 6, 3
  config.train.update(steps=4, eval_every=2, batch_size=32)
  config.eval.test_size = config.eval.batch_size = 64
  config.sweep = {
    "grid": grid,
    "random": random or {},
    "samples": samples,
    "seed": 0,
  }
  return config


GRID = {
  "graph": {"seed": (0, 1, 2)},
  "train": {"learning_rate": (0.1, 1e38)},
}


def _sweep(config, workdir, largest=4, parallel=2):
  planned = plan.every_run(config)
  runs.prepare(workdir, config.to_dict(), overwrite=False)
  for together in plan.batches(planned, largest):
    batch.train(together, workdir, parallel)
  return planned, summary.rows(workdir, planned)


def _left(workdir):
  """All that runs left behind, but for the times."""
  left = {}
  for home in sorted((workdir / "members").iterdir()):
    left[home.name, "rows"] = _timeless(runs.read_metrics(home))
    for name in ("result.json", "failed.json"):
      if (home / name).exists():
        (left[home.name, name],) = _timeless(
          [json.loads((home / name).read_text())]
        )
  return left


def _timeless(rows):
  return [
    {k: v for k, v in row.items() if k not in clocks.TIMES} for row in rows
  ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("sweep") / "run"
  return workdir, *_sweep(_config(GRID), workdir)


def test_every_member_is_the_run_alone(finished, tmp_path):
  workdir, planned, table = finished
  assert [row["graph.seed"] for row in table] == [0, 0, 1, 1, 2, 2]
  for r in (0, 4):
    run, home = planned[r], tmp_path / str(r)
    runs.prepare(home, run.config.to_dict(), overwrite=False)
    train.train(run.config, run.graph, home)
    alone, member = runs.read_result(home), table[r]
    for name in (
      "loss",
      "entropy",
      "excess_loss_standard_error",
      "edges",
      "exact_posterior_loss",
      "excess_over_exact_standard_error",
    ):
      np.testing.assert_allclose(member[name], alone[name], rtol=1e-5)
    start = jax.eval_shape(
      lambda run=run: program.program(run.config).start(
        program.member(run.config, run.graph)
      )
    )
    states = [
      runs.load_state(folder, start)[0]
      for folder in (home, batch.folder(workdir, run))
    ]
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      *states,
    )


def test_what_is_not_finite_is_marked_and_the_others_go_on(finished):
  _, _, table = finished
  assert [row["status"] for row in table[::2]] == ["finished"] * 3
  for row in table[1::2]:
    assert row["status"].startswith("the loss is not finite at step ")
    assert "loss" not in row


def test_table_holds_every_run_and_its_point(finished, tmp_path):
  _, planned, table = finished
  summary.write_table(tmp_path, table)
  lines = (tmp_path / "table.jsonl").read_text().splitlines()
  assert [json.loads(line) for line in lines] == table
  with open(tmp_path / "table.csv", newline="") as file:
    read = list(csv.DictReader(file))
  assert [row["run"] for row in read] == [run.name for run in planned]
  assert [float(row["train.learning_rate"]) for row in read] == [0.1, 1e38] * 3
  assert float(read[0]["loss"]) == table[0]["loss"]
  totals = summary.totals(table)
  assert (totals["runs"], totals["finished"]) == (6, 3)
  assert totals["edges"] == sum(row["edges"] for row in table[::2])
  header, rows = summary.columns(planned, table)
  assert header[:3] == ["run", "graph.seed", "train.learning_rate"]
  assert rows[1][-1] == "-"


def test_figures_of_a_sweep(finished, tmp_path):
  workdir, planned, _ = finished
  shutil.copytree(workdir, tmp_path / "run")
  summary.write_figures(tmp_path / "run", _config(GRID), planned)
  for name in ("curves", "map"):
    assert (tmp_path / "run/figures" / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize("when", ["between checkpoints", "while finishing"])
def test_a_sweep_cut_off_goes_on_to_the_same_end(finished, tmp_path, when):
  workdir, planned, _ = finished
  cut = tmp_path / "cut"
  shutil.copytree(workdir, cut)
  first, *others = [batch.folder(cut, run) for run in planned]
  if when == "between checkpoints":
    for saved in (cut / "batches").iterdir():
      shutil.rmtree(saved / "checkpoints" / "4")
    others.append(first)
  for home in others:
    (home / "result.json").unlink(missing_ok=True)
  _sweep(_config(GRID), cut)
  assert _left(cut) == _left(workdir)


def test_a_sweep_asked_to_stop_goes_on_to_the_same_end(finished, tmp_path):
  """Also where its runs are divided into other batches than before."""
  workdir, planned, _ = finished
  with pytest.raises(Stopped, match="4 runs stopped at step 2 of 4"):
    batch.train(planned[:4], tmp_path / "run", 2, stop=lambda: True)
  for together in plan.batches(planned, 4):
    batch.train(together, tmp_path / "run", 2)
  assert _left(tmp_path / "run") == _left(workdir)


def test_a_run_of_a_batch_that_another_batch_began_anew(finished, tmp_path):
  """Its rows are not those of the state that the first batch has."""
  workdir, planned, _ = finished
  with pytest.raises(Stopped):
    batch.train(planned, tmp_path / "run", 2, stop=lambda: True)
  for run, kept in ((planned[2], 0), (planned[4], -1)):  # as a kill leaves it
    runs.cut_metrics(batch.folder(tmp_path / "run", run), kept)
  batch.train(planned, tmp_path / "run", 2)
  assert _left(tmp_path / "run") == _left(workdir)


def test_a_batch_is_trained_by_one_process(finished, tmp_path):
  _, planned, _ = finished
  name = runs.digest({"runs": [run.name for run in planned[:2]]})
  with (
    runs.held(tmp_path / "batches" / name),
    pytest.raises(runs.RunError, match=f"{name} is in use by process"),
  ):
    batch.train(planned[:2], tmp_path, 2)


def test_what_is_finished_is_not_trained_again(finished, monkeypatch):
  workdir, _, table = finished
  monkeypatch.setattr(batch, "compile_batch", None)  # can't be called
  assert _sweep(_config(GRID), workdir)[1] == table


def test_batches_are_of_one_program_and_not_too_large():
  # Fields of a grid are taken in the order of their names.
  grid = {
    "eval": {"batch_size": (16, 32)},
    "graph": {"seed": tuple(range(5))},
  }
  planned = plan.every_run(_config(grid))
  found = plan.batches(planned, 3)
  assert [len(together) for together in found] == [3, 2, 3, 2]
  assert [run for together in found for run in together] == planned
  for together in found:
    assert len({run.config.eval.batch_size for run in together}) == 1


def test_fewer_runs_at_once_where_memory_is_short(monkeypatch):
  planned = plan.every_run(_config({"graph": {"seed": (0, 1, 2)}}))
  asked = []

  def needed(compiled):
    asked.append(compiled)
    return 3 if len(asked) <= 2 else 1

  monkeypatch.setattr(batch, "_bytes", needed)
  monkeypatch.setattr(batch, "_memory", lambda mesh: 2)
  compiled = batch.compile_batch(planned, parallel=3)
  # Two functions at parallel 3 and two at 2, where three runs are padded to 4.
  assert len(asked) == 4
  assert compiled.own.values["seed"].shape == (4,)


def test_a_random_search_has_as_many_runs_as_samples_at_every_point():
  config = _config(
    {"seed": (0, 1)}, {"train": {"learning_rate": ("log", 1.0, 100.0)}}, 3
  )
  planned = plan.every_run(config)
  rates = [run.config.train.learning_rate for run in planned]
  assert rates[:3] == rates[3:]
  assert len(set(rates)) == 3
  assert 1 < min(rates) < max(rates) < 100
  assert [run.config.seed for run in planned] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
  ("grid", "random", "samples", "message"),
  [
    ({"graph": {"sed": (0,)}}, {}, 1, "sweep: graph.sed is no field of the"),
    ({"seed": 3}, {}, 1, "sweep.grid.seed = 3: must be a tuple of values"),
    ({"seed": ()}, {}, 1, r"sweep.grid.seed = \(\): must be a tuple of values"),
    ({"seed": (0, 0)}, {}, 1, "sweep: two runs are the same"),
    ({"seed": (0, -1)}, {}, 1, "seed = -1: must be an integer from 0"),
    ({"prior": {"alpha": (1.0, "a")}}, {}, 1, "prior.alpha = 'a': must be a n"),
    (
      {"seed": (0, 1)},
      {},
      2,
      "sweep.samples = 2: must be 1 where",
    ),
    (
      {},
      {"prior": {"alpha": ("log", 0.0, 1.0)}},
      2,
      "sweep.random.prior.alpha",
    ),
    ({}, {"prior": {"alpha": (0.1, 0.2)}}, 2, "sweep.random.prior.alpha = "),
    ({}, {"prior": {"alpha": 0.1}}, 2, "sweep.random.prior.alpha = 0.1: "),
  ],
)
def test_sweeps_that_are_refused(grid, random, samples, message):
  with pytest.raises(Refused, match="^" + message):
    plan.every_run(_config(grid, random, samples))


@pytest.mark.parametrize("variant", many_graphs.VARIANTS)
def test_the_configs_are_accepted(variant):
  planned = plan.every_run(many_graphs.get_config(variant))
  assert len(plan.batches(planned, 256)) == 1
  assert build.check(planned[0].config) is None


def test_eight_devices_sweep_as_one_does_and_never_speak():
  """13 runs, 100 steps each; what differs is the order of sums."""
  script = """
    import re
    import jax
    import numpy as np
    from experiments import batch
    from experiments import plan
    from icl_causal import sweeps
    from tests import sweep_test

    grid = {"graph": {"seed": tuple(range(13))}}
    config = sweep_test._config(grid)
    config.train.update(steps=100, eval_every=100)
    planned = plan.every_run(config)
    everything = jax.local_devices()
    assert len(everything) == 8
    found = {}
    for num in (1, 8):
      jax.local_devices = lambda num=num: everything[:num]
      compiled = batch.compile_batch(planned, parallel=8)
      assert len(compiled.own.values["seed"].sharding.device_set) == num
      state, (losses, _) = compiled.take_steps(compiled.own, compiled.start)
      assert losses.shape == ({1: 14, 8: 16}[num], 100)
      found[num] = [losses[:13], jax.tree.map(lambda a: a[:13], state.params)]
      text = compiled.take_steps.as_text()
      assert "while" in text
      spoken = re.findall(r"all-\\w+|collective-\\w+|reduce-scatter", text)
      assert not spoken, spoken
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found.values()
    )
  """
  eight = " --xla_force_host_platform_device_count=8"
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(script)],
    cwd=pathlib.Path(__file__).parents[1],
    env={**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"] + eight},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
