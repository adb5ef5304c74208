"""What is committed under results/ agrees with itself and with the README."""

import json
import pathlib
import statistics

import pytest

from configs import recipes as recipes_configs
from configs import variants
from experiments import figures
from experiments import recipes
from experiments import verify
from experiments.verify import Found

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
  ("page", "name", "path"),
  [
    *(
      ("README.md", f"verify {tier}", f"results/{tier}/verify.md")
      for tier in variants.TIERS
    ),
    *(
      ("docs/recipes.md", task, f"results/recipes/{task}.md")
      for task in recipes_configs.TASKS
    ),
  ],
)
def test_a_page_shows_the_table(page, name, path):
  table = (ROOT / path).read_text()
  shown = f"<!-- {name} -->\n\n{table}\n<!-- /{name} -->"
  assert shown in (ROOT / page).read_text()


@pytest.mark.parametrize("task", recipes_configs.TASKS)
def test_the_recipes_are_those_of_the_runs(task):
  header, _, *rows = (
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in (ROOT / f"results/recipes/{task}.md").read_text().splitlines()
  )
  lines = figures.read_recorded(ROOT / "results/recipes", task)
  runs_of = recipes.planned(recipes_configs.get_config(task))
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
  rows = {row["what"]: row for row in json.loads(path.read_text())["rows"]}
  claims = verify.CLAIMS[path.parent.name]
  assert list(rows) == [claim.what for claim in claims]
  runs = {
    lines.stem.replace("_", " "): [
      json.loads(line) for line in lines.read_text().splitlines()
    ]
    for lines in path.parent.glob("*.jsonl")
  }
  names = {name for group in verify.paper.FIGURES.values() for name in group}
  assert set(runs) == names
  again = 0
  for claim in claims:
    try:
      ours, error = claim.measure(Found(runs, {}))
    except KeyError:  # of the theory, whose results are not committed
      continue
    row = rows[claim.what]
    assert row["ours"] == pytest.approx(ours)
    assert row["standard_error"] == pytest.approx(error)
    assert (
      row["verdict"] == verify.judge([claim], Found(runs, {}))[0]["verdict"]
    )
    again += 1
  assert again == sum(what.startswith("figure") for what in rows)
