"""The results of runs as text."""

from collections.abc import Mapping, Sequence


def rows(result: Mapping) -> list[tuple[str, str]]:
  """The table of a result, (what, value)."""
  attention = "none"
  if result["edges"]:
    attention = (
      f"{result['parent_attention_mean']:.3f} on average, "
      f"{result['parent_attention_min']:.3f} at least"
    )
  return [
    ("edges recovered", f"{result['edges_recovered']} of {result['edges']}"),
    ("false parents", str(result["false_parents"])),
    ("attention on the parent", attention),
    ("loss (nats)", _with_error(result, "loss")),
    ("  edge posterior", f"{result['edge_posterior_loss']:.4f}"),
    ("  excess over it", _with_error(result, "excess_loss")),
    ("  exact posterior", _with_error(result, "exact_posterior_loss")),
    ("  excess over it", _with_error(result, "excess_over_exact")),
    ("  entropy", f"{result['entropy']:.4f}"),
    ("  unigram", f"{result['unigram_loss']:.4f}"),
    ("  uniform", f"{result['uniform_loss']:.4f}"),
    ("steps", str(result["steps"])),
    ("seconds", f"{result['wall_seconds']:.1f}"),
    ("  of them saving", f"{result['saving_seconds']:.1f}"),
  ]


def table(result: Mapping) -> str:
  """The same for a terminal."""
  return "\n".join(f"{what:<26}{value}" for what, value in rows(result))


def columns(header: Sequence[str], rows: Sequence[Sequence]) -> str:
  """A table for a terminal, numbers with four significant digits."""
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
  return [
    [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]
    for row in rows
  ]


def _with_error(result: Mapping, name: str) -> str:
  if result[name] is None:
    return "-"
  return f"{result[name]:.4f} +- {result[name + '_standard_error']:.4f}"
