"""The results of the benchmark as text and as a figure."""

from collections.abc import Sequence

import numpy as np

# The parts in printed order. A part is a list of rows, or a dict of numbers.
_ORDER = ("step", "sizes", "growth", "batches", "heads")
_ORDER += ("parents", "sweep", "edges", "start", "tiers")
_NUMBERS = ("textbook_ms", "ours_ms", "times_faster", "limit_ms")
_NUMBERS += ("times_limit", "MiB")
_LINE = "{:<14}{:>4}{:>5}{:>7}{:>9}{:>11}{:>10}{:>14}{:>9}{:>8}{:>9}"
HEADER = _LINE.format(
  "",
  "S",
  "T",
  "batch",
  "heads",
  "textbook",
  "ours",
  "times faster",
  "limit",
  "ratio",
  "MiB",
)


def line(row: dict) -> str:
  """A row of the table."""
  return _LINE.format(*_name(row), *(f"{row[name]:.3g}" for name in _NUMBERS))


def table(result: dict) -> str:
  """All results as text."""
  limits = result["limits"]
  lines = [
    f"{result['device']}: {limits['operations'] / 1e9:.0f} GFLOP/s, "
    f"{limits['bytes'] / 1e9:.0f} GB/s",
    "Milliseconds per step: textbook, ours, and limit, the roofline bound of",
    "this machine. times faster: median of the ratios of textbook to ours.",
    "ratio: ours divided by limit. MiB: temporary memory of ours.",
  ]
  for part in filter(result.__contains__, _ORDER):
    if isinstance(result[part], list):
      lines += ["", HEADER, *map(line, result[part])]
    else:
      lines += ["", *(f"{k:<35} {v:.3g}" for k, v in result[part].items())]
  return "\n".join(lines) + "\n"


def changes(before: dict, after: dict) -> str:
  """The speedup of ours from one result to a later one, for their common rows.

  Compares the ratios to the textbook version, which cancels the speed of the
  machine.
  """
  lines = [
    "Speedup of ours since the earlier result, relative to the textbook:"
  ]
  for part in (name for name in _ORDER if isinstance(after.get(name), list)):
    earlier = {_name(row): row["times_faster"] for row in before.get(part, [])}
    for row in after[part]:
      if _name(row) in earlier:
        speedup = row["times_faster"] / earlier[_name(row)]
        lines.append(f"{line(row)[:39]}{speedup:>7.2f} times")
  return "\n".join(lines)


def growth(rows: Sequence[dict]) -> dict[str, float]:
  """The exponent p for each S, if the time of a training step grows as T^p.

  Fitted by least squares on logarithms, over T >= 64.
  """
  powers = {}
  for S in sorted({row["S"] for row in rows}):
    T, ms = _steps(rows, S, least=64)
    powers[f"power of T at S = {S:>2}"] = float(
      np.polyfit(np.log(T), np.log(ms["ours_ms"]), 1)[0]
    )
  return powers


def figure(rows: Sequence[dict]):
  """Milliseconds of a training step against T, a panel for each S."""
  # Imports matplotlib, which would make --help slow.
  from icl_causal.plotting import curves

  panels = {}
  for S in sorted({row["S"] for row in rows}):
    T, ms = _steps(rows, S)
    labels = ("textbook", "ours", "limit")
    panels[f"S = {S}"] = T, dict(zip(labels, ms.values(), strict=True))
  return curves.scaling(panels, "T", "milliseconds a training step")


def _name(row: dict) -> tuple:
  """The first columns of a row: kind, S, T, batch, heads."""
  heads = ",".join(map(str, row["heads"]))
  return row["kind"], row["S"], row["T"], row["batch_size"], heads


def _steps(rows: Sequence[dict], S: int, least: int = 0):
  """(T, milliseconds by name) of the training steps with S and T >= least."""
  steps = [
    row
    for row in rows
    if row["kind"] == "training step" and row["S"] == S and row["T"] >= least
  ]
  names = ("textbook_ms", "ours_ms", "limit_ms")
  return [row["T"] for row in steps], {
    name: [row[name] for row in steps] for name in names
  }
