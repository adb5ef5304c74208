"""The comparison of recipes, on tasks made small."""

import pytest

from configs import recipes as recipes_configs
from experiments import build
from experiments import paper
from experiments import recipes
from experiments import stopping


@pytest.mark.parametrize("task", recipes_configs.TASKS)
def test_every_recipe_is_accepted(task):
  config = recipes_configs.get_config(task)
  runs_of = recipes.planned(config)
  num_runs = len(config.seeds) * max(len(config.graph_seeds), 1)
  assert len(config.seeds) >= 3
  assert {len(group) for group in runs_of.values()} == {num_runs}
  for group in runs_of.values():
    build.optimizer(group[0].config)
  names = [run.name for group in runs_of.values() for run in group]
  assert len(set(names)) == len(names)


@pytest.mark.parametrize("task", ["forests", "standard_pairs"])
def test_a_table_of_all_recipes(task, tmp_path):
  config = recipes_configs.get_config(task).unlock()
  config.base.graph.T, config.base.prior.S = 6, 2
  config.base.eval.update(test_size=32, batch_size=16, posterior_prompts=8)
  config.seeds = (1, 2)
  if task == "forests":
    config.seeds, config.graph_seeds = (1,), (3, 4)
  small = {"steps": 8, "eval_every": 4, "batch_size": 8}
  config.recipes = tuple(
    (name, model, {**train, **small})
    for name, model, train in config.recipes[:1]
  )
  runs_of = recipes.planned(config)
  paper.train(runs_of, tmp_path, stopping.never, parallel=1)
  header, rows = recipes.table(runs_of, tmp_path)
  assert [row[0] for row in rows] == [name for name, *_ in config.recipes]
  assert all(len(row) == len(header) for row in rows)
  for row in rows:
    asymmetry = row[header.index("asymmetry")]
    assert asymmetry == "-" if task != "forests" else 0 <= asymmetry <= 1
