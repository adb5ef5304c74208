"""Records of runs for tests that do not train."""

from icl_causal.runs import records

_VALUES = {int: 0, records.NUMBER: 0.5, records.NUMBER | None: 0.5}


def row(step: int, **changes) -> dict:
  """A row of metrics."""
  return _valid(records.METRICS) | {"step": step} | changes


def result(**changes) -> dict:
  """The result of a run."""
  return _valid(records.RESULT) | changes


def _valid(fields: records.Fields) -> dict:
  return {name: _VALUES[types] for name, types in fields.items()}
