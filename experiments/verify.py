"""Compares the paper's numbers with ours in a table with verdicts.

    python -m experiments.verify --tier=quick

Trains the missing runs, as `experiments.figures` does, and runs the checks of
the theory. Prints a table and writes it to verify.md and verify.json under
results/TIER. With --recorded, runs that have a line in results/TIER count as
trained, so the work can be spread over days and machines.

The verdict compares our number with its target at 95 % confidence. The interval
is Student's, from the standard error and the number of independent units:

- `pass`: the interval is inside the range;
- `undecided`: an end of the range is inside the interval;
- `known gap`: the interval is outside, and so is that of a bound, which shows
  that the target is out of reach;
- `fail`: the interval is outside.

A number without a target has no verdict. The exit code is 1 if a row fails,
except with --smoke.
"""

import json
import math
import pathlib
import sys

from absl import flags

from configs import paper
from configs import rows as paper_rows
from configs import theory as theory_configs
from configs.targets import Row
from configs.targets import Target
from experiments.harness import app
from experiments.harness import signals
from experiments.harness import smoke
from experiments.harness import suite
from experiments.harness import tables
from experiments.harness import verdicts
from experiments.harness.grid import Run
from experiments.theory import registry
from icl_causal import runs
from icl_causal.config import build
from icl_causal.config import record


def main():
  """The command."""
  app.use_cores(app.cores())
  tier = flags.FLAGS.tier
  workdir = app.workdir(tier)
  directory = app.output("results", f"results/{tier}", workdir)
  names = [n for figure in paper.FIGURES.values() for n in figure.experiments]
  recorded = {
    name: suite.read_recorded(directory, name) if flags.FLAGS.recorded else {}
    for name in names
  }
  runs_of = {
    name: planned(
      name, tier, flags.FLAGS.seeds, workdir, recorded[name], smoke.is_on()
    )
    for name in names
  }
  missing = {
    name: [run for run in group if run.name not in recorded[name]]
    for name, group in runs_of.items()
  }
  suite.train(missing, signals.install_handlers())
  for name, group in runs_of.items():
    suite.write_results(directory, name, group, recorded[name])
  signals.end_at_once()
  results = verdicts.Results(
    {
      name: suite.read_results(group, recorded[name])
      for name, group in runs_of.items()
    },
    {
      check: of_theory(check, tier, workdir, directory)
      for check in paper.CHECKS[tier]
    },
  )
  rows = [verdicts.judge(row, target, results) for row, target in targets(tier)]
  write(directory, rows)
  print(tables.columns(*table(rows)))
  failed = sum(row["verdict"] == "fail" for row in rows)
  print(f"\n{directory}/verify.md; {failed} of {len(rows)} fail")
  sys.exit(1 if failed and not smoke.is_on() else 0)


def planned(
  name: str,
  tier: str,
  num_seeds: int,
  workdir: pathlib.Path,
  recorded: dict,
  small: bool = False,
) -> list[Run]:
  """The runs from the first `num_seeds` seeds, and the recorded runs."""
  most = max([num_seeds, *(line["seed"] + 1 for line in recorded.values())])
  return [
    run
    for run in suite.planned(name, tier, most, workdir, small)
    if run.config.seed < num_seeds or run.name in recorded
  ]


def of_theory(
  check: str, tier: str, workdir: pathlib.Path, results: pathlib.Path
) -> dict:
  """The result of a check of the theory, recorded under `results`."""
  config = check_config(check, tier, smoke.is_on())
  if flags.FLAGS.recorded:
    recorded = registry.read_recorded(results, config)
    if recorded is not None:
      return recorded
  name = f"theory-{check}-{record.digest(config.to_dict())}"
  found = registry.result(config, workdir / name)
  registry.write_recorded(results, config, found)
  return found


def check_config(check: str, tier: str, small: bool = False) -> build.Config:
  """The config of a check of the theory in a tier."""
  config = theory_configs.get_config(check)
  config.update(paper.CHECKS[tier][check])
  if small:
    smoke.shrink(config)
  registry.validate(config)
  return config


def targets(tier: str) -> list[tuple[Row, Target]]:
  """The rows of a tier, each with its target."""
  pairs = [
    (row, {"quick": row.quick, "paper": row.authors}[tier])
    for row in paper_rows.ROWS
  ]
  return [(row, target) for row, target in pairs if target is not None]


def table(rows: list[dict]) -> tuple[list[str], list[list]]:
  """Header and rows to show; numbers are rounded as in `digits`."""
  header = ["what", "paper", "ours", "std. error", "over", "target", "source"]
  header += ["verdict"]
  return header, [
    [
      row["what"],
      row["paper"],
      *digits(row["ours"], row["standard_error"]),
      row["unit"],
      row["target"],
      row["source"],
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
  headlines = [
    by_what[what] for what in paper_rows.HEADLINES if what in by_what
  ]
  header, cells = table(headlines)
  kept = [header.index(name) for name in ("what", "paper", "ours", "verdict")]
  short = [[row[i] for i in kept] for row in [header, *cells]]
  runs.write_text(
    directory / "headlines.md", tables.markdown(short[0], short[1:])
  )


def digits(ours: float | None, error: float | None) -> tuple[str, str]:
  """A number and its standard error, to the second digit of the error."""
  if ours is None:
    return "-", "-"
  if not error:
    return f"{ours:.4g}", "-" if error is None else "0"
  places = max(0, 1 - math.floor(math.log10(error)))
  return f"{ours:.{places}f}", f"{error:.{places}f}"


if __name__ == "__main__":
  suite.define_flags(num_seeds=3)
  flags.DEFINE_bool(
    "recorded",
    False,
    "Count every run that has a line in --results as trained, from any seed.",
  )
  app.run(main)
