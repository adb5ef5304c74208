"""Trains one model on one graph; leaves a run directory, figures, a report.

    python -m experiments.train --config=configs/single_parent.py:chain

A finished run is shown again, an unfinished one goes on where it stopped.
"""

from collections.abc import Callable
import math
import pathlib
import sys
import time

from absl import flags
import jax
import numpy as np
import tqdm

from experiments import build
from experiments import cli
from experiments import clocks
from experiments import copies
from experiments import processes
from experiments import program
from experiments import show
from experiments import stopping
from icl_causal import metrics
from icl_causal import recovery
from icl_causal import runs
from icl_causal import training
from icl_causal.graphs import Graph

# Effective samples below which the exact posterior's loss is not told: there
# its error in nats, found on pairs and forests, may be over .005.
ENOUGH = 8.0


def main():
  """The command."""
  processes.join()
  config = cli.config()
  build.check(config)
  if not processes.is_one_of_several():
    cli.use_cores(
      build.num_cores(
        config.train.batch_size,
        (config.eval.test_size, config.eval.posterior_prompts),
        cli.cores(),
      )
    )
  build.check_devices(config)
  workdir = cli.workdir(f"{config.graph.name}-{runs.digest(config.to_dict())}")
  graph = build.graph(config)
  asked = stopping.when_asked()

  def stop() -> bool:
    return processes.any_of_them(asked())

  with processes.opened(
    workdir, config.to_dict(), flags.FLAGS.overwrite
  ) as finished:
    follow = copies.none
    with processes.one_fate():
      if processes.is_first():
        follow = copies.asked(workdir, config.to_dict())
        if finished:
          follow()
    if not finished:
      train(config, graph, workdir, flags.FLAGS.keep, stop, follow)
  if processes.is_first():
    if finished:
      print(f"{workdir} is finished; --overwrite runs it again")
    print(show.table(runs.read_result(workdir)))
    print(f"\n{workdir}/report.html shows the figures")


def train(
  config: build.Config,
  graph: Graph,
  workdir: pathlib.Path,
  keep: int | None = None,
  stop: Callable[[], bool] = stopping.never,
  follow: Callable[[], None] = copies.none,
):
  """Trains from where the run stands to its end, and writes all of it.

  Args:
    config: checked.
    graph: of the config.
    workdir: prepared for it.
    keep: how many checkpoints stay, one of each evaluation, the newest. By
      default two, and one is left out where saving would take its time.
    stop: whether to stop here; asked after every evaluation.
    follow: called when metrics.jsonl has grown.

  Raises:
    NonFinite: with what was seen in failed.json.
    Stopped: if `stop` says so.
  """
  started, writes = time.monotonic(), processes.is_first()
  mesh = build.mesh()
  run = program.program(config, mesh)
  whole = build.whole(mesh)
  own = jax.device_put(program.member(config, graph), whole)
  # Here and below one program ends before the next begins: two at once, whose
  # devices wait for each other, can come to a standstill on a CPU.
  test = jax.block_until_ready(
    jax.jit(run.draw_test, out_shardings=build.by_prompt(mesh))(own)
  )
  predictors = jax.block_until_ready(
    jax.jit(lambda tree: tree, out_shardings=whole)(test.predictors)
  )
  evaluate = jax.jit(run.evaluate, out_shardings=whole)
  take_steps = jax.jit(run.take_steps, donate_argnums=1, out_shardings=whole)

  def fail(seen: dict):
    with processes.one_fate():
      if writes:
        runs.write_failure(workdir, seen)
    raise cli.NonFinite(
      f"{seen['what']} at step {seen['step']}: stopped; {workdir} keeps the "
      "last state saved before it, and failed.json what was seen"
    )

  def measure(state):
    found = evaluate(own, state, test)
    if not np.isfinite(found.loss_N).all():
      at = {"step": int(state.step), "what": "the test loss is not finite"}
      fail(at)
    edges = recovery.compare(
      found.attention["attention_1"], graph, include_self=True
    )
    return found, edges, measures(found.loss_N, edges, predictors)

  def record(state, steps: training.Steps | None):
    _, edges, row = measure(state)
    row |= {"step": int(state.step), **means(steps), **clock.seconds()}
    with processes.one_fate():
      if writes:
        clock.save(runs.append_metrics, workdir, row)
        clock.save(follow)
    bar.set_postfix_str(
      f"loss {row['loss']:.3f}, edges {edges.recovered}/{edges.edges}"
    )

  start = jax.jit(run.start, out_shardings=whole)(own)
  state, spent = resume(workdir, jax.device_get(start))
  state = jax.device_put(state, whole)
  clock = clocks.start(started, spent)
  step, last = int(state.step), config.train.steps
  with tqdm.tqdm(
    total=last,
    initial=step,
    unit="step",
    disable=None if writes else True,
  ) as bar:
    if not spent["wall_seconds"]:
      record(state, None)
    while step < last:
      state, steps = take_steps(own, state)
      if seen := failure(steps, step):
        fail(seen)
      step = int(state.step)
      record(state, steps)
      ends = stop() or step == last
      with processes.one_fate():
        if writes:
          arguments = workdir, step, jax.device_get(state), keep or 2
          clock.sparingly(ends or bool(keep), runs.save_state, *arguments)
      if ends and step < last:
        raise stopping.Stopped(f"stopped at step {step} of {last}")
      bar.update(config.train.eval_every)

  found, edges, result = measure(state)
  exact = None
  if config.eval.posterior_prompts:
    exact = jax.jit(run.exact, out_shardings=whole)(own, test)
  result |= reference_losses(predictors) | against_exact(
    result, predictors, exact
  )
  result |= {"steps": step, **clock.seconds()}
  with processes.one_fate():
    if writes:
      from experiments import draw  # loads matplotlib, which --help can spare

      draw.write(
        workdir, config, graph, state.params, found.attention, edges, result
      )
      runs.write_result(workdir, result)


