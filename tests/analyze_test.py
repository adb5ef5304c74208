import csv
import os
import pathlib
import subprocess
import sys

import pytest

from configs import latent
from configs import several_parents
from configs import single_parent
from configs import standard
from configs import two_stage
from experiments import analyze
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from icl_causal import config as configs
from icl_causal import graphs
from icl_causal import runs
from icl_causal.analysis import gradient
from icl_causal.config import build

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]


def _analyze(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.analyze", *arguments],
    cwd=ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_a_run_of_algorithm_1(tmp_path):
  config = two_stage.get_config("forest")
  parents = (-1, 0, 1, -1, 3, 2, -1)
  config.graph = {"name": "manual", "parents": parents, "target": ()}
  config.train.update(steps=4, eval_every=4)
  config.eval.test_size = config.eval.batch_size = 64
  runs.prepare(tmp_path, config.to_dict(), overwrite=False)
  run = grid.Run(config, build.graph(config), {}, tmp_path)
  loop.train_single(run, distributed.this_process(), keep=4)
  done = _analyze(f"--workdir={tmp_path}", "--num_prompts=16384")
  assert done.returncode == 0, done.stderr
  fits = [line.split() for line in done.stdout.splitlines()[1:3]]
  assert [row[0] for row in fits] == ["0", "4"]
  assert float(fits[0][1]) > 0.97
  assert 0.8 < float(fits[0][2]) < 1.3
  assert fits[0][4:] == ["4", "of", "4"]
  for name in ("Shannon", "chi-squared", "attention, step 4"):
    (line,) = (row for row in done.stdout.splitlines() if name in row)
    assert "4 of 4" in line
  for step in (0, 4):
    assert (tmp_path / f"figures/gradient_{step}.png").exists()
  with open(tmp_path / "analysis/gradient_0.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 7 * 8 / 2
  assert [
    (int(r["child"]), int(r["candidate"])) for r in rows if r["edge"] == "1"
  ] == graphs.edges(build.graph(config))


def test_zero_start_has_no_gradient(tmp_path):
  config = single_parent.get_config("manual,paper")
  config.train.batch_size = config.eval.batch_size = 64
  runs.prepare(tmp_path, config.to_dict(), overwrite=False)
  run = runs.load(tmp_path)
  assert run.params == {}
  measured, error = analyze.measure(run, 128)(run.start)
  assert (measured == 0).all()
  predicted = analyze.expected(run)["gradient, closed form"]
  fit = gradient.fit(measured, error, predicted, run.graph)
  assert fit[:3] == (None, None, None)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "--workdir is missing"),
    (["--workdir=none"], "none does not exist: no run has been there"),
    (["--workdir=tests"], "tests has no config.json"),
  ],
)
def test_refused(arguments, message):
  done = _analyze(*arguments)
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: {message}")
  assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (standard.get_config("chain"), "the closed form is for position blocks"),
    (several_parents.get_config("half"), "the closed form is for single par"),
    (latent.get_config("lags"), "the closed form is for position blocks"),
    (
      configs.load(
        latent,
        "lags",
        **{"model.name": "autoregressive", "model.heads": (1, 1)},
      ),
      "the closed form is for one graph and a loss",
    ),
    (
      configs.load(
        single_parent,
        "chain",
        **{"model.name": "autoregressive", "eval.posterior_prompts": 0},
      ),
      "the closed form is for one graph and a loss at the last position",
    ),
  ],
)
def test_runs_without_a_closed_form_are_refused(config, message, tmp_path):
  runs.prepare(tmp_path, config.to_dict(), overwrite=False)
  done = _analyze(f"--workdir={tmp_path}")
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: {tmp_path}: {message}")
  assert done.stderr.count("\n") == 1
