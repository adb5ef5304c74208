"""The tables of docs/interventions.md, from rows typed by hand."""

import pytest

from experiments.theory import intervention_pages
from experiments.theory import intervention_scores
from experiments.theory import interventions

pytestmark = pytest.mark.slow


def _rows():
  methods = (*intervention_scores.METHODS, interventions.GUARANTEED)
  setting = ["chain", 3, 0.1]
  for design, share in (
    ("independent", 0.0),
    ("independent", 0.5),
    ("one token", 0.25),
    ("roots", 0.25),
  ):
    for m, method in enumerate(methods):
      cells = [10.0 + m, 1.0, 1 + share + m, 0.1]
      if method == intervention_scores.GRADIENT_UNKNOWN and share == 0.5:
        cells = [None] * 4
      yield [*setting, design, share, method, "N90", *cells]
    yield [*setting, design, share, "margin", "nats", 0.25, 0.01, 0.8, 0.02]
  for m, method in enumerate((*methods, "margin")):
    share, cells = (0.5, [0.9 - m / 10, 0.05]) if m else (None, [None, None])
    best = [*setting, "independent", share, method, "best share"]
    yield [*best, None, None, *cells]


def _cells(table):
  header, _, *lines = (
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in table.splitlines()
  )
  return header, lines


def test_tables_by_hand():
  recorded = {"header": list(interventions.HEADER), "rows": list(_rows())}
  tables = intervention_pages.shown(recorded)
  header, lines = _cells(tables["interventions shares"])
  assert header[3:] == ["", "share 0", "0.5"]
  assert [line[3:] for line in lines] == [
    ["measured", "10.0 ± 1.0", "1.50 ± 0.10"],
    ["unset tokens", "-", "0.75 ± 0.05"],
    ["guaranteed", "14.0 ± 1.0", "5.50 ± 0.10"],
    ["margin", "0.25 ± 0.01", "0.80 ± 0.02"],
  ]
  _, lines = _cells(tables["interventions methods"])
  assert [line[3:] for line in lines] == [
    ["best possible, unknown", "11.0 ± 1.0", "2.50 ± 0.10"],
    ["gradient, dropped", "12.0 ± 1.0", "3.50 ± 0.10"],
    ["gradient, unknown", "13.0 ± 1.0", "-"],
  ]
  _, (line,) = _cells(tables["interventions best"])
  assert line[3:] == [
    *("-", "-", "0.5", "0.50 ± 0.05", "0.5", "0.40 ± 0.05"),
    *("0.5", "0.70 ± 0.05"),
  ]
  _, (line,) = _cells(tables["interventions designs"])
  ratios = ["1.25 ± 0.10", "5.25 ± 0.10", "3.25 ± 0.10"]
  assert line[3:] == ["0.25", *ratios] * 2


def test_no_tables_of_another_config():
  assert intervention_pages.shown(None) == {}
