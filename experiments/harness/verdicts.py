"""Measures the rows of `configs.targets` and decides their verdicts."""

from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from configs import targets
from configs.targets import Bound
from configs.targets import Entry
from configs.targets import Row
from configs.targets import Target

_CONFIDENCE = 0.95


class Results(NamedTuple):
  """The results from which the numbers are computed.

  Attributes:
    runs: results of the runs of each experiment.
    theory: results of the checks of the theory, by name.
  """

  runs: dict[str, list[dict]]
  theory: dict[str, dict]


class Estimate(NamedTuple):
  """A number with the precision to which it is known.

  Attributes:
    value: of the number.
    error: its standard error over units, None for a count or an extreme.
    num_units: number of independent units, None if it is not known.
  """

  value: float
  error: float | None
  num_units: int | None

  @property
  def margin(self) -> float:
    """Half the width of Student's 95 % confidence interval."""
    if self.error is None:
      return 0.0
    if self.num_units is None:
      return float(stats.norm.ppf((1 + _CONFIDENCE) / 2)) * self.error
    quantile = stats.t.ppf((1 + _CONFIDENCE) / 2, self.num_units - 1)
    return float(quantile) * self.error


def measure(row: Row, results: Results) -> Estimate:
  """The number of a row."""
  if isinstance(row.field, Entry):
    return entry(row.field, results)
  records = (
    results.runs[row.of]
    if row.of in results.runs
    else _records(results.theory[row.of])
  )
  if isinstance(row.field, tuple):
    part, total = (sum(r[field] for r in records) for field in row.field)
    return Estimate(part / total, None, len(_by_unit(records, row.unit)))
  if row.statistic == "largest":
    most = float(max(r[row.field] for r in records))
    return Estimate(most, None, len(_by_unit(records, row.unit)))
  return mean_over(records, row.field, row.unit)


def mean_over(records: Sequence[Mapping], field: str, unit: str) -> Estimate:
  """The mean of a field over independent units.

  Args:
    records: results of runs.
    field: of the results.
    unit: `graphs` averages the runs of each graph first; with any other unit,
      every record is a unit.
  """
  values = [
    float(
      np.mean([math.nan if r[field] is None else r[field] for r in of_unit])
    )
    for of_unit in _by_unit(records, unit)
  ]
  error = None
  if len(values) > 1:
    error = float(np.std(values, ddof=1) / len(values) ** 0.5)
  return Estimate(float(np.mean(values)), error, len(values))


def entry(wanted: Entry, results: Results) -> Estimate:
  """An entry of the table of a theory check."""
  (found,) = [
    r
    for r in _records(results.theory[wanted.check])
    if tuple(r.values())[: len(wanted.key)] == wanted.key
  ]
  error = None if wanted.error is None else float(found[wanted.error])
  num = None if wanted.num_units is None else int(found[wanted.num_units])
  return Estimate(float(found[wanted.column]), error, num)


def judge(row: Row, target: Target, results: Results) -> dict:
  """The record of a row, with its verdict."""
  ours = measure(row, results)
  verdict = _verdict(target, ours, results)
  is_explained = verdict in ("known gap", "undecided", "fail")
  return {
    "what": row.what,
    "paper": row.paper,
    "ours": ours.value if math.isfinite(ours.value) else None,
    "standard_error": ours.error if math.isfinite(ours.value) else None,
    "unit": _unit(row, ours),
    "target": words(target),
    "source": "-" if target == targets.SHOWN else target.source,
    "verdict": verdict,
    "reason": target.reason if is_explained else "",
  }


def words(target: Target) -> str:
  """The range of a target."""
  low, high = f"{target.low:.4g}", f"{target.high:.4g}"
  error = f" +- {target.error:.2g}" if target.error else ""
  if target.low == target.high:
    return low + error
  if math.isinf(target.low) and math.isinf(target.high):
    return "-"
  if math.isinf(target.high):
    return f"at least {low}{error}"
  if math.isinf(target.low):
    return f"at most {high}{error}"
  return f"{low} to {high}{error}"


def _verdict(target: Target, ours: Estimate, results: Results) -> str:
  if not math.isfinite(ours.value):
    return "fail"
  if target == targets.SHOWN:
    return "-"
  beyond, margin = _beyond(target, ours), _margin(target, ours)
  if beyond <= -margin:
    return "pass"
  if beyond <= margin:
    return "undecided"
  if target.bound is not None:
    found = entry(target.bound.entry, results)
    if _beyond(target.bound, found) <= -found.margin:
      return "known gap"
  return "fail"


def _beyond(limits: Target | Bound, found: Estimate) -> float:
  """The distance beyond the range, negative inside."""
  return max(limits.low - found.value, found.value - limits.high)


def _margin(target: Target, found: Estimate) -> float:
  """Half the width of the interval of the difference from the target."""
  return math.hypot(found.margin, Estimate(0.0, target.error, None).margin)


def _by_unit(records: Sequence[Mapping], unit: str) -> list[list[Mapping]]:
  """The records of each independent unit: runs of one graph are one unit."""
  if unit != "graphs":
    return [[r] for r in records]
  by_graph: dict[int, list[Mapping]] = {}
  for r in records:
    by_graph.setdefault(r["graph.seed"], []).append(r)
  return list(by_graph.values())


def _unit(row: Row, ours: Estimate) -> str:
  return row.unit if ours.num_units is None else f"{ours.num_units} {row.unit}"


def _records(check: dict) -> list[dict]:
  """The rows of the table of a check, by column."""
  return [
    dict(zip(check["header"], cells, strict=True)) for cells in check["rows"]
  ]
