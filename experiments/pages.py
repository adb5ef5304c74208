"""Copies the recorded tables into the Markdown pages that show them.

    python -m experiments.pages

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`. Run it after
`experiments.verify`, `experiments.recipes`, `experiments.phases`,
`experiments.latent`, `experiments.diversity`, `experiments.theory
--results=results`, `make docs/demo/result.json` or `make
results/standard_seeds/VARIANT.csv` and `.._alone.jsonl`.
"""

from collections.abc import Container, Mapping, Sequence
import csv
import json
import pathlib
import textwrap

from configs import diversity as diversity_configs
from configs import phases
from configs import recipes
from configs import selection as selection_configs
from configs import standard_seeds
from configs import theory
from configs import variants
from experiments.harness import app
from experiments.harness import diversity
from experiments.harness import diversity_tables
from experiments.harness import phase_tables
from experiments.harness import selection
from experiments.harness import tables
from experiments.harness import verdicts
from experiments.theory import circuit_pages
from experiments.theory import intervention_pages
from experiments.theory import pair_pages
from experiments.theory import registry
from experiments.theory import sample_pages
from icl_causal import runs

ROOT = pathlib.Path(__file__).parents[1]

# The theory checks with a page, recorded by `experiments.theory --results`.
RECORDED_CHECKS = (
  *("times", "order", "samples", "repetition", "circuits", "latent"),
  *("lengths", "two_parents", "interventions", "kgrams"),
  "stationary",
)
# Of `diversity_tables.TABLES`; the page has all of the chain.
_OF_FOREST = ("weights", "phases", "takeover", "graph")
# Tables of these checks by page and name: the check, the columns, and
# the tasks, by default all.
_CHECKS = {
  ("docs/learning_times.md", "times"): (
    "times",
    (
      *("task", "alpha", "gamma", "prediction", "edges", "missed", "ratio"),
      *("error", "10 %", "90 %", "Spearman", "Spearman, position", "partial"),
    ),
    ("forests", "strengths"),
  ),
  ("docs/learning_times.md", "growth"): (
    "times",
    ("prediction", "slope", "error of slope"),
    ("slope",),
  ),
  ("docs/learning_times.md", "order"): (
    "order",
    (
      *("task", "S", "optimizer", "rate", "graphs", "edges", "missed"),
      *("order", "error of order", "position", "error of position"),
      *("partial", "error of partial"),
    ),
    None,
  ),
  ("docs/latent.md", "lines"): (
    "latent",
    (
      *("task", "S", "alpha", "T", "line", "loss", "error", "last"),
      *("error of last", "gap", "error of gap", "verdict"),
    ),
    None,
  ),
  ("docs/repetition.md", "repetition"): (
    "repetition",
    (
      *("N", "one gradient", "error", "edges", "error of edges", "own loss"),
      *("fresh loss", "excess", "error of excess", "least excess", "at step"),
      *("unigram", "edge_posterior"),
    ),
    None,
  ),
  ("docs/orders.md", "trained"): (
    "kgrams",
    (
      *("k", "model", "heads", "steps", "gap", "error", "largest", "last"),
      *("error of last", "line k - 1", "weight", "error of weight"),
      "plateaus",
    ),
    ("trained",),
  ),
  ("docs/orders.md", "plateaus"): (
    "kgrams",
    (
      *("k", "model", "heads", "seed", "from", "to", "gap", "line"),
      *("distance", "norm"),
    ),
    ("plateau",),
  ),
  ("docs/orders.md", "stationary"): (
    "kgrams",
    (
      *("k", "order", "model", "heads", "distance", "error of distance"),
      *("norm", "norm / start", "error of start", "norm / largest"),
      "error of largest",
    ),
    ("stationary",),
  ),
  ("docs/orders.md", "gradients"): (
    "stationary",
    (
      *("alpha", "k", "order", "T", "excess", "error"),
      *("skip", "error of skip", "rest", "error of rest"),
    ),
    ("norm",),
  ),
  ("docs/orders.md", "powers"): (
    "stationary",
    (
      *("alpha", "k", "order", "skip", "error of skip", "rest"),
      "error of rest",
    ),
    ("power",),
  ),
  ("docs/orders.md", "limits"): (
    "stationary",
    ("alpha", "k", "order", "skip", "error of skip"),
    ("limit",),
  ),
  ("docs/lengths.md", "lengths"): (
    "lengths",
    (
      *("model", "S", "reach", "T", "loss", "excess", "error"),
      *("excess at the last", "error of last", "parent attention"),
      *("learned", "rank", "slope", "error of slope", "first", "last"),
    ),
    None,
  ),
}


def main():
  """The command."""
  for page in sorted({page for page, _ in shown()}):
    runs.write_text(ROOT / page, filled(page))
    print(page)


