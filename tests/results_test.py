"""What is committed under results/ agrees with itself and with the README."""

import json
import pathlib
import statistics

import pytest

from configs import diversity as diversity_configs
from configs import paper
from configs import phases as phases_configs
from configs import recipes as recipes_configs
from configs import selection as selection_configs
from configs import standard_seeds
from configs import theory
from configs import variants
from experiments import diversity
from experiments import latent
from experiments import pages
from experiments import phases
from experiments import recipes
from experiments import verify
from experiments.harness import grid
from experiments.harness import suite
from experiments.harness import verdicts
from experiments.harness.verdicts import Results
from experiments.theory import registry

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("page", sorted({p for p, _ in pages.shown()}))
def test_a_page_shows_the_recorded_tables(page):
  """If not, run `python -m experiments.pages`."""
  assert pages.filled(page) == (ROOT / page).read_text()


@pytest.mark.parametrize("check", pages.RECORDED_CHECKS)
def test_the_recorded_theory_is_of_the_config(check):
  """If not, run `python -m experiments.theory --results=results`."""
  config = theory.get_config(check)
  assert registry.read_recorded(ROOT / "results", config) is not None


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
    if "gap to Bayes" in cells:
      gaps = [line["excess_over_exact"] for line in found]
      error = statistics.stdev(gaps) / len(gaps) ** 0.5
      numbers = (statistics.mean(gaps), error, min(gaps), max(gaps))
      assert [float(cell) for cell in row[2:6]] == pytest.approx(
        numbers, rel=1e-3
      )
      continue
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
    error = recipes.excess_of(found).error
    assert float(cells["std. error"]) == pytest.approx(error, rel=1e-3)
  assert not lines


@pytest.mark.parametrize("task", selection_configs.TASKS)
def test_the_recorded_selection_is_of_the_config(task):
  """If not, run `python -m experiments.latent`."""
  path = ROOT / f"results/latent/{task}.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  planned = latent.planned(selection_configs.get_config(task), ROOT)
  recorded = {(line["model"], line["seed"], line["run"]) for line in lines}
  assert recorded == {
    (name, run.config.seed, run.name)
    for name, group in planned.items()
    for run in group
  }


@pytest.mark.parametrize("task", diversity_configs.TASKS)
def test_the_recorded_pools_are_of_the_config(task):
  """If not, run `python -m experiments.diversity`. Few kernels are retrieved.

  On the pool, no predictor is better than retrieval, by more than its noise.
  """
  path = ROOT / f"results/diversity/{task}.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  planned = diversity.planned(diversity_configs.get_config(task), ROOT)
  recorded = [(line["model"], line["run"], line["prompts"]) for line in lines]
  assert recorded == [
    (name, run.name, prompts)
    for name, group in planned.items()
    for run in group
    for prompts in ("pool", "fresh")
  ]
  for line in lines:
    losses = line["losses"]
    if line["prompts"] == "pool":
      assert losses["retrieval"] <= min(
        losses["edge posterior"], line["loss"][-1]
      )
      if line["M"] == 1:
        assert losses["retrieval"] == pytest.approx(losses["entropy"], abs=1e-4)
      if line["M"] == 4:
        assert line["four"]["retrieval"][-1] > 0.85


@pytest.mark.parametrize("task", phases_configs.TASKS)
def test_recorded_phases_are_those_of_the_config(task):
  """Uniform, unigram and a posterior, one after another, in every seed."""
  path = ROOT / f"results/phases/{task}.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  planned = phases.planned(phases_configs.get_config(task), ROOT)
  assert [line["run"] for line in lines] == [run.name for run in planned]
  assert [line["seed"] for line in lines] == [0, 1, 2] * 2
  for line in lines:
    weights = line["weights"]
    assert weights["uniform"][0] > 0.75
    assert max(weights["unigram"]) > 0.4
    assert max(weights["wrong graph"]) < 0.05
    posteriors = [w for name, w in weights.items() if "posterior" in name]
    assert sum(w[-1] for w in posteriors) > 0.75


@pytest.mark.parametrize("task", phases_configs.TASKS)
def test_the_recorded_circuit_is_that_of_the_construction(task):
  """Its blocks of tokens, in every seed; and the gauge changes nothing."""
  config = theory.get_config("circuits")
  recorded = registry.read_recorded(ROOT / "results", config)
  assert recorded is not None
  rows = {
    row[1]: dict(zip(recorded["header"], row, strict=True))
    for row in recorded["rows"]
    if row[0] == task
  }
  for block in ("A2 token > token 1.1", "W token 2.1 > next token"):
    assert rows[f"{block}: cosine"]["least"] > 0.99
  assert rows["change of outputs by the gauge"]["largest"] < 1e-6
  assert rows["parent"]["least"] > 0.9
  for matrix in ("A1", "A2", "W"):
    shares = [
      row["mean"]
      for name, row in rows.items()
      if name.startswith(f"{matrix} ") and name.endswith(": share")
    ]
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("tier", variants.TIERS)
def test_the_table_is_that_of_the_runs(tier):
  """Every row is judged again from the recorded runs and checks."""
  directory = ROOT / "results" / tier
  recorded = json.loads((directory / "verify.json").read_text())["rows"]
  targets = verify.targets(tier)
  assert [row["what"] for row in recorded] == [row.what for row, _ in targets]
  runs = {
    lines.stem.replace("_", " "): [
      json.loads(line) for line in lines.read_text().splitlines()
    ]
    for lines in directory.glob("*.jsonl")
  }
  assert set(runs) == set(paper.EXPERIMENTS)
  theory = {
    check: registry.read_recorded(directory, verify.check_config(check, tier))
    for check in paper.CHECKS[tier]
  }
  assert None not in theory.values()
  results = Results(runs, theory)
  for (row, target), record in zip(targets, recorded, strict=True):
    again = verdicts.judge(row, target, results)
    for number in ("ours", "standard_error"):
      assert again.pop(number) == pytest.approx(record.pop(number))
    assert again == record


@pytest.mark.parametrize("variant", standard_seeds.VARIANTS)
def test_recorded_seeds_are_those_of_the_config(variant):
  config = standard_seeds.get_config(variant)
  path = ROOT / f"results/standard_seeds/{variant}.csv"
  names = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
  planned = grid.every_run(config, ROOT)
  assert names == [run.name for run in planned]
  path = ROOT / f"results/standard_seeds/{variant}_alone.jsonl"
  alone = [json.loads(line) for line in path.read_text().splitlines()]
  seeds = [run.config.seed for run in planned]
  assert [line["seed"] for line in alone] == seeds


@pytest.mark.parametrize("tier", variants.TIERS)
def test_recorded_runs_have_the_names_of_planned_ones(tier):
  for name in paper.EXPERIMENTS:
    recorded = suite.read_recorded(ROOT / "results" / tier, name)
    most = max(line["seed"] for line in recorded.values()) + 1
    planned = suite.planned(name, tier, most, ROOT)
    assert set(recorded) <= {run.name for run in planned}
