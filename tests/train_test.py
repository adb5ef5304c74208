"""Complete runs: files, resuming, seeds, reports, the table of the README."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from configs import several_parents
from configs import single_parent
from configs import standard
from configs import two_stage
from configs import variants
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from experiments.harness import tables
from icl_causal import runs
from icl_causal import training
from icl_causal.config import build
from icl_causal.report import run as report
from tests.support import artifacts

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EDGES = [(1, 0), (2, 0), (3, 1), (4, 2)]  # of _config


def _config(**train_fields):
  config = single_parent.get_config("manual")
  config.train.steps, config.train.eval_every = 256, 64
  config.train.batch_size = 256
  config.eval.update(test_size=2048, batch_size=1024, posterior_prompts=64)
  config.train.update(train_fields)
  build.check(config)
  return config


def _train(config, workdir, figures=False):
  """Trains, and writes the report if it is requested."""
  runs.prepare(workdir, config.to_dict(), overwrite=False)
  run = grid.Run(config, build.graph(config), {}, workdir)
  loop.train_single(run, distributed.this_process(), keep=2)
  if figures:
    report.write(workdir)
  rows = [artifacts.timeless(row) for row in runs.read_metrics(workdir)]
  return artifacts.timeless(runs.read_result(workdir)), rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """(workdir, result, rows) of a run with its report."""
  workdir = tmp_path_factory.mktemp("runs") / "manual"
  result, rows = _train(_config(), workdir, figures=True)
  return workdir, result, rows


def test_the_graph_is_recovered(finished):
  workdir, result, rows = finished
  assert result["edges"] == result["edges_recovered"] == 4
  assert result["false_parents"] == 0
  assert result["steps"] == 256
  assert result["parent_attention_min"] > 0.5
  assert rows[0]["step"] == 0
  assert [row["step"] for row in rows] == [0, 64, 128, 192, 256]
  assert rows[-1]["loss"] == result["loss"] < rows[0]["loss"] - 0.2
  np.testing.assert_allclose(
    result["excess_loss"],
    result["loss"] - result["edge_posterior_loss"],
    atol=1e-5,
  )
  assert result["entropy"] < result["edge_posterior_loss"]
  np.testing.assert_allclose(result["uniform_loss"], np.log(3), rtol=1e-5)
  gap = result["exact_posterior_loss"] - result["edge_posterior_loss"]
  assert abs(gap) < 4 * result["exact_posterior_loss_standard_error"] < 0.1
  np.testing.assert_allclose(
    result["excess_over_exact"],
    result["loss"] - result["exact_posterior_loss"],
    atol=1e-5,
  )
  assert result["exact_posterior_effective_samples"] > 30
  assert (workdir / "report.html").exists()
  for name in ("loss", "attention", "graph", "parameters"):
    for suffix in ("png", "pdf"):
      assert (workdir / "figures" / f"{name}.{suffix}").stat().st_size > 1000


def test_same_seed_same_run_other_seed_other_run(finished, tmp_path):
  _, result, rows = finished
  again, again_rows = _train(_config(), tmp_path / "again")
  assert (again, again_rows) == (result, rows)
  config = _config(steps=64)
  config.seed = 1
  other, _ = _train(config, tmp_path / "other")
  assert other["loss"] != rows[1]["loss"]
  assert other["entropy"] == result["entropy"]  # the same test set


def test_an_interrupted_run_resumes_to_the_same_files(finished, tmp_path):
  """Killed after the evaluation of step 256 and before its checkpoint."""
  workdir, _, _ = finished
  cut = tmp_path / "cut"
  shutil.copytree(workdir, cut)
  for name in ("result.json", "report.html", "checkpoints/256.npz"):
    (cut / name).unlink()
  _train(_config(), cut)
  assert artifacts.by_run(cut) == artifacts.by_run(workdir)


def test_a_damaged_checkpoint_is_reported_and_skipped(
  finished, tmp_path, capsys
):
  workdir, _, _ = finished
  cut = tmp_path / "cut"
  shutil.copytree(workdir, cut)
  (cut / "result.json").unlink()
  path = cut / "checkpoints" / "256.npz"
  path.write_bytes(path.read_bytes()[:10])
  _train(_config(), cut)
  assert "warning: the checkpoint of step 256 can't be used" in (
    capsys.readouterr().err
  )
  assert artifacts.by_run(cut) == artifacts.by_run(workdir)


def test_snapshots_of_early_steps_and_of_every_evaluation_are_kept(finished):
  workdir, result, _ = finished
  snapshots = runs.read_snapshots(workdir)
  early = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]
  assert list(snapshots) == [*early, 64, 96, 128, 192, 256]
  (last_TxT,) = snapshots[256].attention
  np.testing.assert_allclose(last_TxT.sum(axis=1), 1, atol=2e-3)
  scores = [last_TxT[child, parent] for child, parent in EDGES]
  np.testing.assert_allclose(
    np.mean(scores), result["parent_attention_mean"], atol=1e-3
  )


def _report(workdir):
  command = [sys.executable, "-m", "experiments.report"]
  return subprocess.run(
    [*command, f"--workdir={workdir}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_report_redraws_the_same_files(finished, tmp_path):
  """From the directory alone, in another process."""
  redrawn = tmp_path / "redrawn"
  shutil.copytree(finished[0], redrawn)
  before = artifacts.all_bytes(redrawn)
  (redrawn / "report.html").unlink()
  shutil.rmtree(redrawn / "figures")
  done = _report(redrawn)
  assert (done.returncode, done.stderr) == (0, "")
  assert done.stdout == f"{redrawn}/report.html shows the results\n"
  assert artifacts.all_bytes(redrawn) == before


def test_report_refuses_an_unfinished_run(finished, tmp_path):
  unfinished = tmp_path / "unfinished"
  shutil.copytree(finished[0], unfinished)
  (unfinished / "result.json").unlink()
  before = artifacts.all_bytes(unfinished)
  done = _report(unfinished)
  assert done.returncode == 2
  assert done.stderr == (
    f"error: {unfinished} is not finished: it has no result.json\n"
  )
  assert artifacts.all_bytes(unfinished) == before


@pytest.mark.parametrize("parents", [(-1, -1, -1), (-1, 0, -1)])
def test_small_graphs_of_every_kind(parents, tmp_path):
  """Roots only, one edge, S = 2, batch 1."""
  config = _config(steps=2, eval_every=1, batch_size=1)
  config.prior.S, config.graph.parents = 2, parents
  config.eval.test_size, config.eval.batch_size = 64, 64
  result, _ = _train(config, tmp_path / "run", figures=True)
  assert result["edges"] == sum(parent >= 0 for parent in parents)
  assert np.isfinite(result["loss"])


def test_a_run_with_several_parents(tmp_path):
  config = single_parent.get_config("chain")
  config.unlock()
  config.graph = {"name": "half_and_previous", "T": 6}
  config.prior.update(S=2, root_law="dirichlet")
  config.model.heads = (2, 1)
  config.train.update(steps=2, eval_every=1, batch_size=8)
  config.eval.update(test_size=64, batch_size=64)
  build.check(config)
  result, _ = _train(config, tmp_path / "run")
  assert result["edges"] == 8
  # The law of the roots is independent of the kernel.
  assert result["exact_posterior_loss"] == pytest.approx(
    result["edge_posterior_loss"], abs=1e-6
  )
  assert result["excess_over_exact"] == pytest.approx(
    result["excess_loss"], abs=1e-6
  )


def test_a_run_of_the_standard_transformer(tmp_path):
  config = standard.get_config("modern")
  config.graph.T, config.prior.S = 5, 3
  config.train.update(steps=64, eval_every=32, batch_size=64)
  config.eval.update(test_size=1024, batch_size=1024, posterior_prompts=0)
  build.check(config)
  result, rows = _train(config, tmp_path / "run", figures=True)
  assert rows[0]["loss"] == pytest.approx(np.log(3))
  assert result["loss"] < rows[0]["loss"] - 0.01
  for name in ("loss", "attention", "graph", "parameters"):
    assert (tmp_path / f"run/figures/{name}.png").stat().st_size > 1000


def test_readme_shows_the_output_of_the_demo():
  demo = json.loads((ROOT / "docs/demo/result.json").read_text())
  shown = README.split("<!-- demo -->")[1].split("<!-- /demo -->")[0]
  assert textwrap.dedent(shown).strip() == tables.result_table(demo)


def test_nothing_is_pickled():
  """Except by submitit, which passes the number of a batch to Slurm."""
  loading = set()
  for folder in ("icl_causal", "experiments", "configs"):
    for path in (ROOT / folder).rglob("*.py"):
      # The argument of np.load may have parentheses inside.
      text, num_loads = re.subn(
        r"\bnp\.load\((?:[^()]|\([^()]*\))*, allow_pickle=False\)",
        "",
        path.read_text(),
      )
      assert not re.search(r"pickle|\bnp\.load\(", text), path
      if num_loads:
        loading.add(str(path.relative_to(ROOT)))
  assert loading == {"icl_causal/runs/checkpoints.py"}


CONFIGS = [
  (module, f"{variant},{tier}")
  for module in (single_parent, several_parents, standard, two_stage)
  for variant in module.VARIANTS
  for tier in getattr(module, "TIERS", variants.TIERS)
]


@pytest.mark.parametrize(("module", "variant_and_tier"), CONFIGS)
def test_every_config_is_accepted(module, variant_and_tier):
  config = module.get_config(variant_and_tier)
  build.check(config)
  graph = build.graph(config)
  model = build.model(config, graph)
  state = training.init(
    jax.random.key(0), model, build.optimizer(config, model)
  )
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
