"""What a training records of one run: rows, snapshots and failures."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.harness.grid import Run
from icl_causal import metrics
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


def snapshot(evaluation: training.Evaluation, size: int) -> runs.Snapshot:
  """The snapshot of one run; its loss is on the first `size` prompts."""
  return runs.Snapshot(
    float(np.mean(evaluation.loss_N[:size])),
    np.asarray(evaluation.attention["attention_1"]),
    {name: np.asarray(array) for name, array in evaluation.first.items()},
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
    mean = recovery.mean_softmax_on_parents(scores_HxTxT, run.graph)
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
