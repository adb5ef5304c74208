"""Sweeps: every member equals the run that `experiments.train` trains alone."""

import csv
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.harness import distributed
from experiments.harness import loop
from experiments.harness import program
from experiments.harness import traced
from experiments.sweep import summary
from icl_causal import runs
from tests.support import artifacts
from tests.support import small_sweeps

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """(workdir, runs, table) of a sweep."""
  workdir = tmp_path_factory.mktemp("sweep") / "run"
  planned = small_sweeps.train(small_sweeps.config(), workdir)
  return workdir, planned, summary.rows(planned)


def test_every_member_equals_the_run_alone(finished, tmp_path):
  _, planned, table = finished
  assert [row["graph.seed"] for row in table] == [0, 0, 1, 1, 2, 2]
  for r in (0, 4):
    run = planned[r]._replace(workdir=tmp_path / str(r))
    runs.prepare(run.workdir, run.config.to_dict(), overwrite=False)
    loop.train_single(run, distributed.this_process())
    alone, member = runs.read_result(run.workdir), table[r]
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
        traced.run_inputs(run.config, run.graph)
      )
    )
    dirs = run.workdir, planned[r].workdir
    states = [runs.load_state(workdir, start)[0] for workdir in dirs]
    snapshots = [runs.read_snapshots(workdir) for workdir in dirs]
    assert list(snapshots[0]) == [0, 1, 2, 3, 4]
    for pair in (states, snapshots):
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        *pair,
      )


def test_members_that_are_not_finite_fail_and_the_others_continue(finished):
  _, _, table = finished
  assert [row["status"] for row in table[::2]] == ["finished"] * 3
  for row in table[1::2]:
    assert row["status"].startswith("the test loss is not finite at step ")
    assert "loss" not in row


def test_the_table_has_every_run_and_its_point(finished, tmp_path):
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
  summary.write_figures(tmp_path / "run", small_sweeps.config(), planned)
  for name in ("curves", "map"):
    assert (tmp_path / "run/figures" / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize(
  "moment", ["between states", "while saving states", "while finishing"]
)
def test_an_interrupted_sweep_resumes_to_the_same_files(
  finished, tmp_path, moment
):
  """As a kill leaves it between two writes, in the order of the loop."""
  workdir, planned, _ = finished
  cut = tmp_path / "cut"
  shutil.copytree(workdir, cut)
  first, *others = [cut / "members" / run.name for run in planned]
  if moment != "while finishing":
    (first / "result.json").unlink()
  if moment == "between states":
    (first / "checkpoints" / "4.npz").unlink()
  for member in others:
    (member / "result.json").unlink(missing_ok=True)
    if moment != "while finishing":
      (member / "checkpoints" / "4.npz").unlink(missing_ok=True)
  small_sweeps.train(small_sweeps.config(), cut)
  assert artifacts.by_sweep(cut) == artifacts.by_sweep(workdir)


def test_load_sweep_opens_the_members(finished, tmp_path):
  workdir, planned, table = finished
  shutil.copytree(workdir, tmp_path / "run")
  summary.write_table(tmp_path / "run", table)
  members = runs.load_sweep(tmp_path / "run")
  assert [member.row for member in members] == table
  opened = members[4].load()
  assert opened.config.graph.seed == 2
  assert opened.result == runs.read_result(planned[4].workdir)


def test_cells_of_the_table_are_no_formulas(tmp_path):
  row = {"run": "=1+1", "status": "@SUM(A1)", "loss": -0.5, "name": "-x"}
  summary.write_table(tmp_path, [row, row | {"run": "+1", "name": "\tx"}])
  text = (tmp_path / "table.csv").read_text()
  assert text == (
    "run,status,loss,name\n'=1+1,'@SUM(A1),-0.5,'-x\n'+1,'@SUM(A1),-0.5,'\tx\n"
  )
  rows = (tmp_path / "table.jsonl").read_text().splitlines()
  assert json.loads(rows[0]) == row


def test_a_finished_sweep_trains_a_member_whose_result_is_lost(tmp_path):
  config = tmp_path / "small.py"
  config.write_text(
    "from tests.support import small_sweeps\n"
    "def get_config():\n"
    "  return small_sweeps.config({'graph': {'seed': (0, 1)}})\n"
  )
  workdir = tmp_path / "run"

  def sweep():
    command = [sys.executable, "-m", "experiments.sweep"]
    command += [f"--config={config}", f"--workdir={workdir}"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)

  sweep()
  lost = min((workdir / "members").iterdir()) / "result.json"
  before = json.loads(lost.read_text())
  lost.unlink()
  sweep()
  assert json.loads(lost.read_text())["loss"] == before["loss"]
