"""Compares the paper's numbers with ours in a table with verdicts.

    python -m experiments.verify --tier=quick

Trains the missing runs, as `experiments.figures` does, and runs the checks of
the theory. Prints a table and writes it to verify.md and verify.json under
results/TIER. With --recorded, runs that have a line in results/TIER count as
trained, so the work can be spread over days and machines.

The verdict is `pass`, `fail` or `known gap`. `known gap` means that the target
is out of reach, as docs/recipes.md explains, and that our number is in the
range that we reached. A number without a target has no verdict. The exit code
is 1 if a row fails.
"""

import json
import math
import pathlib
import sys
from typing import NamedTuple

from absl import flags
import numpy as np

from configs import paper
from configs import theory as theory_configs
from configs import variants
from configs.paper import Row
from configs.paper import Target
from experiments.harness import app
from experiments.harness import signals
from experiments.harness import suite
from experiments.harness import tables
from experiments.harness.grid import Run
from experiments.theory import registry
from icl_causal import runs
from icl_causal.config import record


class Results(NamedTuple):
  """The results from which the numbers are computed.

  Attributes:
    runs: results of the runs of each experiment.
    theory: results of the checks of the theory, by name.
  """

  runs: dict[str, list[dict]]
  theory: dict[str, dict]


def main():
  """The command."""
  app.use_cores(app.cores())
  tier = flags.FLAGS.tier
  workdir = app.workdir(tier)
  directory = pathlib.Path(flags.FLAGS.results or f"results/{tier}")
  names = [n for figure in paper.FIGURES.values() for n in figure.experiments]
  recorded = {
    name: suite.read_recorded(directory, name) if flags.FLAGS.recorded else {}
    for name in names
  }
  runs_of = {
    name: planned(name, tier, flags.FLAGS.seeds, workdir, recorded[name])
    for name in names
  }
  missing = {
    name: [run for run in group if run.name not in recorded[name]]
    for name, group in runs_of.items()
  }
  suite.train(missing, signals.install_handlers())
  for name, group in runs_of.items():
    suite.write_results(directory, name, group, recorded[name])
  results = Results(
    {
      name: suite.read_results(group, recorded[name])
      for name, group in runs_of.items()
    },
    {name: of_theory(name, tier, workdir) for name in paper.QUICK_CHECKS},
  )
  rows = judge(targets(tier), results)
  write(directory, rows)
  print(tables.columns(*table(rows)))
  failed = sum(row["verdict"] == "fail" for row in rows)
  print(f"\n{directory}/verify.md; {failed} of {len(rows)} fail")
  sys.exit(1 if failed else 0)


def planned(
  name: str, tier: str, num_seeds: int, workdir: pathlib.Path, recorded: dict
) -> list[Run]:
  """The runs from the first `num_seeds` seeds, and the recorded runs."""
  most = max([num_seeds, *(line["seed"] + 1 for line in recorded.values())])
  return [
    run
    for run in suite.planned(name, tier, most, workdir)
    if run.config.seed < num_seeds or run.name in recorded
  ]


def of_theory(check: str, tier: str, workdir: pathlib.Path) -> dict:
  """The result of a check of the theory."""
  config = theory_configs.get_config(check)
  if tier == "quick":
    config.update(paper.QUICK_CHECKS[check])
  registry.validate(config)
  name = f"theory-{check}-{record.digest(config.to_dict())}"
  return registry.result(config, workdir / name)


def targets(tier: str) -> list[tuple[Row, Target]]:
  """The rows of a tier, each with its target."""
  pairs = [
    (row, {"quick": row.quick, "paper": row.authors}[tier])
    for row in paper.ROWS
  ]
  return [(row, target) for row, target in pairs if target is not None]


