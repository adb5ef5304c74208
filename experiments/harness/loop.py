"""The training loop: trains runs of one program from their last saved states.

Every run has its own directory, with the same files whether it is trained alone
or with others. The loop evaluates every `train.eval_every` steps, appends a row
to each metrics.jsonl and saves states. It appends to each snapshots.jsonl at
every evaluation and at steps 1, 2, 3, 4, 6, 8, 12, .., so that the first steps
are visible. A run whose loss or gradient is not finite is marked as failed
while the others continue.
"""

from collections.abc import Callable, Sequence
import contextlib
import time
from typing import NamedTuple

import jax
import numpy as np

from experiments.harness import app
from experiments.harness import batches
from experiments.harness import clock as clocks
from experiments.harness import distributed
from experiments.harness import loggers
from experiments.harness import memory
from experiments.harness import progress as progress_of
from experiments.harness import recorded
from experiments.harness import resume
from experiments.harness import signals
from experiments.harness.grid import Run
from icl_causal import metrics
from icl_causal import phases
from icl_causal import runs
from icl_causal import training


class Job(NamedTuple):
  """The arguments of a training; they do not change while it runs.

  Attributes:
    batch: runs of one program, whose directories are prepared and locked.
    trainer: of the batch.
    group: the processes that train it.
    keep: number of checkpoints to keep, one for each evaluation. The default
      keeps two, and skips a save if saving would take too much of the time.
    stop: whether a stop is requested; called after every evaluation.
    log: called with each new row of metrics.jsonl of a single run.
    show: called with the steps taken and a summary, after every evaluation.
  """

  batch: Sequence[Run]
  trainer: batches.Trainer
  group: distributed.Group
  keep: int | None = None
  stop: Callable[[], bool] = signals.never
  log: loggers.Write = loggers.none
  show: Callable[[int, str], None] = lambda step, summary: None


class Progress(NamedTuple):
  """The progress of the runs of a batch.

  Attributes:
    step: the same for all runs.
    state: of all runs, on the devices.
    live: indices of the runs that are neither finished nor failed.
    failures: by index, the records of runs that failed in this process.
  """

  step: int
  state: training.TrainState
  live: set[int]
  failures: dict[int, dict]


def train_single(
  run: Run,
  group: distributed.Group,
  keep: int | None = None,
  stop: Callable[[], bool] = signals.never,
  log: loggers.Write = loggers.none,
):
  """Trains one run on all devices; a run that failed before is retried.

  The arguments are those of `Job`.

  Raises:
    NonFinite: if the loss or the gradient is not finite.
    Stopped: if a stop is requested.
  """
  started = time.monotonic()
  with group.raise_together():
    if group.is_writer:
      (run.workdir / "failed.json").unlink(missing_ok=True)
  with progress_of.shown(
    "compiling", run.config.train.steps, "step", hidden=not group.is_writer
  ) as show:
    trainer = batches.single(run)
    job = Job([run], trainer, group, keep, stop, log, show)
    failures = train(job, started)
  for failed in failures.values():
    raise app.NonFinite(
      f"{failed['what']} at step {failed['step']}: training stopped; "
      f"{run.workdir} keeps the last state saved before it, and failed.json "
      "has the last losses"
    )


def train_batch(
  batch: Sequence[Run],
  at_once: int,
  stop: Callable[[], bool] = signals.never,
  keep: int | None = None,
):
  """Trains runs of one program together, in this process alone.

  Runs whose saved states have no step in common are trained one group after
  another.

  Args:
    batch: the runs; finished and failed runs are not trained again.
    at_once: number of runs per device at once.
    stop: as in `Job`.
    keep: as in `Job`.

  Raises:
    RunError: if another process is training one of them.
    Stopped: if a stop is requested.
  """
  if all(runs.is_done(run.workdir) for run in batch):
    return
  for part in resume.split(batch):
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
      for run in part:
        config = run.config.to_dict()
        stack.enter_context(runs.opened(run.workdir, config, overwrite=False))
      show = stack.enter_context(
        progress_of.shown("compiling", part[0].config.train.steps, "step")
      )
      memory.check(part)
      trainer = batches.stacked(part, at_once)
      group = distributed.this_process()
      train(Job(part, trainer, group, keep, stop, show=show), started)


def train(job: Job, started: float) -> dict[int, dict]:
  """Trains a batch to the last step and writes the run directories.

  Args:
    job: the training.
    started: the time at which it started, by `time.monotonic`.

  Returns:
    The records of runs that failed, by index.

  Raises:
    Stopped: if a stop is requested before the last step.
  """
  progress, spent = _resume(job)
  clock = clocks.start(started, spent)
  config, group = job.batch[0].config, job.group
  last, every = config.train.steps, config.train.eval_every
  if progress.step == 0:
    job.show(0, _record(job, progress, [], clock))
  taken: list[training.Steps] = []  # since the last evaluation
  while progress.step < last and progress.live:
    step = _next_step(progress.step, every)
    num = step - progress.step
    state, steps = job.trainer.take_steps(progress.state, num)
    progress = progress._replace(step=step, state=state)
    taken.append(jax.tree.map(lambda a_RxN, num=num: a_RxN[:, :num], steps))
    summary = _record(job, progress, taken, clock)
    if step % every:
      continue
    taken = []
    job.show(step, summary)
    ends = job.stop() or progress.step == last
    with group.raise_together():
      if group.is_writer:
        clock.save_if_due(ends or bool(job.keep), _save, job, progress)
    if ends and progress.step < last:
      many = f"{len(job.batch)} runs " if len(job.batch) > 1 else ""
      raise signals.Stopped(f"{many}stopped at step {progress.step} of {last}")
  if progress.live:
    _finish(job, progress, clock)
  return progress.failures


