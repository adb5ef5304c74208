"""Checks the theory numerically and prints a table.

    python -m experiments.theory --config=configs/theory.py:gradient

Writes result.json, and a figure for some checks, under --workdir. With
--results=results, also under results/theory/, which is committed and which
`experiments.pages` copies into the documentation.
"""

import pathlib
import shutil

from absl import flags

from experiments.harness import app
from experiments.harness import progress
from experiments.harness import signals
from experiments.harness import tables
from experiments.theory import registry
from icl_causal import runs
from icl_causal.config import record


def main():
  """The command."""
  app.use_cores(app.cores())
  signals.end_at_once()
  config = app.config()
  registry.validate(config)
  digest = record.digest(config.to_dict())
  workdir = app.workdir(f"theory-{config.check}-{digest}")
  if runs.is_done(workdir) and not flags.FLAGS.overwrite:
    print(f"{workdir} is finished; --overwrite runs it again")
  with progress.shown(f"compiling and computing {config.check}"):
    result = registry.result(config, workdir, flags.FLAGS.overwrite)
  print(tables.columns(result["header"], result["rows"]))
  if named := flags.FLAGS.results:
    record_result(pathlib.Path(named), config, result, workdir)
  print(f"\n{result['wall_seconds']:.0f} s; {workdir}/result.json")


def record_result(
  results: pathlib.Path, config, result: dict, workdir: pathlib.Path
):
  """Writes the result and the figure of a check under `results`/theory."""
  registry.write_recorded(results, config, result)
  figure = workdir / "figures" / f"{config.check}.png"
  if figure.exists():
    shutil.copy(figure, results / "theory" / figure.name)


if __name__ == "__main__":
  app.define_run_flags()
  flags.DEFINE_string("results", None, "Folder of the recorded results.")
  app.run(main)
