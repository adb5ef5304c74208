"""The training loop: trains runs of one program from their last saved states.

Every run has its own directory, with the same files whether it is trained alone
or with others. The loop evaluates every `train.eval_every` steps, appends a row
to each metrics.jsonl and saves states. A run whose loss or gradient is not
finite is marked as failed while the others continue.
"""

from collections.abc import Callable, Sequence
import contextlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness import app
from experiments.harness import batches
from experiments.harness import clock as clocks
from experiments.harness import distributed
from experiments.harness import loggers
from experiments.harness import memory
from experiments.harness import progress as progress_of
from experiments.harness import resume
from experiments.harness import signals
from experiments.harness.grid import Run
from icl_causal import metrics
from icl_causal import runs
from icl_causal import training
from icl_causal.analysis import recovery
from icl_causal.config import build


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
):
  """Trains runs of one program together, in this process alone.

  Runs whose saved states have no step in common are trained one group after
  another.

  Args:
    batch: the runs; finished and failed runs are not trained again.
    at_once: number of runs per device at once.
    stop: as in `Job`.

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
      train(Job(part, trainer, group, stop=stop, show=show), started)


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
    job.show(0, _record(job, progress, None, clock))
  while progress.step < last and progress.live:
    state, steps = job.trainer.take_steps(progress.state)
    progress = progress._replace(step=progress.step + every, state=state)
    job.show(progress.step, _record(job, progress, steps, clock))
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
  steps: training.Steps | None,
  clock: clocks.Clock,
) -> str:
  """Writes a row of metrics for every live run, or marks it as failed.

  Returns:
    A summary for the progress bar.
  """
  step, rows = progress.step, []
  measured, _, maps_RxHxTxT = _measure(job, progress)
  with job.group.raise_together():
    for r in sorted(progress.live):
      workdir, row = job.batch[r].workdir, measured[r]
      of_run = failed = None
      if steps is not None:
        of_run = _of_run(steps, r)
        failed = metrics.failure(
          of_run.loss_N, of_run.gradient_norm_N, step - len(of_run.loss_N)
        )
      if row is None and not failed:
        failed = {"step": step, "what": "the test loss is not finite"}
      if failed:
        progress.live.remove(r)
        progress.failures[r] = failed
        if job.group.is_writer:
          runs.write_failure(workdir, failed)
      elif row is not None:
        row |= {"step": step, **_means(of_run), **clock.seconds()}
        rows.append(row)
        if job.group.is_writer:
          clock.save(runs.append_attention, workdir, step, maps_RxHxTxT[r])
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
  measured, loss_RxN, _ = _measure(job, progress)
  exact = None
  if job.batch[0].config.eval.posterior_prompts:
    exact = job.trainer.exact()
  with job.group.raise_together():
    if not job.group.is_writer:
      return
    states = job.trainer.to_host(progress.state)
    for r in sorted(progress.live):
      row = measured[r]
      assert row is not None  # otherwise the run has failed and is not live
      baselines = _of_run(job.trainer.baselines, r)
      of_run = None if exact is None else _of_run(exact, r)
      result = row | metrics.reference_losses(baselines)
      result |= metrics.excess_over_exact(loss_RxN[r], baselines, of_run)
      result |= _position_attention(job.batch[r], _of_run(states.params, r))
      result |= {"steps": progress.step, **clock.seconds()}
      runs.write_result(job.batch[r].workdir, result)


def _measure(job: Job, progress: Progress):
  """The metrics of each run, None if not finite, the losses and the maps."""
  loss_RxN, maps_RxHxTxT = job.trainer.evaluate(progress.state)
  measured: list[dict[str, Any] | None] = []
  for r, run in enumerate(job.batch):
    row = None
    if np.isfinite(loss_RxN[r]).all():
      edges = recovery.compare(maps_RxHxTxT[r], run.graph, include_self=True)
      baselines = _of_run(job.trainer.baselines, r)
      row = metrics.measures(loss_RxN[r], edges, baselines)
    measured.append(row)
  return measured, loss_RxN, maps_RxHxTxT


def _position_attention(run: Run, params: Any) -> dict:
  """The attention on the parent by the scores between positions alone."""
  model, mean = build.model(run.config, run.graph), None
  if hasattr(model, "position_blocks"):
    scores_HxTxT = model.position_blocks(params["A1"])
    mean = recovery.mean_softmax_on_parents(scores_HxTxT, run.graph)
  return {"position_attention_mean": mean}


def _of_run(tree, r: int):
  """One run of a tree with a leading axis of runs."""
  return jax.tree.map(lambda leaf: leaf[r], tree)


def _means(steps: training.Steps | None) -> dict:
  """The mean loss and gradient norm of the steps before an evaluation."""
  loss = norm = None
  if steps is not None:
    loss = float(np.mean(steps.loss_N))
    norm = float(np.mean(steps.gradient_norm_N))
  return {"train_loss": loss, "gradient_norm": norm}


def _summary(rows: list[dict]) -> str:
  if not rows:
    return ""
  recovered, edges = (
    sum(row[name] for row in rows) for name in ("edges_recovered", "edges")
  )
  loss = np.mean([row["loss"] for row in rows])
  return f"loss {loss:.3f}, edges {recovered}/{edges}"