def shown() -> dict[tuple[str, str], str]:
  """The tables, by page and name, without checks of another config."""
  result = (ROOT / "docs/demo/result.json").read_text()
  demo = tables.result_table(json.loads(result))
  results = ROOT / "results"
  return {
    ("README.md", "demo"): textwrap.indent(demo, "    ") + "\n",
    ("README.md", "results"): (results / "quick/headlines.md").read_text(),
    **{
      ("docs/results.md", f"verify {t}"): (
        results / t / "verify.md"
      ).read_text()
      for t in variants.TIERS
    },
    ("docs/recipes.md", "standard seeds"): tables.markdown(
      *of_seeds(results / "standard_seeds")
    ),
    **{
      ("docs/recipes.md", task): (results / f"recipes/{task}.md").read_text()
      for task in recipes.TASKS
    },
    **_of_theory(results),
    **_of_lines(results),
  }


def _of_theory(results: pathlib.Path) -> dict[tuple[str, str], str]:
  """The tables of theory checks."""
  checks = {
    check: registry.read_recorded(results, theory.get_config(check))
    for check in RECORDED_CHECKS
  }
  pages = {
    "docs/samples.md": sample_pages.shown(checks["samples"])
    | pair_pages.shown(checks["two_parents"]),
    "docs/interventions.md": intervention_pages.shown(checks["interventions"]),
    "docs/circuits.md": circuit_pages.shown(checks["circuits"]),
  }
  return {
    (page, name): table
    for page, of in pages.items()
    for name, table in of.items()
  } | {
    name: of_check(recorded, columns, tasks)
    for name, (check, columns, tasks) in _CHECKS.items()
    if (recorded := checks[check]) is not None
  }


def _of_lines(results: pathlib.Path) -> dict[tuple[str, str], str]:
  """The tables of experiments that record a line for each run."""
  return {
    **{
      ("docs/latent.md", task + suffix): tables.markdown(
        *table(
          runs.read_table(results / f"latent/{task}.jsonl", selection.FIELDS)
        )
      )
      for task in selection_configs.TASKS
      for suffix, table in (
        ("", selection.table),
        (" inside", selection.inside),
      )
    },
    **{
      ("docs/diversity.md", f"{task} {name}"): tables.markdown(
        *table(runs.read_table(path, diversity.FIELDS))
      )
      for task in diversity_configs.TASKS
      for path in [results / f"diversity/{task}.jsonl"]
      for name, table in diversity_tables.TABLES.items()
      if task == "chain" or name in _OF_FOREST
    },
    **{
      ("docs/phases.md", f"{task} {name}"): tables.markdown(
        *table(runs.read_table(path, phase_tables.FIELDS))
      )
      for task in phases.TASKS
      for path in [results / f"phases/{task}.jsonl"]
      for name, table in (
        ("headlines", phase_tables.headlines),
        ("steps", phase_tables.by_step),
      )
    },
  }


def of_check(
  recorded: Mapping, columns: Sequence[str], tasks: Container[str] | None
) -> str:
  """Some columns of the table of a theory check, for some tasks or all."""
  records = [
    dict(zip(recorded["header"], row, strict=True)) for row in recorded["rows"]
  ]
  return tables.markdown(
    columns,
    [
      [record[column] for column in columns]
      for record in records
      if tasks is None or record["task"] in tasks
    ],
  )


def of_seeds(folder: pathlib.Path) -> tuple[list[str], list[list]]:
  """Header and rows: the standard transformer on each graph, over seeds."""
  header = ["graph", "trained", "every edge", "excess", "std. error", "largest"]
  rows = []
  for variant in standard_seeds.VARIANTS:
    with open(folder / f"{variant}.csv", newline="") as file:
      in_batch = list(csv.DictReader(file))
    text = (folder / f"{variant}_alone.jsonl").read_text()
    alone = [json.loads(line) for line in text.splitlines()]
    for trained, records in (("in a batch", in_batch), ("alone", alone)):
      excess = [{"excess": float(record["excess_loss"])} for record in records]
      every = sum(r["edges_recovered"] == r["edges"] for r in records)
      mean = verdicts.mean_over(excess, "excess", "seeds")
      rows.append(
        [
          *(variant, trained, f"{every} of {len(records)}"),
          *(mean.value, mean.error),
          max(record["excess"] for record in excess),
        ]
      )
  return header, rows


def filled(page: str) -> str:
  """The text of a page with its tables as they are recorded now."""
  text = (ROOT / page).read_text()
  for (of_page, name), table in shown().items():
    if of_page == page:
      start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
      if text.count(start) != 1 or text.count(end) != 1:
        raise app.Refused(f"{page} must have one {start} and one {end}")
      before, _, rest = text.partition(start)
      _, _, after = rest.partition(end)
      text = f"{before}{start}\n\n{table}\n{end}{after}"
  return text


if __name__ == "__main__":
  app.run(main)
