"""What the benchmark has measured, as text and as a figure."""

from collections.abc import Sequence

import numpy as np

# A comparison of rivals has rows, the others a number for each name.
_ORDER = ("step", "sizes", "growth", "batches", "heads", "sweep", "edges")
_ORDER += ("start",)
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
  "of it",
  "MiB",
)


def line(row: dict) -> str:
  """A row of the table."""
  return _LINE.format(*_name(row), *(f"{row[name]:.3g}" for name in _NUMBERS))


def table(result: dict) -> str:
  """All that was measured, as text."""
  can = result["limits"]
  lines = [
    f"{result['device']}: {can['operations'] / 1e9:.0f} GFLOP/s, "
    f"{can['bytes'] / 1e9:.0f} GB/s",
    "Milliseconds a step, median of the ratios, the least that the machine",
    "allows, how many times that ours takes, and the memory of ours.",
  ]
  for part in filter(result.__contains__, _ORDER):
    if isinstance(result[part], list):
      lines += ["", HEADER, *map(line, result[part])]
    else:
      lines += ["", *(f"{k:<36}{v:.3g}" for k, v in result[part].items())]
  return "\n".join(lines) + "\n"


def changes(before: dict, after: dict) -> str:
  """How many times faster ours has become, for the rows that both have.

  By its ratio to the textbook, in which the speed of the machine cancels out.
  """
  lines = ["Ours against its time before, each held against the textbook:"]
  for part in (name for name in _ORDER if isinstance(after.get(name), list)):
    then = {_name(row): row["times_faster"] for row in before.get(part, [])}
    for row in after[part]:
      if _name(row) in then:
        gain = row["times_faster"] / then[_name(row)]
        lines.append(f"{line(row)[:39]}{gain:>7.2f} times")
  return "\n".join(lines)


def growth(rows: Sequence[dict]) -> dict[str, float]:
  """The power of T that the time of a training step grows with, for each S.

  By least squares on logarithms, from T = 64 on.
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
  from icl_causal import plotting  # matplotlib, which --help can spare

  panels = {}
  for S in sorted({row["S"] for row in rows}):
    T, ms = _steps(rows, S)
    labels = ("textbook", "ours", "limit")
    panels[f"S = {S}"] = T, dict(zip(labels, ms.values(), strict=True))
  return plotting.scaling(panels, "T", "milliseconds a training step")


def _name(row: dict) -> tuple:
  """What a row is a measurement of, in the order of the table."""
  heads = ",".join(map(str, row["heads"]))
  return row["kind"], row["S"], row["T"], row["batch_size"], heads


def _steps(rows: Sequence[dict], S: int, least: int = 0):
  """T, and by name what was measured of the training step."""
  chosen = [
    row
    for row in rows
    if row["kind"] == "training step" and row["S"] == S and row["T"] >= least
  ]
  names = ("textbook_ms", "ours_ms", "limit_ms")
  return [row["T"] for row in chosen], {
    name: [row[name] for row in chosen] for name in names
  }
