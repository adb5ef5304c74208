"""Trains every run of a grid or a random search, and summarizes them.

    python -m experiments.sweep --config=configs/many_graphs.py

One program trains the runs whose shapes agree, in batches. Each run has a run
directory under members/ in --workdir, and the sweep has a table and figures.
Finished runs are not trained again; interrupted ones resume.
"""

from collections.abc import Callable
import pathlib

from absl import flags
import jax

from experiments.harness import app
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from experiments.harness import signals
from experiments.harness import tables
from experiments.harness.grid import Run
from experiments.sweep import launch
from experiments.sweep import summary
from icl_causal import runs
from icl_causal.config import record


def main():
  """The command."""
  distributed.join()
  app.use_cores(app.cores())
  config = app.config()
  written = config.to_dict()
  workdir = app.workdir(f"sweep-{record.digest(written)}")
  planned = grid.every_run(config, workdir)
  array = launch.live_array(workdir) if flags.FLAGS.overwrite else None
  if array is not None:
    raise app.Refused(
      f"--overwrite: Slurm array {array} still trains {workdir}: end it with "
      f"scancel {array} first"
    )
  stop = signals.install_handlers()
  with distributed.opened(workdir, written, flags.FLAGS.overwrite) as finished:
    finished = finished and all(runs.is_done(run.workdir) for run in planned)
    if not finished:
      with distributed.raise_together():  # and each waits for the last
        train(workdir, planned, stop)
      with distributed.raise_together():
        if distributed.is_first():
          summary.write(workdir, config, planned)
  if distributed.is_first():
    if finished:
      print(f"{workdir} is finished; --overwrite runs it again")
    table = summary.rows(planned)
    print(tables.columns(*summary.columns(planned, table)))
    print(f"\n{workdir}/table.csv has every run and every measure")


def train(workdir: pathlib.Path, planned: list[Run], stop: Callable[[], bool]):
  """Trains all runs, here or as jobs of Slurm."""
  per_batch, at_once = flags.FLAGS.runs_per_batch, flags.FLAGS.parallel
  if flags.FLAGS.launcher == "slurm":
    launch.on_slurm(workdir, planned, per_batch, at_once, stop)
  # Each process trains batches of its own on its own devices.
  index, num = jax.process_index(), jax.process_count()
  for batch in grid.divide(planned, per_batch, num)[index::num]:
    loop.train_batch(batch, at_once, stop)


if __name__ == "__main__":
  app.define_run_flags()
  distributed.define_flags()
  launch.define_flags()
  flags.DEFINE_integer(
    "runs_per_batch", 256, "Runs that are trained together.", 1
  )
  flags.DEFINE_integer(
    "parallel", 8, "Runs at once on a device; fewer if memory is short.", 1
  )
  app.run(main)
