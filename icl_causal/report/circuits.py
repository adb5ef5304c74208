"""The measured circuit of a run, for its page and as figures."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from icl_causal import graphs
from icl_causal import runs
from icl_causal.analysis import circuits
from icl_causal.analysis import patches
from icl_causal.plotting import circuits as plots

# What is shown of each agreement, by its name in the record.
NUMBERS = {
  "measured": "measured (nats)",
  "predicted": "predicted (nats)",
  "through_zero": "slope through 0",
  "slope": "slope over pairs",
  "correlation": "r over pairs",
  "slope_of_means": "slope without noise",
  "correlation_of_means": "r without noise",
  "noise": "share of noise in measured",
  "predicted_noise": "share of noise in predicted",
  "slope_of_prompts": "slope over prompts and pairs",
  "correlation_of_prompts": "r over prompts and pairs",
}
_SHOWN = 0.01  # the least share of a block outside the construction


def of_run(run: runs.Run, steps: Sequence[int]) -> dict[str, Any] | None:
  """The data of the page, or None if no circuit is measured.

  Raises:
    RunError: if the record is damaged.
  """
  T = len(run.graph.parents_TxK)
  record = runs.read_circuits(run.path, T)
  if record is None:
    return None
  return {
    "text": in_words(record),
    "scores": score_rows(record),
    "blocks": block_rows(record),
    "agreement": agreement_table(record),
    "patches": {
      # The rows of the triangle below the diagonal, one after another.
      name: [
        None if value is None else round(value, 5)
        for i, row in enumerate(matrix)
        for value in row[:i]
      ]
      for name, matrix in in_order(record).items()
    },
    "curves": curves(run, steps),
  }


def figure(record: Mapping, graph) -> Figure | None:
  """The matrices of patches, or None without any."""
  if not record["patches"]:
    return None
  return plots.patches(
    {
      name: np.array(matrix, float) for name, matrix in in_order(record).items()
    },
    np.asarray(graphs.adjacency(graph)),
  )


def in_order(record: Mapping) -> dict[str, list]:
  """The patches, measured before predicted; empty without any."""
  names = (*patches.MEASURED, *patches.PREDICTED)
  return {n: record["patches"][n] for n in names if n in record["patches"]}


def curves(run: runs.Run, steps: Sequence[int]) -> dict[str, list]:
  """The parent score and the matching score at some snapshots.

  The parent score is of the map averaged over test prompts. The matching score
  is averaged over the recorded prompts that have a matching position; it is
  None if there are none.
  """
  parents_T = np.asarray(run.graph.parents_TxK)[:, 0]
  child_E = np.flatnonzero(parents_T >= 0)
  num = len(next(iter(run.snapshots.values())).prompts.get("law", ()))
  num = min(num, run.config.eval.test_size)
  x_PxT = np.zeros((0, 1), int)
  if num:
    x_PxT = np.asarray(run.prompts(num, kernels=False).x_T)
  found: dict[str, list] = {"parent": [], "matching": [], "by chance": []}
  for step in steps:
    snapshot = run.snapshots[step]
    found["parent"].append(
      float(snapshot.attention[0, child_E, parents_T[child_E]].mean())
    )
    means: Sequence[float | None] = (None, None)
    if num:
      first, last = (
        snapshot.prompts[f"attention_{layer}"][:num] for layer in (1, 2)
      )
      means = _matching(first, last, x_PxT, run.graph)
    found["matching"].append(means[0])
    found["by chance"].append(means[1])
  return found


def in_words(record: Mapping) -> str:
  """What was measured, in a few sentences."""
  scores = record["scores"]
  text = (
    f"On {record['prompts']} prompts. Layer 1 has "
    f"{_number(scores['parent'], 4)} of the attention of a position on its "
    f"parent. Layer 2 has {_number(scores['matching'], 4)} on the positions "
    "whose parent has the token of the query, where there are any; uniform "
    f"attention would have {_number(scores['by_chance'], 4)}. "
  )
  if record["clamp"] is not None:
    text += (
      "If layer 1 attends to the parents alone, the loss changes by "
      f"{_number(record['clamp'], 4)} nats. "
    )
  else:
    text += f"{record['reason'][:1].upper()}{record['reason'][1:]}. "
  return text


def score_rows(record: Mapping) -> list[list[str]]:
  """The scores, and the effect of the clamp: name and value with error."""
  rows = [
    [name.replace("_", " "), _number(record["scores"][name], 4)]
    for name in circuits.Scores._fields
  ]
  if record["clamp"] is not None:
    rows.append(["loss, layer 1 clamped (nats)", _number(record["clamp"], 5)])
  return rows


def block_rows(record: Mapping) -> list[list[str]]:
  """The blocks of the construction, and those with a share of the norm."""
  rows = []
  for block in record["blocks"]:
    if block["cosine"] is None and block["share"] < _SHOWN:
      continue
    cells = (
      "-" if block[n] is None else f"{block[n]:.3f}"
      for n in ("cosine", "scale")
    )
    where = f"{block['row']} > {block['column']}"
    rows.append([block["matrix"], where, f"{block['share']:.3f}", *cells])
  return rows


def agreement_table(record: Mapping) -> list[list[str]]:
  """Header and rows: a column for each measured and predicted change."""
  of = record["agreement"]
  if not of:
    return []
  names = [f"{m}, {p}" for m in patches.MEASURED for p in patches.PREDICTED]
  return [
    ["", *names],
    *(
      [title, *(_number(of[name].get(number), 4) for name in names)]
      for number, title in NUMBERS.items()
    ),
  ]


def _matching(first, last, x_PxT, graph) -> list[float | None]:
  """The mean matching score, and that of uniform attention."""
  found = [
    circuits.scores({"attention_1": a, "attention_2": b}, x_T, graph)
    for a, b, x_T in zip(first, last, x_PxT, strict=True)
  ]
  return [
    circuits.mean([getattr(one, name) for one in found]).value
    for name in ("matching", "by_chance")
  ]


def _number(of: Mapping | None, digits: int) -> str:
  if of is None or of["value"] is None:
    return "-"
  text = f"{of['value']:.{digits}f}"
  if of["error"] is None or not math.isfinite(of["error"]):
    return text
  return f"{text} +- {of['error']:.{digits}f}"
