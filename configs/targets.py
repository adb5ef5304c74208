"""The parts of a row of the table of `verify`; configs/rows.py has the rows."""

import math
from typing import Literal, NamedTuple

Source = Literal["paper", "theorem", "ours"]
Statistic = Literal["mean", "largest", "share", "entry"]


class Entry(NamedTuple):
  """An entry of the table of a theory check.

  Attributes:
    check: a name of configs/theory.py.
    key: the first cells of the row.
    column: of the number.
    error: the column of its standard error, or None.
    num_units: the column of the number of independent units, or None if there
      are so many that the error is known.
  """

  check: str
  key: tuple
  column: str
  error: str | None = None
  num_units: str | None = None


class Bound(NamedTuple):
  """Shows that a target is out of reach, if an entry is inside a range.

  Attributes:
    entry: of a theory check.
    low: the smallest value that shows it, or -inf.
    high: the largest value that shows it, or inf.
  """

  entry: Entry
  low: float = -math.inf
  high: float = math.inf


class Target(NamedTuple):
  """The range in which a number passes in a tier.

  Attributes:
    source: whose range it is: `paper` (a number of the paper), `theorem` (a
      theorem of the paper, or of the one that the row is about) or `ours` (our
      own goal).
    low: the smallest value that passes, or -inf.
    high: the largest value that passes, or inf.
    error: the standard error of the end of the range, if it is measured.
    bound: shows that the target is out of reach, or None.
    reason: why the target is missed or undecided; shown with such a verdict.
  """

  source: Source
  low: float = -math.inf
  high: float = math.inf
  error: float = 0.0
  bound: Bound | None = None
  reason: str = ""


class Row(NamedTuple):
  """A number of the paper, and how ours is computed.

  Attributes:
    what: a description, which names the row.
    of: an experiment of configs/paper.py, or a check of configs/theory.py.
    statistic: `mean` and `largest` are over units, `share` is a ratio of sums,
      `entry` is an entry of a check's table.
    field: a field of the runs' results; for `share`, (numerator, denominator),
      which may be columns of a check; for `entry`, an `Entry`.
    unit: what is independent: `seeds`, `graphs`, `prompts`, .. Runs of one
      graph are averaged before the mean over graphs.
    paper: the paper's value, as text.
    quick: the target of the tier quick; `SHOWN` shows the number without a
      verdict, None omits the row.
    authors: the target of the tier paper, likewise.
  """

  what: str
  of: str
  statistic: Statistic
  field: str | tuple[str, str] | Entry
  unit: str
  paper: str
  quick: Target | None
  authors: Target | None


SHOWN = Target("ours")  # a number without a target
