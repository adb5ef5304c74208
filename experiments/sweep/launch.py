"""Batches of a sweep as the jobs of a Slurm array, through submitit.

Submitit requeues a job that is preempted or reaches the end of its time. The
job then resumes from the last saved state.
"""

from collections.abc import Callable
import pathlib
import subprocess
import time
from typing import Any

from absl import flags

from experiments.harness import app
from experiments.harness import grid
from experiments.harness import loop
from experiments.harness import signals
from experiments.harness.grid import Run
from icl_causal import runs
from icl_causal.config import record

flags.disclaim_key_flags()  # flags defined here belong to the command


def define_flags():
  """Defines the flags of the launcher."""
  flags.DEFINE_enum(
    "launcher",
    "local",
    ["local", "slurm"],
    "Where the batches are trained: here, or as jobs of a Slurm array.",
  )
  flags.DEFINE_multi_string(
    "slurm",
    [],
    "NAME=VALUE, a parameter of the jobs as submitit names it: timeout_min, "
    "cpus_per_task, gpus_per_node, slurm_partition, slurm_array_parallelism ..",
  )


class Job:
  """The training of one batch, as submitit calls it."""

  def __call__(
    self, workdir: pathlib.Path, index: int, runs_per_batch: int, at_once: int
  ):
    """Trains batch `index` of the sweep in `workdir`."""
    app.configure()
    app.use_cores(app.cores())
    app.keep_compiled()
    config = record.from_record(runs.read_config(workdir))
    planned = grid.every_run(config, workdir)
    loop.train_batch(grid.divide(planned, runs_per_batch)[index], at_once)

  def checkpoint(self, *arguments):
    """The job that submitit requeues: the same."""
    import submitit

    return submitit.helpers.DelayedSubmission(self, *arguments)


def on_slurm(
  workdir: pathlib.Path,
  planned: list[Run],
  runs_per_batch: int,
  at_once: int,
  stop: Callable[[], bool] = signals.never,
):
  """Submits every batch that is not done, and waits for all.

  Raises:
    Stopped: if a stop is requested; the jobs keep running.
    RunError: with the logs of the jobs that failed.
  """
  divided = grid.divide(planned, runs_per_batch)
  indices = [i for i, batch in enumerate(divided) if not _is_done(batch)]
  if not indices:
    return
  jobs = _submit(workdir, indices, runs_per_batch, at_once)
  array, _, _ = jobs[0].job_id.partition("_")
  print(
    f"{len(jobs)} jobs in Slurm array {array}: waiting; they keep running "
    "without this command, and the same command collects their results",
    flush=True,
  )
  while _in_queue(array):
    if stop():
      raise signals.Stopped(
        f"array {array} keeps running; this command no longer waits"
      )
    time.sleep(2)
  logs = [
    str(job.paths.stderr)
    for job, index in zip(jobs, indices, strict=True)
    if not _is_done(divided[index])
  ]
  if logs:
    raise runs.RunError(
      f"{len(logs)} of {len(jobs)} jobs ended too early; see "
      + ", ".join(logs[:3])
    )


def _submit(
  workdir: pathlib.Path, indices: list[int], runs_per_batch: int, at_once: int
) -> list:
  """One job for each index of a batch."""
  try:
    import submitit
  except ImportError as error:
    raise app.Refused(
      "--launcher=slurm needs submitit: pip install -e '.[cluster]'"
    ) from error
  try:
    runs.make_directory(workdir / "slurm")
    executor = submitit.AutoExecutor(folder=workdir / "slurm", cluster="slurm")
    executor.update_parameters(
      name=workdir.name, **_parameters(flags.FLAGS.slurm)
    )
  except (NameError, RuntimeError, TypeError, ValueError) as error:
    raise app.Refused(f"--slurm: {error}") from error
  with executor.batch():
    return [
      executor.submit(Job(), workdir.resolve(), index, runs_per_batch, at_once)
      for index in indices
    ]


def _is_done(batch: list[Run]) -> bool:
  return all(runs.is_done(run.workdir) for run in batch)


def _in_queue(array: str) -> bool:
  """Whether jobs of an array are still queued or running, as far as known."""
  reply = subprocess.run(
    ["squeue", "--noheader", f"--jobs={array}"], capture_output=True, text=True
  )
  is_unknown = "Invalid job id" in reply.stderr
  return bool(reply.stdout.strip()) or (reply.returncode > 0 and not is_unknown)


def _parameters(pairs: list[str]) -> dict[str, Any]:
  """The parameters by name, numbers as integers."""
  parameters = {}
  for pair in pairs:
    name, equals, value = pair.partition("=")
    if not equals:
      raise app.Refused(f"--slurm={pair}: must be NAME=VALUE")
    parameters[name] = int(value) if value.isdecimal() else value
  return parameters
