"""The comparison of recipes, on small tasks."""

import pytest

from configs import recipes as recipes_configs
from experiments import recipes
from experiments.harness import loop
from experiments.harness import signals
from experiments.harness import suite
from icl_causal.config import build

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("task", recipes_configs.TASKS)
def test_every_recipe_is_accepted(task, tmp_path):
  config = recipes_configs.get_config(task)
  runs_of = recipes.planned(config, tmp_path)
  num_runs = len(config.seeds) * max(len(config.graph_seeds), 1)
  assert len(config.seeds) >= 3
  assert {len(group) for group in runs_of.values()} == {num_runs}
  for run, *_ in runs_of.values():
    build.optimizer(run.config, build.model(run.config, run.graph))
  names = [run.name for group in runs_of.values() for run in group]
  assert len(set(names)) == len(names)


def _small(task, steps):
  config = recipes_configs.get_config(task).unlock()
  config.base.graph.T, config.base.prior.S = 6, 2
  config.base.eval.update(test_size=32, batch_size=16)
  config.base.eval.update(posterior_prompts=8, posterior_samples=16)
  small = {"steps": steps, "eval_every": steps // 2, "batch_size": 8}
  config.recipes = tuple(
    (name, model, {**train, **small})
    for name, model, train in config.recipes[:2]
  )
  return config


@pytest.mark.parametrize("task", ["forests", "standard_pairs"])
def test_a_table_of_all_recipes(task, tmp_path):
  config = _small(task, 8)
  config.seeds = (1, 2)
  if task == "forests":
    config.seeds, config.graph_seeds = (1,), (3, 4)
  runs_of = recipes.planned(config, tmp_path)
  suite.train(runs_of, signals.never, at_once=1)
  header, rows = recipes.table(runs_of)
  assert [row[0] for row in rows] == [name for name, *_ in config.recipes]
  assert all(len(row) == len(header) for row in rows)
  for row in rows:
    asymmetry = row[header.index("asymmetry")]
    assert asymmetry == "-" if task != "forests" else 0 <= asymmetry <= 1


def test_the_table_of_a_latent_graph_has_the_gap_to_bayes(tmp_path):
  config = recipes_configs.get_config("lags").unlock()
  config.base.graph.T = 8
  config.base.eval.update(test_size=32, batch_size=16, posterior_prompts=32)
  small = {"steps": 8, "eval_every": 4, "batch_size": 8}
  config.seeds = (1, 2)
  config.recipes = tuple(
    (name, {**model, "heads": (1, 1)}, {**train, **small})
    for name, model, train in config.recipes[3:5]
  )
  runs_of = recipes.planned(config, tmp_path)
  prompts = {run.config.eval.seed for run in runs_of[config.recipes[0][0]]}
  assert prompts == {1, 2}
  suite.train(runs_of, signals.never, at_once=1)
  header, rows = recipes.table(runs_of)
  for (name, *_), cells in zip(config.recipes, rows, strict=True):
    row = dict(zip(header, cells, strict=True))
    gaps = [
      result["excess_over_exact"]
      for result in suite.read_results(runs_of[name])
    ]
    assert (row["recipe"], row["runs"], row["steps"]) == (name, 2, 8)
    assert row["gap to Bayes"] == pytest.approx(sum(gaps) / 2)
    assert row["std. error"] == pytest.approx(abs(gaps[0] - gaps[1]) / 2)
    assert (row["least"], row["largest"]) == (min(gaps), max(gaps))
  assert rows[0][2] != rows[1][2]


def test_steps_of_a_film():
  assert recipes.film_steps(2048) == [16, 64, 256, 1024, 2048]
  assert recipes.film_steps(1024) == [16, 64, 256, 1024]


def test_a_film_shows_the_training_of_the_run(tmp_path):
  config = _small("half", 64)
  config.seeds = (1,)
  name = config.recipes[1][0]
  (run,) = recipes.planned(config, tmp_path)[name]
  loop.train_batch([run], 1)
  figure = recipes.draw({name: run})
  labels = [axes.get_xlabel() for axes in figure.axes if axes.axison]
  assert labels == ["graph", "step 16", "step 64"]
