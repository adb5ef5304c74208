"""The result of a run as rows of text."""

from collections.abc import Mapping

import numpy as np

from icl_causal.runs import Run


def rows(result: Mapping) -> list[tuple[str, str]]:
  """The table of a result, (what, value)."""
  attention = "none"
  if result["edges"]:
    attention = (
      f"{result['parent_attention_mean']:.3f} on average, "
      f"{result['parent_attention_min']:.3f} at least"
    )
  return [
    ("edges recovered", f"{result['edges_recovered']} of {result['edges']}"),
    ("false parents", str(result["false_parents"])),
    ("attention on the parent", attention),
    ("  by position scores", _number(result["position_attention_mean"])),
    ("loss (nats)", _with_error(result, "loss")),
    _edge_posterior(result),
    ("  excess over it", _with_error(result, "excess_loss")),
    ("  exact posterior", _exact_posterior(result)),
    ("  excess over it", _with_error(result, "excess_over_exact")),
    ("  entropy", f"{result['entropy']:.4f}"),
    ("  unigram", f"{result['unigram_loss']:.4f}"),
    ("  uniform", f"{result['uniform_loss']:.4f}"),
    ("steps", str(result["steps"])),
    ("seconds", _seconds(result)),
  ]


def baselines(result: Mapping) -> dict[str, float]:
  """The losses of the baselines in nats, by the names to show."""
  names = ("uniform_loss", "unigram_loss", "edge_posterior_loss")
  names += ("exact_posterior_loss", "entropy")
  return {
    name.removesuffix("_loss").replace("_", " "): result[name]
    for name in names
    if result[name] is not None
  }


def losses(run: Run) -> tuple[dict[int, float], dict[int, float]]:
  """The losses on the test set by step, and estimates at the other snapshots.

  A snapshot has the loss on a part of the test set. An estimate adds the
  difference between the test set and the part, interpolated between the
  evaluations before and after it.
  """
  full = {row["step"]: row["loss"] for row in run.history}
  part = {step: snapshot.loss for step, snapshot in run.snapshots.items()}
  place = np.log2(1 + np.array([*full]))
  gap = [full[step] - part[step] for step in full]
  return full, {
    step: loss + float(np.interp(np.log2(1 + step), place, gap))
    for step, loss in part.items()
    if step not in full
  }


def _edge_posterior(result: Mapping) -> tuple[str, str]:
  """The loss of the edge posterior, with the prior that it assumes."""
  if result["edge_posterior_loss"] is None:
    loss = _number(result.get("dirichlet_edge_posterior_loss"))
    return ("  Dirichlet edge posterior", loss)
  return ("  edge posterior", _number(result["edge_posterior_loss"]))


def _seconds(result: Mapping) -> str:
  wall, saving = result["wall_seconds"], result["saving_seconds"]
  return f"{wall:.1f} ({saving:.1f} for saving)"


def _exact_posterior(result: Mapping) -> str:
  loss = _with_error(result, "exact_posterior_loss")
  bias = result["exact_posterior_bias"]
  return loss if bias is None else f"{loss} (a bias of {bias:.4f} subtracted)"


def _with_error(result: Mapping, name: str) -> str:
  if result[name] is None:
    return "-"
  return f"{result[name]:.4f} +- {result[name + '_standard_error']:.4f}"


def _number(value: float | None) -> str:
  return "-" if value is None else f"{value:.4f}"
