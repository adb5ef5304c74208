"""Batches of a sweep as the jobs of a Slurm array, through submitit.

A job that is preempted, or at the end of its time, is put back into the queue
by submitit, and goes on from the last saved state.
"""

from collections.abc import Callable
import pathlib
import subprocess
import time
from typing import Any

from absl import flags

from experiments import batch
from experiments import build
from experiments import cli
from experiments import plan
from experiments import stopping
from icl_causal import runs


def define_flags():
  """Defines the flags of the launcher."""
  flags.DEFINE_enum(
    "launcher",
    "local",
    ["local", "slurm"],
    "Where the batches are trained: here, or as the jobs of a Slurm array.",
  )
  flags.DEFINE_multi_string(
    "slurm",
    [],
    "NAME=VALUE, a parameter of the jobs as submitit names it: timeout_min, "
    "cpus_per_task, gpus_per_node, slurm_partition, slurm_array_parallelism ..",
  )


class Job:
  """The training of one batch, as submitit calls it, and calls it again."""

  def __call__(
    self, workdir: pathlib.Path, index: int, runs_per_batch: int, parallel: int
  ):
    """Trains batch `index` of the sweep in `workdir`."""
    cli.configure()
    cli.use_cores(cli.cores())
    cli.keep_compiled()
    config = build.from_record(runs.read_config(workdir))
    divided = plan.batches(plan.every_run(config), runs_per_batch)
    batch.train(divided[index], workdir, parallel)

  def checkpoint(self, *arguments):
    """What is put into the queue in its place: the same."""
    import submitit

    return submitit.helpers.DelayedSubmission(self, *arguments)


def on_slurm(
  workdir: pathlib.Path,
  runs_per_batch: int,
  parallel: int,
  stop: Callable[[], bool] = stopping.never,
):
  """Submits every batch that is not done, and waits for all.

  Raises:
    Stopped: if `stop` says so; the jobs go on.
    RunError: naming the logs of the jobs that failed.
  """
  try:
    import submitit
  except ImportError as error:
    raise cli.Refused(
      "--launcher=slurm needs submitit: pip install 'icl-causal[cluster]'"
    ) from error
  config = build.from_record(runs.read_config(workdir))
  divided = plan.batches(plan.every_run(config), runs_per_batch)
  indices = [
    index
    for index, together in enumerate(divided)
    if not _is_done(workdir, together)
  ]
  if not indices:
    return
  try:
    executor = submitit.AutoExecutor(folder=workdir / "slurm", cluster="slurm")
    executor.update_parameters(
      name=workdir.name, **_parameters(flags.FLAGS.slurm)
    )
  except (NameError, RuntimeError, TypeError, ValueError) as error:
    raise cli.Refused(f"--slurm: {error}") from error
  with executor.batch():
    jobs = [
      executor.submit(Job(), workdir.resolve(), index, runs_per_batch, parallel)
      for index in indices
    ]
  array, _, _ = jobs[0].job_id.partition("_")
  print(
    f"{len(jobs)} jobs in Slurm's array {array}: waiting; they go on without "
    "this command, which called again sums up what is there",
    flush=True,
  )
  while _in_queue(array):
    if stop():
      raise stopping.Stopped(f"array {array} goes on, nobody waits for it")
    time.sleep(2)
  undone = [
    str(job.paths.stderr)
    for job, index in zip(jobs, indices, strict=True)
    if not _is_done(workdir, divided[index])
  ]
  if undone:
    raise runs.RunError(
      f"{len(undone)} of {len(jobs)} jobs ended too soon; see "
      + ", ".join(undone[:3])
    )


def _is_done(workdir: pathlib.Path, together: list[batch.Run]) -> bool:
  return all(batch.is_done(batch.folder(workdir, run)) for run in together)


def _in_queue(array: str) -> bool:
  """Whether Slurm still has jobs of an array to run, or can't tell."""
  asked = subprocess.run(
    ["squeue", "--noheader", f"--jobs={array}"], capture_output=True, text=True
  )
  forgotten = "Invalid job id" in asked.stderr
  return bool(asked.stdout.strip()) or (asked.returncode > 0 and not forgotten)


def _parameters(pairs: list[str]) -> dict[str, Any]:
  """Numbers and words by name."""
  found = {}
  for pair in pairs:
    name, equals, value = pair.partition("=")
    if not equals:
      raise cli.Refused(f"--slurm={pair}: must be NAME=VALUE")
    found[name] = int(value) if value.isdecimal() else value
  return found
