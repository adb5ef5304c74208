"""What is committed under results/ agrees with itself and with the README."""

import json
import pathlib

import pytest

from configs import recipes as recipes_configs
from experiments import verify
from experiments.verify import Found

ROOT = pathlib.Path(__file__).parents[1]


def test_the_readme_shows_the_table():
  table = (ROOT / "results/quick/verify.md").read_text()
  assert (
    f"<!-- verify -->\n\n{table}\n<!-- /verify -->"
    in (ROOT / "README.md").read_text()
  )


@pytest.mark.parametrize("task", recipes_configs.TASKS)
def test_the_recipes_show_their_tables(task):
  table = (ROOT / f"results/recipes/{task}.md").read_text()
  assert (
    f"<!-- {task} -->\n\n{table}\n<!-- /{task} -->"
    in (ROOT / "docs/recipes.md").read_text()
  )


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
  assert again > len(claims) / 2
