"""Tables for a terminal and in Markdown."""

from collections.abc import Mapping, Sequence

from icl_causal.report import summary


def result_table(result: Mapping) -> str:
  """The result of a run."""
  return "\n".join(f"{what:<28}{value}" for what, value in summary.rows(result))


def columns(header: Sequence[str], rows: Sequence[Sequence]) -> str:
  """A table for a terminal, numbers with four significant digits, None as -."""
  cells = _cells([header, *rows])
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return "\n".join(
    "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
    for row in cells
  )


def markdown(header: Sequence[str], rows: Sequence[Sequence]) -> str:
  """The same in Markdown."""
  rule = ["---"] * len(header)
  return "".join(
    f"| {' | '.join(cells)} |\n" for cells in _cells([header, rule, *rows])
  )


def _cells(rows: Sequence[Sequence]) -> list[list[str]]:
  def text(cell) -> str:
    if cell is None:
      return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)

  return [[text(cell) for cell in row] for row in rows]
