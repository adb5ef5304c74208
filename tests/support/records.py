"""Records of runs for tests that do not train."""

from icl_causal import phases
from icl_causal.analysis import agreement
from icl_causal.analysis import circuits
from icl_causal.analysis import patches
from icl_causal.runs import records

_VALUES = {int: 0, records.NUMBER: 0.5, records.NUMBER | None: 0.5}


def row(step: int, **changes) -> dict:
  """A row of metrics."""
  return _valid(records.METRICS) | {"step": step} | changes


def result(**changes) -> dict:
  """The result of a run."""
  return _valid(records.RESULT) | changes


def phase(step: int) -> phases.Phase:
  """The phase of a step: first uniform, then unigram, then edge posterior."""
  known = step / (step + 8)
  weights = {
    "uniform": (1 - known) ** 2,
    "unigram": 2 * known * (1 - known),
    "wrong_graph": 0.0,
    "edge_posterior": known**2,
  }
  return phases.Phase(weights, 0.03 * known, 2 / (1 + step), 0.04)


def circuit(T: int) -> dict:
  """The measured circuit of a chain of T positions; all changes differ."""
  mean = {"value": 0.5, "error": 0.01}
  names = (*patches.MEASURED, *patches.PREDICTED)
  matrices = {
    name: [
      [
        0.01 * (n + 1) + 0.001 * (T * i + j) if j < i < T - 1 else None
        for j in range(T)
      ]
      for i in range(T)
    ]
    for n, name in enumerate(names)
  }
  block = {"matrix": "W", "row": "token 2.1", "column": "next token"}
  return {
    "step": 32,
    "prompts": 64,
    "scores": dict.fromkeys(circuits.Scores._fields, mean),
    "clamp": mean,
    "reason": None,
    "blocks": [block | {"share": 0.7, "cosine": 0.9, "scale": 3.0}],
    "patches": matrices,
    "agreement": {
      f"{m}, {p}": dict.fromkeys(agreement.Agreement._fields, mean)
      for m in patches.MEASURED
      for p in patches.PREDICTED
    },
  }


def _valid(fields: records.Fields) -> dict:
  return {name: _VALUES[types] for name, types in fields.items()}
