"""Checks the theory numerically and prints a table.

    python -m experiments.theory --config=configs/theory.py:gradient

Writes result.json, and a figure for some checks, under --workdir. With
--results=results it also writes both under results/theory/, from where
`experiments.pages` copies the tables of docs/learning_times.md.
"""

import pathlib

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
  signals.end_at_once()
  config = app.config()
  registry.validate(config)
  digest = record.digest(config.to_dict())
  workdir = app.workdir(f"theory-{config.check}-{digest}")
  if runs.is_done(workdir) and not flags.FLAGS.overwrite:
    print(f"{workdir} is finished; --overwrite runs it again")
  with progress.shown(f"compiling and computing {config.check}"):
    result = registry.result(config, workdir, flags.FLAGS.overwrite)
  if flags.FLAGS.results is not None:
    results = pathlib.Path(flags.FLAGS.results).expanduser()
    registry.write_recorded(results, config, result)
    registry.copy_figure(results, config, workdir)
  print(tables.columns(result["header"], result["rows"]))
  print(f"\n{result['wall_seconds']:.0f} s; {workdir}/result.json")


if __name__ == "__main__":
  app.define_run_flags()
  flags.DEFINE_string(
    "results", None, "Also write the result and the figure under DIR/theory/."
  )
  app.run(main)
