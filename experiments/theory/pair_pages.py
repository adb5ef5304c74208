"""The tables of docs/samples.md on two parents, from a recorded result."""

from collections.abc import Mapping

from experiments.harness import tables
from experiments.theory import pair_methods

_SCORES_SIZES = (8, 16, 32, 64, 128, 256, 512, 2048)
_STAGED_SIZES = (128, 512, 2048, 8192, 32768)
_STAGED = (pair_methods.PHASES, pair_methods.STAGED)


def shown(recorded: Mapping | None) -> dict[str, str]:
  """The tables in Markdown, by name.

  Args:
    recorded: the result, with `header` and `rows`; None if the config has
      changed since, and then there are no tables.
  """
  if recorded is None:
    return {}
  rows = {
    (row[0], row[1]): dict(zip(recorded["header"], row, strict=True))
    for row in recorded["rows"]
  }
  heads = [pair_methods.heads(kind) for kind in pair_methods.KINDS]
  scores = (*pair_methods.SCORES, *heads)
  return {
    "pairs edges": _table(
      rows, [(name, "edges") for name in scores], _SCORES_SIZES
    ),
    "pairs needed": _needed(rows, scores),
    "pairs heads": _table(
      rows,
      [
        (name, quantity)
        for quantity in ("graphs", pair_methods.ATTENTION)
        for name in heads
      ],
      (8, 32, 128, 512),
    ),
    "pairs staged": _table(
      rows,
      [
        (name, quantity)
        for quantity in ("edges", "any slot", pair_methods.EXCESS)
        for name in _STAGED
      ],
      _STAGED_SIZES,
    ),
    "pairs over": _over(rows),
  }


def _table(rows: Mapping, names: list[tuple[str, str]], sizes) -> str:
  """Means with their errors, a line for each method and quantity."""
  lines = []
  for name in names:
    row = rows[name]
    cells = [_cell(row[f"N = {n}"], row[f"error at {n}"]) for n in sizes]
    lines.append([*name, row["graphs"], *cells])
  header = ["method", "quantity", "graphs", *(f"N = {n}" for n in sizes)]
  return tables.markdown(header, lines)


def _needed(rows: Mapping, names: tuple[str, ...]) -> str:
  """The numbers of prompts that methods need, a line for each."""
  lines = []
  for name in names:
    edges, anywhere = rows[name, "edges"], rows[name, "any slot"]
    cells = [
      _cell(row[level], row[f"error of {level}"], 1)
      for row, level in (
        (edges, "N50"),
        (edges, "N90"),
        (edges, "N99"),
        (anywhere, "N90"),
        (rows[name, "graphs"], "N50"),
      )
    ]
    lines.append([name, *cells])
  header = [
    "method",
    "N50",
    "N90",
    "N99",
    "any slot: N90",
    "half of the graphs",
  ]
  return tables.markdown(header, lines)


def _over(rows: Mapping) -> str:
  """How many methods are above the best possible, and the largest z."""
  judged = [cell for r in rows.values() if (cell := r["over the best"]) != "-"]
  z = [float(cell.rpartition(" ")[2]) for cell in judged]
  above = sum(not cell.startswith("no") for cell in judged)
  return tables.markdown(
    ["methods", "above the best possible", "largest z"],
    [[len(judged), above, max(z)]],
  )


def _cell(value, error, digits: int = 3) -> str:
  if isinstance(value, str):
    return value
  return f"{value:.{digits}f} ± {error:.{digits}f}"
