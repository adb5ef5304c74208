"""The figures command on experiments made small."""

import json
import types

import pytest

from configs import random_forests
from configs import several_parents
from configs import single_parent
from configs import standard
from experiments import figures
from experiments import paper
from experiments import stopping
from experiments import verify
from icl_causal import runs


def _small(module):
  def get_config(variant_and_tier):
    config = module.get_config(variant_and_tier).unlock()
    if "T" in config.graph:
      config.graph.T = 6
    if "sweep" in config:
      config.sweep.grid.graph.seed = (3, 4)
    config.prior.S = 2
    config.train.update(steps=8, eval_every=4, batch_size=8)
    if "turn_steps" in config.train:
      config.train.update(turn_steps=1, joint_steps=1)
    if config.model.name == "standard":
      config.model.width = 8
    config.eval.update(test_size=32, batch_size=16, posterior_prompts=8)
    return config

  return types.SimpleNamespace(get_config=get_config)


@pytest.fixture
def small(monkeypatch):
  modules = {
    module: _small(module)
    for module in (single_parent, several_parents, standard, random_forests)
  }
  smaller = {
    name: (modules[module], variant)
    for name, (module, variant) in paper._CONFIGS.items()
  }
  monkeypatch.setattr(paper, "_CONFIGS", smaller)


def test_every_experiment_is_in_one_figure():
  shown = [name for names in paper.FIGURES.values() for name in names]
  assert sorted(shown) == sorted(paper._CONFIGS)


@pytest.mark.parametrize("number", ["7", "9"])
def test_draws_what_is_trained_and_trains_what_is_missing(
  number, small, tmp_path
):
  runs_of = {
    name: paper.planned(name, "quick", 2) for name in paper.FIGURES[number]
  }
  workdir, results = tmp_path / "runs", tmp_path / "results"
  paper.train(runs_of, workdir, stopping.never, parallel=1)
  drawn = figures.figures_of(number, runs_of, workdir)
  assert set(drawn) == {f"figure_{number}", f"figure_{number}_loss"}
  for name, group in runs_of.items():
    figures.write_results(results, name, group, workdir)
    path = results / f"{name.replace(' ', '_')}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["seed"] for row in rows] == [run.config.seed for run in group]
    assert all(row["steps"] == 8 for row in rows)
    assert list(figures.read_recorded(results, name)) == [r.name for r in group]
  header, table = figures.table(runs_of, workdir)
  assert len(table) == len(runs_of)
  assert all(len(row) == len(header) for row in table)

  class TrainedAgain(Exception):
    pass

  def refuse():
    raise TrainedAgain

  paper.train(runs_of, workdir, refuse)  # asked after every evaluation


def test_tiers_and_graphs_are_runs_of_their_own(small):
  quick, other = (paper.planned("forests", t, 2) for t in ("quick", "paper"))
  assert [(r.config.seed, r.config.graph.seed) for r in quick] == [
    (0, 3),
    (0, 4),
    (1, 3),
    (1, 4),
  ]
  assert len({run.name for run in quick + other}) == 8


def test_a_run_that_failed_is_named(small, tmp_path):
  (run,) = paper.planned("chain", "quick", 1)
  home = tmp_path / "members" / run.name
  home.mkdir(parents=True)
  runs.write_failure(home, {"step": 4, "what": "the loss is not finite"})
  with pytest.raises(figures.cli.Refused, match="not finite at step 4"):
    figures.read_results([run], tmp_path)


def test_a_recorded_run_stands_for_one_that_is_not_there(small, tmp_path):
  results = tmp_path / "results"
  first, second, third = group = paper.planned("standard chain", "quick", 3)
  assert figures.read_recorded(results, "standard chain") == {}
  workdirs = tmp_path / "a", tmp_path / "b"
  for workdir, run, loss in (
    (workdirs[0], second, 1.0),
    (workdirs[1], third, 2.0),
  ):
    home = workdir / "members" / run.name
    home.mkdir(parents=True)
    runs.write_result(home, {"loss": loss})

  figures.write_results(results, "standard chain", [second], workdirs[0])
  recorded = figures.read_recorded(results, "standard chain")
  assert list(recorded) == [second.name]
  # Seeds that were asked for, and those recorded.
  for num_seeds, seeds in ((1, [0, 1]), (2, [0, 1]), (3, [0, 1, 2])):
    planned = verify.planned("standard chain", "quick", num_seeds, recorded)
    assert [run.config.seed for run in planned] == seeds

  figures.write_results(
    results, "standard chain", [second, third], workdirs[1], recorded
  )
  recorded = figures.read_recorded(results, "standard chain")
  assert [line["loss"] for line in recorded.values()] == [1.0, 2.0]
  assert [line["seed"] for line in recorded.values()] == [1, 2]
  # What is there goes before what was recorded.
  runs.write_result(workdirs[1] / "members" / third.name, {"loss": 3.0})
  found = figures.read_results(group[1:], workdirs[1], recorded)
  assert [row["loss"] for row in found] == [1.0, 3.0]
  with pytest.raises(runs.RunError):
    figures.read_results([first], workdirs[1], recorded)
