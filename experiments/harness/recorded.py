"""What a training records of one run: rows, snapshots and failures."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.harness.grid import Run
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import phases
from icl_causal import runs
from icl_causal import training
from icl_causal.analysis import recovery
from icl_causal.config import build


def row(run: Run, evaluation: training.Evaluation, baselines: Mapping) -> dict:
  """The metrics of a run.

  Args:
    run: the run.
    evaluation: on its whole test set.
    baselines: losses of the baselines on the test set, by name.
  """
  maps_HxTxT = evaluation.attention["attention_1"]
  edges = recovery.compare(maps_HxTxT, run.graph, include_self=True)
  return metrics.measures(evaluation.loss_N, edges, baselines)


def snapshot(
  run: Run, evaluation: training.Evaluation, phase: phases.Phase
) -> runs.Snapshot:
  """The snapshot of a run."""
  loss_N = evaluation.loss_N[: run.config.eval.batch_size]
  weights = {}
  for name in phases.PREDICTORS:
    if not np.isnan(weight := phase.weights.get(name, np.nan)):
      is_other = name == "edge_posterior" and not build.is_dirichlet(run.config)
      weights["dirichlet_edge_posterior" if is_other else name] = float(weight)
  return runs.Snapshot(
    float(np.mean(loss_N)),
    np.asarray(evaluation.attention["attention_1"]),
    {name: np.asarray(array) for name, array in evaluation.first.items()},
    phases.Phase(weights, *map(float, phase[1:])),
  )


def failure(
  evaluation: training.Evaluation, steps: training.Steps | None, step: int
) -> dict | None:
  """The record of the first number of a run that is not finite, or None."""
  last = {}
  if steps is not None:
    failed = metrics.failure(*steps, step - len(steps.loss_N))
    if failed:
      return failed
    last = metrics.last_steps(*steps)
  if np.isfinite(evaluation.loss_N).all():
    return None
  return {"step": step, "what": "the test loss is not finite", **last}


def position_attention(run: Run, params: Any) -> dict:
  """The attention on the parent by the scores between positions alone."""
  model, mean = build.model(run.config, run.graph), None
  if hasattr(model, "position_blocks"):
    scores_HxTxT = model.position_blocks(params["A1"])
    graph = graphs.shared(run.graph)
    mean = recovery.mean_softmax_on_parents(scores_HxTxT, graph)
  return {"position_attention_mean": mean}


def joined(taken: Sequence[training.Steps]) -> training.Steps:
  """The steps one after another."""
  return jax.tree.map(lambda *of_N: np.concatenate(of_N, axis=1), *taken)


def means(steps: training.Steps | None) -> dict:
  """The mean loss and gradient norm of the steps before an evaluation."""
  loss = norm = None
  if steps is not None:
    loss = float(np.mean(steps.loss_N))
    norm = float(np.mean(steps.gradient_norm_N))
  return {"train_loss": loss, "gradient_norm": norm}
