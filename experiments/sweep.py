"""Trains every run of a grid or a random search, and sums them up.

    python -m experiments.sweep --config=configs/many_graphs.py

Runs whose shapes agree are trained by one program, in batches. Each leaves a
run directory of its own under --workdir, and all of them a table and figures.
Finished runs are not trained again, batches that were cut off go on.
"""

from collections.abc import Callable
import pathlib

from absl import flags
import jax

from experiments import batch
from experiments import build
from experiments import cli
from experiments import launch
from experiments import plan
from experiments import processes
from experiments import show
from experiments import stopping
from experiments import summary
from experiments.batch import Run
from icl_causal import runs


def main():
  """The command."""
  processes.join()
  cli.use_cores(cli.cores())
  config = cli.config()
  planned = plan.every_run(config)
  record = config.to_dict()
  workdir = cli.workdir(f"sweep-{runs.digest(record)}")
  stop = stopping.when_asked()
  with processes.opened(workdir, record, flags.FLAGS.overwrite) as finished:
    if not finished:
      with processes.one_fate():  # and each waits for the last
        train(workdir, planned, stop)
      with processes.one_fate():
        if processes.is_first():
          finish(workdir, config, planned)
  if processes.is_first():
    if finished:
      print(f"{workdir} is finished; --overwrite runs it again")
    table = summary.rows(workdir, planned)
    print(show.columns(*summary.columns(planned, table)))
    print(f"\n{workdir}/table.csv has every run and every measure")


def train(workdir: pathlib.Path, planned: list[Run], stop: Callable[[], bool]):
  """Trains all runs, here or in jobs of their own."""
  per_batch, parallel = flags.FLAGS.runs_per_batch, flags.FLAGS.parallel
  if flags.FLAGS.launcher == "slurm":
    launch.on_slurm(workdir, per_batch, parallel, stop)
  # Each process has batches to itself, and devices to train them on.
  index, num = jax.process_index(), jax.process_count()
  for together in plan.batches(planned, per_batch, num)[index::num]:
    batch.train(together, workdir, parallel, stop)


def finish(workdir: pathlib.Path, config: build.Config, planned: list[Run]):
  """Sums up all runs."""
  table = summary.rows(workdir, planned)
  summary.write_table(workdir, table)
  summary.write_figures(workdir, config, planned)
  runs.write_result(workdir, summary.totals(table))


if __name__ == "__main__":
  cli.define_run_flags()
  processes.define_flags()
  launch.define_flags()
  flags.DEFINE_integer(
    "runs_per_batch", 256, "Runs that are trained and saved together.", 1
  )
  flags.DEFINE_integer(
    "parallel", 8, "Runs at once on a device; fewer if memory is short.", 1
  )
  cli.run(main)
