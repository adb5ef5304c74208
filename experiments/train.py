"""Trains one model on one graph; leaves a run directory, figures, a report.

    python -m experiments.train --config=configs/single_parent.py:chain

A finished run is shown again, an unfinished one goes on where it stopped.
"""

import pathlib
import sys
import time

from absl import flags
import jax
import numpy as np
import tqdm

from experiments import build
from experiments import cli
from experiments import processes
from experiments import program
from experiments import show
from icl_causal import metrics
from icl_causal import recovery
from icl_causal import runs
from icl_causal import training
from icl_causal.graphs import Graph


def main():
  """The command."""
  processes.join()
  config = cli.config()
  build.check(config)
  if not processes.is_one_of_several():
    cli.use_cores(
      build.num_cores(
        config.train.batch_size, config.eval.test_size, cli.cores()
      )
    )
  build.check_devices(config)
  workdir = cli.workdir(f"{config.graph.name}-{runs.digest(config.to_dict())}")
  graph = build.graph(config)
  finished = False
  if processes.is_first():
    finished = runs.prepare(workdir, config.to_dict(), flags.FLAGS.overwrite)
  if not processes.from_first(finished):
    train(config, graph, workdir, flags.FLAGS.keep)
  if processes.is_first():
    if finished:
      print(f"{workdir} is finished; --overwrite runs it again")
    print(show.table(runs.read_result(workdir)))
    print(f"\n{workdir}/report.html shows the figures")


def train(
  config: build.Config, graph: Graph, workdir: pathlib.Path, keep: int = 2
):
  """Trains from where the run stands to its end, and writes all of it.

  Args:
    config: checked.
    graph: of the config.
    workdir: prepared for it.
    keep: how many checkpoints stay, the newest.
  """
  started = time.monotonic()
  writes = processes.is_first()
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

  def measure(state):
    found = evaluate(own, state, test)
    if not np.isfinite(found.loss_N).all():
      raise cli.NonFinite(
        f"a test loss at step {int(state.step)} is not finite: stopped; "
        f"{workdir} keeps the state before it"
      )
    edges = recovery.compare(
      found.attention["attention_1"], graph, include_self=True
    )
    return found, edges, measures(found.loss_N, edges, predictors)

  def record(state, train_loss):
    _, edges, row = measure(state)
    row |= {"step": int(state.step), "train_loss": train_loss}
    row["wall_seconds"] = time.monotonic() - started
    if writes:
      runs.append_metrics(workdir, row)
    bar.set_postfix_str(
      f"loss {row['loss']:.3f}, edges {edges.recovered}/{edges.edges}"
    )

  start = jax.jit(run.start, out_shardings=whole)(own)
  state, seconds = resume(workdir, jax.device_get(start))
  state = jax.device_put(state, whole)
  started -= seconds
  step = int(state.step)
  with tqdm.tqdm(
    total=config.train.steps,
    initial=step,
    unit="step",
    disable=None if writes else True,
  ) as bar:
    if not seconds:
      record(state, train_loss=None)
    while step < config.train.steps:
      state, losses = take_steps(own, state)
      check_finite(losses, step, workdir)
      step = int(state.step)
      record(state, train_loss=float(losses.mean()))
      if writes:
        runs.save_state(workdir, step, jax.device_get(state), keep)
      bar.update(config.train.eval_every)

  found, edges, result = measure(state)
  result |= reference_losses(predictors)
  result["steps"] = step
  result["wall_seconds"] = time.monotonic() - started
  if writes:
    from experiments import draw  # loads matplotlib, which --help can spare

    draw.write(
      workdir, config, graph, state.params, found.attention, edges, result
    )
    runs.write_result(workdir, result)


def resume(workdir: pathlib.Path, start: training.TrainState):
  """The newest saved state, or `start`, and the seconds that went into it.

  Metrics after that state are dropped. No seconds: nothing was written yet.
  """
  state, seconds = start, 0.0
  if processes.is_first():
    saved, messages = runs.load_state(workdir, start)
    for message in messages:
      print(f"warning: {message}", file=sys.stderr)
    state = start if saved is None else saved
    rows = runs.cut_metrics(workdir, int(state.step))
    seconds = rows[-1]["wall_seconds"] if rows else 0.0
  state, seconds = processes.from_first((state, seconds))
  return state, float(seconds)


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
  losses = {
    name if name == "entropy" else f"{name}_loss": float(loss_N.mean())
    for name, loss_N in predictors.items()
  }
  return losses | {"exact_posterior_loss": None}


def check_finite(losses, step: int, workdir: pathlib.Path):
  """Raises NonFinite at the first loss that is not a number."""
  losses = np.asarray(losses)
  if not np.isfinite(losses).all():
    bad = int(np.flatnonzero(~np.isfinite(losses))[0])
    raise cli.NonFinite(
      f"the loss of step {step + bad + 1} is {losses[bad]}: stopped; "
      f"{workdir} keeps the state of step {step}"
    )


if __name__ == "__main__":
  cli.define_run_flags()
  processes.define_flags()
  flags.DEFINE_integer("keep", 2, "Checkpoints to keep, the newest ones.", 1)
  cli.run(main)
