"""Records of the phases of runs, and the tables of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from icl_causal import metrics
from icl_causal import runs
from icl_causal.report import phases

# Of a line that is recorded under results/.
FIELDS: dict[str, Any] = {
  "run": str,
  "seed": int,
  "steps": list,
  "weights": dict,
  "left": list,
  "layer_1": list,
  "layer_2": list,
}
_STEPS = (0, 16, 40, 96, 256, 1024)
_SETTLED = 0.01  # nats
_EDGE, _EXACT = "edge posterior", "exact posterior"


def line(run: runs.Run) -> dict:
  """The phases of a finished run by step, with four digits."""
  of = phases.curves(run, list(run.snapshots))

  def rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]

  return {
    "run": run.path.name,
    "seed": run.config.seed,
    "steps": of.steps,
    "weights": {name: rounded(of.weights[name]) for name in of.weights},
    "left": rounded(of.left),
    "layer_1": rounded(of.layer_1),
    "layer_2": rounded(of.layer_2),
  }


def by_step(lines: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows: means over seeds with standard errors, at some steps.

  The last column is of the runs without the exact posterior.
  """
  full, alone = _divided(lines)
  names = list(full[0]["weights"])
  header = ["step", *names, "left", "layer 1 lacks", "layer 2 lacks"]
  header += [f"{_EDGE}, without the exact one"]
  rows = []
  for step in filter(full[0]["steps"].__contains__, _STEPS):
    columns = [
      _at(full, step, lambda one, n=n: one["weights"][n]) for n in names
    ]
    columns += [
      _at(full, step, lambda one, f=field: one[f])
      for field in ("left", "layer_1", "layer_2")
    ]
    columns += [_at(alone, step, lambda one: one["weights"][_EDGE])]
    rows.append([step, *(_mean(values) for values in columns)])
  return header, rows


def headlines(lines: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows: a number of each phase, with its standard error."""
  full, alone = _divided(lines)
  largest = [_largest(one, "unigram") for one in full]
  both = [_posteriors_at_end(one) for one in full]
  wrong = [max(one["weights"]["wrong graph"]) for one in full]
  rows = [
    ["largest weight of unigram", [weight for weight, _ in largest]],
    ["at step", [step for _, step in largest]],
    [f"{_EDGE} and {_EXACT}, at the end", both],
    [
      f"{_EDGE} without the {_EXACT}, at the end",
      [one["weights"][_EDGE][-1] for one in alone],
    ],
    ["largest weight of the wrong graph", wrong],
    ["left at the end (nats)", [one["left"][-1] for one in full]],
    [
      f"step from which layer 1 lacks less than {_SETTLED} nats",
      [_settled(one) for one in full],
    ],
  ]
  header = ["number", "mean over seeds"]
  return header, [[what, _mean(values)] for what, values in rows]


def _divided(lines: Sequence[Mapping]) -> tuple[list[Mapping], list[Mapping]]:
  """The runs with the exact posterior among the predictors, and the others."""
  full = [one for one in lines if _EXACT in one["weights"]]
  alone = [one for one in lines if _EXACT not in one["weights"]]
  return full or alone, alone  # its estimate may be too poor in every run


def _at(lines: Sequence[Mapping], step: int, values: Callable) -> list[float]:
  return [values(one)[one["steps"].index(step)] for one in lines]


def _posteriors_at_end(one: Mapping) -> float:
  return sum(one["weights"].get(name, [0.0])[-1] for name in (_EDGE, _EXACT))


def _largest(one: Mapping, name: str) -> tuple[float, int]:
  k = int(np.argmax(one["weights"][name]))
  return one["weights"][name][k], one["steps"][k]


def _settled(one: Mapping) -> int | str:
  """The first step from which the decided graph predicts like the graph."""
  late = [k for k, lack in enumerate(one["layer_1"]) if abs(lack) >= _SETTLED]
  first = late[-1] + 1 if late else 0
  return one["steps"][first] if first < len(one["steps"]) else "never"


def _mean(values: Sequence) -> str:
  """Steps as a list, and other numbers as a mean with its standard error."""
  if not all(isinstance(value, float) for value in values):
    return ", ".join(str(value) for value in values)
  mean, error = metrics.mean_and_standard_error(values)
  return f"{mean:.3f} +- {error:.3f}"
