"""What is committed under results/ agrees with itself and with the README."""

import json
import pathlib
import statistics

import pytest

from configs import paper
from configs import recipes as recipes_configs
from configs import variants
from experiments import pages
from experiments import recipes
from experiments import verify
from experiments.harness import suite
from experiments.verify import Results

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("page", sorted({p for p, _ in pages.shown()}))
def test_a_page_shows_the_recorded_tables(page):
  """If not, run `python -m experiments.pages`."""
  assert pages.filled(page) == (ROOT / page).read_text()


@pytest.mark.parametrize("task", recipes_configs.TASKS)
def test_the_recipes_are_those_of_the_runs(task):
  header, _, *rows = (
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in (ROOT / f"results/recipes/{task}.md").read_text().splitlines()
  )
  lines = suite.read_recorded(ROOT / "results/recipes", task)
  runs_of = recipes.planned(recipes_configs.get_config(task), ROOT)
  assert [row[0] for row in rows] == list(runs_of)
  for row, group in zip(rows, runs_of.values(), strict=True):
    cells = dict(zip(header, row, strict=True))
    found = [lines.pop(run.name) for run in group]
    recovered, edges, false_parents = (
      sum(line[field] for line in found)
      for field in ("edges_recovered", "edges", "false_parents")
    )
    assert cells["edges"] == f"{recovered} of {edges}"
    assert cells["false parents"] == str(false_parents)
    for column, field in (
      ("attention", "parent_attention_mean"),
      ("excess", "excess_loss"),
      ("over exact", "excess_over_exact"),
    ):
      mean = statistics.mean(line[field] for line in found)
      assert float(cells[column]) == pytest.approx(mean, rel=1e-3)
  assert not lines


@pytest.mark.parametrize(
  "path",
  sorted(ROOT.glob("results/*/verify.json")),
  ids=lambda p: p.parent.name,
)
def test_the_table_is_that_of_the_runs(path):
  tier = path.parent.name
  rows = {row["what"]: row for row in json.loads(path.read_text())["rows"]}
  targets = verify.targets(tier)
  assert list(rows) == [row.what for row, _ in targets]
  runs = {
    lines.stem.replace("_", " "): [
      json.loads(line) for line in lines.read_text().splitlines()
    ]
    for lines in path.parent.glob("*.jsonl")
  }
  assert set(runs) == set(paper.EXPERIMENTS)
  results = Results(runs, {})
  for row, target in targets:
    if row.source in paper.EXPERIMENTS:  # checks of theory are not committed
      (again,) = verify.judge([(row, target)], results)
      recorded = rows[row.what]
      assert again["ours"] == pytest.approx(recorded["ours"])
      assert again["standard_error"] == pytest.approx(
        recorded["standard_error"]
      )
      assert again["verdict"] == recorded["verdict"]
      assert again["reason"] == recorded["reason"]


@pytest.mark.parametrize("tier", variants.TIERS)
def test_recorded_runs_have_the_names_of_planned_ones(tier):
  for name in paper.EXPERIMENTS:
    recorded = suite.read_recorded(ROOT / "results" / tier, name)
    most = max(line["seed"] for line in recorded.values()) + 1
    planned = suite.planned(name, tier, most, ROOT)
    assert set(recorded) <= {run.name for run in planned}
