"""Checks what the theory says by number, and prints a table.

    python -m experiments.theory --config=configs/theory.py:gradient

Leaves result.json and a figure under --workdir.
"""

import time

from absl import flags
import numpy as np

from experiments import checks
from experiments import cli
from experiments import pooled
from experiments import show
from experiments import theorems
from icl_causal import runs

_CHECKS = {
  "information": checks.information_of_forests,
  "estimates": checks.estimates,
  "gradient": checks.gradient_at_the_start,
  "roots": checks.roots,
  "pooled": pooled.pooled_and_conditional,
  "theorems": theorems.theorems,
}


def main():
  """The command."""
  config = cli.config()
  if config.check not in _CHECKS:
    raise cli.Refused(
      f"check = {config.check!r}: must be one of " + ", ".join(_CHECKS)
    )
  for name, value in runs.flatten(config.to_dict()).items():
    if name not in ("check", "seed") and not np.all(
      np.concatenate([np.ravel(v) for v in np.atleast_1d(value)]) >= 0
    ):
      raise cli.Refused(f"{name} = {value!r}: must not be negative")
  record = config.to_dict()
  workdir = cli.workdir(f"theory-{config.check}-{runs.digest(record)}")
  if runs.prepare(workdir, record, flags.FLAGS.overwrite):
    print(f"{workdir} is finished; --overwrite runs it again")
  else:
    started = time.monotonic()
    found = _CHECKS[config.check](config)
    if found.figure is not None:
      runs.save_figure(workdir, config.check, found.figure)
    runs.write_result(
      workdir,
      {
        "header": found.header,
        "rows": found.rows,
        "wall_seconds": time.monotonic() - started,
      },
    )
  result = runs.read_result(workdir)
  print(show.columns(result["header"], result["rows"]))
  print(f"\n{result['wall_seconds']:.0f} s; {workdir}/result.json")


if __name__ == "__main__":
  cli.define_run_flags()
  cli.run(main)