def _resume(job: Job) -> tuple[Progress, dict[str, float]]:
  """The progress that is saved, and the seconds spent so far."""
  trainer, group, num = job.trainer, job.group, len(job.batch)
  start = trainer.to_host(trainer.start)
  saved = resume.nothing(start, num)
  with group.raise_together():
    if group.is_writer:
      saved = resume.read(job.batch, start)
  state, spent = group.broadcast((saved.state, saved.spent))
  step = int(state.step[0])
  on_devices = trainer.to_devices(state) if step else trainer.start
  return (
    Progress(step, on_devices, saved.live, {}),
    {name: float(seconds) for name, seconds in spent.items()},
  )


def _record(
  job: Job,
  progress: Progress,
  taken: Sequence[training.Steps],
  clock: clocks.Clock,
) -> str:
  """Writes a snapshot of every live run, or marks the run as failed.

  At an evaluation, it also writes a row of metrics.

  Args:
    job: the training.
    progress: at the step to record.
    taken: the steps since the last evaluation.
    clock: of the run.

  Returns:
    A summary for the progress bar.
  """
  step, config, rows = progress.step, job.batch[0].config, []
  is_evaluation = step % config.train.eval_every == 0
  size = config.eval.test_size if is_evaluation else config.eval.batch_size
  evaluation, phase = _evaluate(job, progress, size)
  with job.group.raise_together():
    for r in sorted(progress.live):
      workdir, of_run = job.batch[r].workdir, _of_run(evaluation, r)
      steps = _of_run(recorded.joined(taken), r) if taken else None
      if failed := recorded.failure(of_run, steps, step):
        progress.live.remove(r)
        progress.failures[r] = failed
        if job.group.is_writer:
          runs.write_failure(workdir, failed)
        continue
      if job.group.is_writer:
        snapshot = recorded.snapshot(job.batch[r], of_run, _of_run(phase, r))
        clock.save(runs.append_snapshot, workdir, step, snapshot)
      if is_evaluation:
        baselines = _of_run(job.trainer.baselines, r)
        row = {**recorded.row(job.batch[r], of_run, baselines), "step": step}
        row |= recorded.means(steps) | clock.seconds()
        rows.append(row)
        if job.group.is_writer:
          clock.save(runs.append_metrics, workdir, row)
          clock.save(job.log, row)
  return _summary(rows)


def _save(job: Job, progress: Progress):
  """Saves the state of every live run."""
  states = job.trainer.to_host(progress.state)
  for r in sorted(progress.live):
    workdir, state = job.batch[r].workdir, _of_run(states, r)
    runs.sync_history(workdir)
    runs.save_state(workdir, progress.step, state, job.keep or 2)


def _finish(job: Job, progress: Progress, clock: clocks.Clock):
  """Writes the result of every live run."""
  config = job.batch[0].config
  evaluation, _ = _evaluate(job, progress, config.eval.test_size)
  exact = job.trainer.exact()
  with job.group.raise_together():
    if not job.group.is_writer:
      return
    states = job.trainer.to_host(progress.state)
    for r in sorted(progress.live):
      run, of_run = job.batch[r], _of_run(evaluation, r)
      baselines = _of_run(job.trainer.baselines, r)
      of_exact = None if exact is None else _of_run(exact, r)
      result = recorded.row(run, of_run, baselines)
      result |= metrics.reference_losses(baselines)
      result |= metrics.excess_over_exact(of_run.loss_N, baselines, of_exact)
      result |= recorded.position_attention(run, _of_run(states.params, r))
      result |= {"steps": progress.step, **clock.seconds()}
      runs.write_result(run.workdir, result)


def _evaluate(
  job: Job, progress: Progress, size: int
) -> tuple[training.Evaluation, phases.Phase]:
  """Evaluates every run on the first prompts of its test set."""
  batch_size = job.batch[0].config.eval.batch_size
  evaluation, phase = job.trainer.evaluate(progress.state, size // batch_size)
  return evaluation._replace(loss_N=evaluation.loss_N[:, :size]), phase


def _next_step(step: int, every: int) -> int:
  """The next multiple of `every`, or the next of 1, 2, 3, 4, 6, 8, 12, .."""
  power = 1 << step.bit_length()
  middle = 3 * power // 4
  early = middle if power > 2 and step < middle else power
  return min((step // every + 1) * every, early)


def _of_run(tree, r: int):
  """One run of a tree with a leading axis of runs."""
  return jax.tree.map(lambda leaf: leaf[r], tree)


def _summary(rows: list[dict]) -> str:
  if not rows:
    return ""
  recovered, edges = (
    sum(row[name] for row in rows) for name in ("edges_recovered", "edges")
  )
  loss = np.mean([row["loss"] for row in rows])
  return f"loss {loss:.3f}, edges {recovered}/{edges}"
