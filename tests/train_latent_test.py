"""Complete runs with a latent graph, or with a loss at every position."""

import shutil

import jax
import numpy as np
import pytest

from configs import latent as configs_latent
from configs import single_parent
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from icl_causal import config as configs
from icl_causal import latent
from icl_causal import running
from icl_causal import runs
from icl_causal.config import build
from icl_causal.report import run as report
from tests.support import artifacts

pytestmark = pytest.mark.slow

KERNEL = ((0.9, 0.05, 0.05), (0.05, 0.05, 0.9), (0.1, 0.8, 0.1))
SMALL = {
  "model.heads": (2, 1),
  "train.steps": 4,
  "train.eval_every": 2,
  "train.batch_size": 16,
  "eval.test_size": 64,
  "eval.batch_size": 32,
  "eval.posterior_prompts": 64,
}


def _config(variant="lags", module=configs_latent, **changes):
  if variant == "lags":
    of_task = {"graph.T": 6, "prior.S": 3, "prior.kernel": KERNEL}
    changes = of_task | changes
  return configs.load(module, variant, **SMALL | changes)


def _run(config, workdir):
  runs.prepare(workdir, config.to_dict(), overwrite=False)
  return grid.Run(config, build.graph(config), {}, workdir)


def _train(config, workdir):
  loop.train_single(_run(config, workdir), distributed.this_process(), keep=2)
  return runs.read_result(workdir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """(workdir, result) of a run with its report."""
  workdir = tmp_path_factory.mktemp("runs") / "lags"
  result = _train(_config(), workdir)
  report.write(workdir)
  return workdir, result


def test_the_excess_is_over_the_bayes_predictor(finished):
  """Averaged over the positions of the test prompts, from scratch."""
  workdir, result = finished
  run = runs.load(workdir)
  test = run.prompts(64)
  kernel = run.prior(jax.random.key(0), 3, 1)

  @jax.jit
  @jax.vmap
  def bayes(x_T):
    return latent.model_average(x_T, run.graph, kernel, 3, every=True)

  def loss(f_NxTxS):
    return -(np.asarray(test.y_S) * np.log(f_NxTxS)).sum(axis=2).mean()

  exact = loss(bayes(test.x_T))
  model = loss(run.apply(run.newest, test.x_T)[0])
  assert result["loss"] == pytest.approx(model, abs=1e-5)
  assert result["exact_posterior_loss"] == pytest.approx(exact, abs=1e-5)
  assert result["excess_over_exact"] == pytest.approx(model - exact, abs=1e-5)
  assert result["excess_over_exact"] > 0.1
  assert result["exact_posterior_bias"] == 0
  assert result["entropy"] < result["exact_posterior_loss"]
  assert result["edge_posterior_loss"] is None
  assert result["dirichlet_edge_posterior_loss"] > result["entropy"]
  assert result["uniform_loss"] == pytest.approx(np.log(3), abs=1e-5)
  # No edge is in the graphs of both lags.
  assert result["edges"] == 0


def test_runs_load_opens_it(finished):
  workdir, result = finished
  run = runs.load(workdir)
  assert not run.warnings
  assert run.graph.parents_TxK.shape == (3, 6, 1)
  assert run.model.every
  assert run.history[-1]["loss"] == result["loss"] < run.history[0]["loss"]
  prompts = run.prompts(5)
  assert prompts.y_S.shape == (5, 6, 3)
  assert prompts.graph_index.shape == (5,)
  f_BxTxS, out = run.apply(run.newest, prompts.x_T)
  assert f_BxTxS.shape == (5, 6, 3)
  assert out["attention_2"].shape == (5, 1, 6, 6)
  last = run.snapshots[4]
  assert last.attention.shape == (2, 6, 6)
  assert last.prompts["law"].shape == (4, 3)
  assert last.prompts["attention_2"].shape == (4, 1, 6, 6)
  np.testing.assert_allclose(last.prompts["law"], f_BxTxS[:4, -1], atol=2e-3)
  names = {"uniform", "unigram", "exact_posterior"}
  assert set(last.phase.weights) <= names
  assert sum(last.phase.weights.values()) == pytest.approx(1, abs=1e-4)


def test_the_report_has_the_page_and_the_figures(finished):
  workdir, _ = finished
  assert (workdir / "report.html").stat().st_size > 10_000
  for name in ("loss", "phases", "attention", "graph", "parameters"):
    assert (workdir / f"figures/{name}.png").stat().st_size > 1000


def test_an_interrupted_run_resumes_to_the_same_files(finished, tmp_path):
  workdir, _ = finished
  cut = tmp_path / "cut"
  shutil.copytree(workdir, cut)
  for name in ("result.json", "report.html", "checkpoints/4.npz"):
    (cut / name).unlink()
  _train(_config(), cut)
  assert artifacts.by_run(cut) == artifacts.by_run(workdir)


def test_runs_of_one_program_equal_single_runs(finished, tmp_path):
  """Two seeds, each with test prompts of its own."""
  workdir, _ = finished
  planned = [
    grid.run(_config(), {"seed": seed, "eval.seed": seed}, tmp_path)
    for seed in (0, 1)
  ]
  for run in planned:
    runs.prepare(run.workdir, run.config.to_dict(), overwrite=False)
  assert len(grid.divide(planned, 2)) == 1
  loop.train_batch(planned, 2)
  alone = runs.read_result(workdir)
  first, second = (runs.read_result(run.workdir) for run in planned)
  for name in ("loss", "excess_over_exact", "exact_posterior_loss", "entropy"):
    assert first[name] == pytest.approx(alone[name], abs=1e-5)
    assert second[name] != pytest.approx(alone[name], abs=1e-4)


@pytest.mark.parametrize(
  ("variant", "changes", "edges"),
  [
    ("fresh", {"graph.T": 6}, 0),
    # The second token of each example is a child of the first.
    ("trees", {"graph.num_examples": 2, "graph.length": 3}, 3),
    ("lags", {"model.name": "relative", "model.reach": 4}, 0),
    ("lags", {"graph.lags": (2,)}, 4),
  ],
)
def test_other_tasks_train(variant, changes, edges, tmp_path):
  config = _config(variant, **changes | {"train.steps": 2})
  result = _train(config, tmp_path / "run")
  assert result["edges"] == edges
  for name in ("loss", "excess_over_exact", "parent_attention_mean"):
    is_none = name == "parent_attention_mean" and not edges
    assert is_none or np.isfinite(result[name])
  assert result["excess_over_exact"] > 0
  assert (result["excess_loss"] is None) == (variant != "fresh")
  if variant == "trees" or config.model.name == "relative":
    report.write(tmp_path / "run")
    assert (tmp_path / "run/report.html").exists()


def test_a_last_position_model_of_a_latent_graph(tmp_path):
  """The baselines are those of the last position."""
  changes = {"model.name": "disentangled", "model.beta0": 0.0}
  result = _train(_config(**changes, **{"train.steps": 2}), tmp_path / "run")
  run = runs.load(tmp_path / "run")
  test = run.prompts(64)
  assert test.y_S.shape == (64, 3)
  kernel = run.prior(jax.random.key(0), 3, 1)
  f_NxS = jax.jit(
    jax.vmap(lambda x_T: latent.model_average(x_T, run.graph, kernel, 3))
  )(test.x_T)
  exact = -(np.asarray(test.y_S) * np.log(f_NxS)).sum(axis=1).mean()
  assert result["exact_posterior_loss"] == pytest.approx(exact, abs=1e-5)
  report.write(tmp_path / "run")


def test_one_graph_with_a_loss_at_every_position(tmp_path):
  """The Bayes predictor is the edge posterior so far."""
  config = _config(
    "chain",
    single_parent,
    **{
      "graph.T": 6,
      "prior.S": 3,
      "prior.root_law": "uniform",
      "model.name": "autoregressive",
      "train.learning_rate": 0.1,
    },
  )
  result = _train(config, tmp_path / "run")
  run = runs.load(tmp_path / "run")
  test = run.prompts(64)
  f_NxTxS = jax.jit(
    jax.vmap(lambda x_T: running.edge_posterior(x_T, run.graph, 0.1, 3))
  )(test.x_T)
  edge = -(np.asarray(test.y_S) * np.log(f_NxTxS)).sum(axis=2).mean()
  assert result["edges"] == 4
  assert result["edge_posterior_loss"] == pytest.approx(edge, abs=1e-5)
  assert result["exact_posterior_loss"] == pytest.approx(edge, abs=1e-5)
  assert result["excess_loss"] == pytest.approx(result["loss"] - edge, abs=1e-5)
  assert result["excess_over_exact"] == pytest.approx(
    result["excess_loss"], abs=1e-5
  )
  assert result["excess_loss"] > 0
  report.write(tmp_path / "run")