def resume(workdir: pathlib.Path, start: training.TrainState):
  """The newest saved state, or `start`, and the seconds that went into it.

  Metrics after that state are dropped, and so is what was seen of a number that
  is not finite: the run comes to it again. No seconds: nothing was written yet.
  """
  state, spent = start, dict.fromkeys(clocks.TIMES, 0.0)
  with processes.one_fate():
    if processes.is_first():
      saved, messages = runs.load_state(workdir, start)
      for message in messages:
        print(f"warning: {message}", file=sys.stderr)
      state = start if saved is None else saved
      rows = runs.cut_metrics(workdir, int(state.step))
      spent = {name: rows[-1][name] if rows else 0.0 for name in spent}
      (workdir / "failed.json").unlink(missing_ok=True)
  state, spent = processes.from_first((state, spent))
  return state, {name: float(seconds) for name, seconds in spent.items()}


def measures(loss_N, edges: recovery.Recovery, predictors: dict) -> dict:
  """What every evaluation is summed up in; losses in nats."""
  loss, error = metrics.mean_and_standard_error(loss_N)
  excess, excess_error = metrics.mean_and_standard_error(
    loss_N - predictors["edge_posterior"]
  )
  scores = edges.edge_scores
  return {
    "loss": loss,
    "loss_standard_error": error,
    "excess_loss": excess,
    "excess_loss_standard_error": excess_error,
    "edges": edges.edges,
    "edges_recovered": edges.recovered,
    "false_parents": edges.false_parents,
    "parent_attention_mean": float(np.mean(scores)) if scores else None,
    "parent_attention_min": min(scores, default=None),
  }


def reference_losses(predictors: dict) -> dict:
  """The mean loss of each predictor that needs no training."""
  return {
    name if name == "entropy" else f"{name}_loss": float(loss_N.mean())
    for name, loss_N in predictors.items()
  }


def against_exact(row: dict, predictors: dict, exact) -> dict:
  """The loss of the exact posterior, and what the model's exceeds it by.

  On the whole test set: that of the edge posterior there, less what the exact
  one gains on the prompts that it was computed for.

  Args:
    row: the measures of a model.
    predictors: losses on the whole test set.
    exact: losses and effective sample sizes on the first prompts of it, or
      None. Where the sample sizes are too small, no loss comes of them.
  """
  names = (
    "exact_posterior_loss",
    "exact_posterior_loss_standard_error",
    "excess_over_exact",
    "excess_over_exact_standard_error",
    "exact_posterior_effective_samples",
  )
  if exact is None:
    return dict.fromkeys(names)
  loss_M, effective_M = map(np.asarray, exact)
  edge_N = np.asarray(predictors["edge_posterior"])
  gain, error = metrics.mean_and_standard_error(edge_N[: len(loss_M)] - loss_M)
  effective = float(1 / np.mean(1 / effective_M))
  excess_error = math.hypot(error, row["excess_loss_standard_error"])
  values = (
    float(edge_N.mean()) - gain,
    error,
    row["excess_loss"] + gain,
    excess_error,
  )
  if not effective >= ENOUGH or not np.isfinite(values).all():
    values = (None,) * len(values)
  told = effective if math.isfinite(effective) else None
  return dict(zip(names, (*values, told), strict=True))


def means(steps: training.Steps | None) -> dict:
  """Of what was seen in the steps before an evaluation."""
  return {
    "train_loss": None if steps is None else float(np.mean(steps.loss_N)),
    "gradient_norm": None
    if steps is None
    else float(np.mean(steps.gradient_norm_N)),
  }


def failure(steps: training.Steps, before: int) -> dict | None:
  """What was seen up to the first step that is not finite, if there is one.

  Args:
    steps: of one run.
    before: the steps taken before them.
  """
  loss_N, norm_N = map(np.asarray, steps)
  finite_N = np.isfinite(loss_N) & np.isfinite(norm_N)
  if finite_N.all():
    return None
  bad = int(np.argmin(finite_N))
  seen = slice(max(0, bad - 7), bad + 1)
  what = "gradient" if np.isfinite(loss_N[bad]) else "loss"
  return {
    "step": before + bad + 1,
    "what": f"the {what} is not finite",
    "last_losses": [f"{value:.6g}" for value in loss_N[seen]],
    "last_gradient_norms": [f"{value:.6g}" for value in norm_N[seen]],
  }


if __name__ == "__main__":
  cli.define_run_flags()
  processes.define_flags()
  copies.define_flags()
  flags.DEFINE_integer(
    "keep",
    None,
    "Checkpoints to keep, one of each evaluation, the newest. By default two, "
    "and no more are saved than take 2 % of the time.",
    1,
  )
  cli.run(main)
