"""The outcome of a theory check."""

from typing import NamedTuple

from matplotlib.figure import Figure


class Outcome(NamedTuple):
  """A table, and a figure if the check draws one.

  Attributes:
    header: column names of the table.
    rows: cells of the table, numbers and words.
    figure: or None.
  """

  header: list[str]
  rows: list[list]
  figure: Figure | None