def measure(row: Row, results: Results) -> tuple[float, float | None]:
  """The number of a row, and its standard error or None."""
  if row.statistic == "entry":
    return _entry(row, results.theory[row.source])
  if row.source in paper.EXPERIMENTS:
    records = results.runs[row.source]
  else:
    check = results.theory[row.source]
    records = [
      dict(zip(check["header"], cells, strict=True)) for cells in check["rows"]
    ]
  if row.statistic == "share":
    part, total = (sum(r[field] for r in records) for field in row.field)
    return part / total, None
  values = np.array([r[row.field] for r in records], float)
  if row.statistic == "largest":
    return float(values.max()), None
  error = None
  if len(values) > 1:
    error = float(values.std(ddof=1) / len(values) ** 0.5)
  return float(values.mean()), error


def judge(rows: list[tuple[Row, Target]], results: Results) -> list[dict]:
  """A record for every row, with its verdict."""
  judged = []
  for row, target in rows:
    ours, error = measure(row, results)
    verdict = _verdict(target, ours)
    judged.append(
      {
        "what": row.what,
        "paper": row.paper,
        "ours": ours,
        "standard_error": error,
        "target": _words(target),
        "verdict": verdict,
        "reason": target.reason if verdict == "known gap" else "",
      }
    )
  return judged


def table(rows: list[dict]) -> tuple[list[str], list[list]]:
  """Header and rows to show; numbers are rounded as in `digits`."""
  header = ["what", "paper", "ours", "std. error", "target", "verdict"]
  return header, [
    [
      row["what"],
      row["paper"],
      *digits(row["ours"], row["standard_error"]),
      row["target"],
      row["verdict"],
    ]
    for row in rows
  ]


def write(directory: pathlib.Path, rows: list[dict]):
  """Writes verify.json, verify.md and headlines.md."""
  directory.mkdir(parents=True, exist_ok=True)
  text = json.dumps({"rows": rows}, indent=2, allow_nan=False) + "\n"
  runs.write_text(directory / "verify.json", text)
  runs.write_text(directory / "verify.md", tables.markdown(*table(rows)))
  by_what = {row["what"]: row for row in rows}
  headlines = [by_what[what] for what in paper.HEADLINES if what in by_what]
  header, cells = table(headlines)
  kept = [header.index(name) for name in ("what", "paper", "ours", "verdict")]
  short = [[row[i] for i in kept] for row in [header, *cells]]
  runs.write_text(
    directory / "headlines.md", tables.markdown(short[0], short[1:])
  )


def digits(ours: float, error: float | None) -> tuple[str, str]:
  """A number and its standard error, to the second digit of the error."""
  if not error:
    return f"{ours:.4g}", "-" if error is None else "0"
  places = max(0, 1 - math.floor(math.log10(error)))
  return f"{ours:.{places}f}", f"{error:.{places}f}"


def _entry(row: Row, check: dict) -> tuple[float, float | None]:
  """An entry of a check's table, and its standard error."""
  (cells,) = [
    cells for cells in check["rows"] if tuple(cells[: len(row.key)]) == row.key
  ]
  by_column = dict(zip(check["header"], cells, strict=True))
  error = None if row.error is None else float(by_column[row.error])
  return float(by_column[row.field]), error


def _verdict(target: Target, ours: float) -> str:
  if target.low <= ours <= target.high:
    return "-" if _words(target) == "-" else "pass"
  if target.gap is not None and target.gap[0] <= ours <= target.gap[1]:
    return "known gap"
  return "fail"


def _words(target: Target) -> str:
  low, high = f"{target.low:.4g}", f"{target.high:.4g}"
  if target.low == target.high:
    return low
  if math.isinf(target.low) and math.isinf(target.high):
    return "-"
  if math.isinf(target.high):
    return f"at least {low}"
  return f"at most {high}" if math.isinf(target.low) else f"{low} to {high}"


if __name__ == "__main__":
  flags.DEFINE_enum(
    "tier", "quick", variants.TIERS, "Our recipes, or the paper's settings."
  )
  flags.DEFINE_integer("seeds", 3, "Number of seeds per experiment.", 1)
  flags.DEFINE_string(
    "workdir", None, "Directory of the runs; by default runs/TIER."
  )
  flags.DEFINE_string(
    "results", None, "Directory of the results; by default results/TIER."
  )
  flags.DEFINE_bool(
    "recorded",
    False,
    "Count every run that has a line in --results as trained, from any seed.",
  )
  app.run(main)
