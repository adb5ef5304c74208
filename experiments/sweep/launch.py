"""Batches of a sweep as the jobs of a Slurm array, through submitit.

Submitit requeues a job that is preempted or reaches the end of its time. The
job then resumes from the last saved state.
"""

from collections.abc import Callable
import contextlib
import io
import pathlib
import subprocess
import time
from typing import Any

from absl import flags

from experiments.harness import app
from experiments.harness import compile_cache
from experiments.harness import config_flag
from experiments.harness import grid
from experiments.harness import loop
from experiments.harness import progress
from experiments.harness import signals
from experiments.harness.grid import Run
from icl_causal import runs
from icl_causal.config import record
from icl_causal.runs import files

flags.disclaim_key_flags()  # flags defined here belong to the command

_ARRAY = "slurm/array.json"  # the number of the array
_UNKNOWN = "Invalid job id"  # what squeue says of a job that ended long ago
_OF_EXECUTOR = {"slurm_max_num_timeout"}  # not a parameter of the jobs


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
    "cpus_per_task, gpus_per_node, slurm_partition, slurm_max_num_timeout (how "
    "often a job is requeued at the end of its time, 3 by default) ..",
  )


class Job:
  """The training of one batch, as submitit calls it."""

  def __call__(
    self,
    workdir: pathlib.Path,
    index: int,
    runs_per_batch: int,
    at_once: int,
    config_file: str,
  ):
    """Trains batch `index` of the sweep in `workdir`."""
    app.configure()
    app.use_cores(app.cores())
    compile_cache.keep()
    config_flag.load(config_file)  # registers parts of the user
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

  If the array of an earlier command is still in the queue, it is waited for
  instead.

  Raises:
    Stopped: if a stop is requested; the jobs keep running.
    RunError: if runs are not done when the array has left the queue.
  """
  array = live_array(workdir)
  if array is None:
    divided = grid.divide(planned, runs_per_batch)
    indices = [
      i
      for i, batch in enumerate(divided)
      if not all(runs.is_done(run.workdir) for run in batch)
    ]
    if not indices:
      return
    array = _submit(workdir, indices, runs_per_batch, at_once)
    found = f"{len(indices)} jobs in Slurm array {array}"
  else:
    found = f"Slurm array {array} of an earlier command is in the queue"
  print(
    f"{found}: waiting; the jobs keep running without this command, and the "
    "same command collects their results",
    flush=True,
  )
  with progress.shown("waiting", len(planned), "run") as show:
    while _in_queue(workdir, array):
      if stop():
        raise signals.Stopped(
          f"array {array} keeps running; this command no longer waits"
        )
      done = sum(runs.is_done(run.workdir) for run in planned)
      show(done, f"Slurm array {array}")
      time.sleep(2)
  left = sum(not runs.is_done(run.workdir) for run in planned)
  if left:
    raise runs.RunError(
      f"{left} of {len(planned)} runs are not done, and Slurm array {array} "
      f"has ended; see {workdir}/slurm/{array}_*_log.err; the same command "
      "submits them again"
    )


def live_array(workdir: pathlib.Path) -> str | None:
  """The array that an earlier command submitted, if it is in the queue.

  Raises:
    Refused: if Slurm does not answer.
  """
  path = workdir / _ARRAY
  if not path.exists():
    return None
  array = str(files.read_json(path).get("array"))
  if not array.isdecimal():
    raise runs.RunError(f"{path} is damaged: it has no number of an array")
  reply = _squeue(workdir, array)
  if reply.returncode and _UNKNOWN not in reply.stderr:
    raise app.Refused(reply.stderr)
  return array if reply.stdout.strip() else None


def _submit(
  workdir: pathlib.Path, indices: list[int], runs_per_batch: int, at_once: int
) -> str:
  """Submits an array with a job for each batch; returns its number."""
  try:
    import submitit
    from submitit.core import utils as submitit_utils
  except ImportError as error:
    raise app.Refused(
      "--launcher=slurm needs submitit: pip install -e '.[cluster]'"
    ) from error
  parameters = _parameters(flags.FLAGS.slurm)
  of_executor = {n: parameters.pop(n) for n in _OF_EXECUTOR & {*parameters}}
  runs.make_directory(workdir / "slurm")
  config_file = config_flag.file()
  try:
    executor = submitit.AutoExecutor(
      folder=workdir / "slurm", cluster="slurm", **of_executor
    )
    executor.update_parameters(name=workdir.name, **parameters)
    # submitit also copies what sbatch reports to stderr.
    with contextlib.redirect_stderr(io.StringIO()), executor.batch():
      jobs = [
        executor.submit(
          Job(), workdir.resolve(), i, runs_per_batch, at_once, config_file
        )
        for i in indices
      ]
  except (
    *(NameError, RuntimeError, TypeError, ValueError),
    submitit_utils.FailedJobError,
  ) as error:
    raise app.Refused(f"--slurm: {error}") from error
  array, _, _ = jobs[0].job_id.partition("_")
  runs.write_text(workdir / _ARRAY, record.canonical({"array": array}))
  return array


def _in_queue(workdir: pathlib.Path, array: str) -> bool:
  """Whether jobs of an array are still queued or running, as far as known."""
  reply = _squeue(workdir, array)
  failed = reply.returncode > 0 and _UNKNOWN not in reply.stderr
  return failed or bool(reply.stdout.strip())


def _squeue(
  workdir: pathlib.Path, array: str
) -> subprocess.CompletedProcess[str]:
  command = ["squeue", "--noheader", f"--jobs={array}"]
  command.append(f"--name={workdir.name}")  # numbers start again after a reset
  return subprocess.run(command, capture_output=True, text=True)


def _parameters(pairs: list[str]) -> dict[str, Any]:
  """The parameters by name, numbers as integers."""
  parameters = {}
  for pair in pairs:
    name, equals, value = pair.partition("=")
    if not equals:
      raise app.Refused(f"--slurm={pair}: must be NAME=VALUE")
    parameters[name] = int(value) if value.isdecimal() else value
  return parameters
