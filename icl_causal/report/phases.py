"""The phases of a run, as curves by step and in words."""

from collections.abc import Sequence
from typing import NamedTuple

from icl_causal import metrics
from icl_causal.report import summary
from icl_causal.runs import Run

_CLEAR = 0.25  # the least largest weight of a predictor that is named in words
_SETTLED = 0.01  # nats


class Curves(NamedTuple):
  """The phases at some steps; each list has an entry for each step.

  Attributes:
    steps: of the snapshots.
    weights: by the names of predictors to show, in the order of what they use.
    left: the divergence from the mixture, in nats.
    layer_1: what layer 1 lacks, in nats: the loss of the decided graph minus
      that of the graph.
    layer_2: what layer 2 lacks, in nats: the loss of the model minus that of
      the graph, on the test set or estimated as in `summary.losses`, minus what
      layer 1 lacks.
  """

  steps: list[int]
  weights: dict[str, list[float]]
  left: list[float]
  layer_1: list[float]
  layer_2: list[float]


def curves(run: Run, steps: Sequence[int]) -> Curves:
  """The phases of a finished run at the steps of some of its snapshots."""
  phases = [run.snapshots[step].phase for step in steps]
  layer_1 = [one.decided_loss - one.edge_loss for one in phases]
  full, estimates = summary.losses(run)
  losses = [(full | estimates)[step] for step in steps]
  assert run.result is not None
  edge_loss = metrics.edge_losses(
    {
      name: run.result[f"{name}_loss"]
      for name in ("edge_posterior", "dirichlet_edge_posterior")
      if run.result.get(f"{name}_loss") is not None
    }
  )
  return Curves(
    list(steps),
    {
      name.replace("_", " "): [one.weights[name] for one in phases]
      for name in phases[0].weights
    },
    [one.left for one in phases],
    layer_1,
    [a - edge_loss - b for a, b in zip(losses, layer_1, strict=True)],
  )


def in_words(of: Curves, is_latent: bool = False) -> str:
  """What the curves show, in three or four sentences.

  Args:
    of: the phases of a run.
    is_latent: whether each prompt has a graph of its own.
  """
  peaks = []
  for name, weights in of.weights.items():
    k = max(range(len(weights)), key=weights.__getitem__)
    if weights[k] >= _CLEAR:
      peaks.append((k, f"{name} ({weights[k]:.2f} at step {of.steps[k]})"))
  text = "The predictors that the model is like, by the step of their largest "
  text += f"weight: {', '.join(peak for _, peak in sorted(peaks))}. "
  known = [name for name in of.weights if "posterior" in name]
  if len(known) > 1:
    total = sum(of.weights[name][-1] for name in known)
    text += f"At the end, the posteriors have {total:.2f} together. "
  text += f"A divergence of {of.left[-1]:.3f} nats from the mix is left. "
  if is_latent:
    return text + (
      "The lines compare the loss with that of the edge posterior of each "
      "prompt's own graph, which the model has to infer."
    )
  late = [k for k, lack in enumerate(of.layer_1) if abs(lack) > _SETTLED]
  first = late[-1] + 1 if late else 0
  if first < len(of.steps):
    text += (
      f"From step {of.steps[first]} on, the graph that layer 1 has decided on "
      f"predicts like the true one, to {_SETTLED} nats: what the model lacks "
      f"is layer 2's, {of.layer_2[-1]:.3f} nats at the end."
    )
  else:
    text += (
      f"At the end, layer 1 lacks {of.layer_1[-1]:.3f} nats, and layer 2 "
      f"{of.layer_2[-1]:.3f}."
    )
  return text
