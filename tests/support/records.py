"""Records of runs for tests that do not train."""

from icl_causal import phases
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


def _valid(fields: records.Fields) -> dict:
  return {name: _VALUES[types] for name, types in fields.items()}
