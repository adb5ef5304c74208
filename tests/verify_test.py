"""The table of numbers: measures, verdicts, and what is written."""

import json
import math

import pytest

from configs import paper
from configs import theory as theory_configs
from configs.paper import Row
from configs.paper import Target
from experiments import verify
from experiments.verify import Results

RUNS = [
  {"loss": 1.0, "edges": 3, "edges_recovered": 3},
  {"loss": 2.0, "edges": 5, "edges_recovered": 4},
]
THEORY = {
  "theorems": {
    "header": ["graph", "quantity", "T = 16", "slope", "std. error"],
    "rows": [
      ["chain", "L - L*", 0.3, -0.7, 0.1],
      ["pairs", "L - L*", 0.4, -0.5, 0.2],
    ],
  },
  "information": {
    "header": ["S", "kind", "forests", "edges", "argmax", "violations"],
    "rows": [[3, "chi2", 2, 10, 10, 0], [3, "shannon", 2, 10, 9, 0]],
  },
}
RESULTS = Results({"chain": RUNS}, THEORY)


def _row(statistic, field, source="chain", **others):
  return Row("x", source, statistic, field, ".9", None, None, **others)


MEAN = _row("mean", "loss")
LARGEST = _row("largest", "loss")


def test_measures_by_hand():
  def measure(row):
    return verify.measure(row, RESULTS)

  assert measure(MEAN) == (1.5, pytest.approx(0.5))
  assert measure(LARGEST) == (2.0, None)
  assert measure(_row("share", ("edges_recovered", "edges"))) == (7 / 8, None)
  shares = _row("share", ("argmax", "edges"), "information")
  assert measure(shares) == (19 / 20, None)
  slope = _row("entry", "slope", "theorems", key=("pairs", "L - L*"))
  assert measure(slope) == (-0.5, None)
  assert measure(slope._replace(error="std. error")) == (-0.5, 0.2)
  alone = Results({"chain": RUNS[:1]}, {})
  assert verify.measure(MEAN, alone) == (1.0, None)


@pytest.mark.parametrize(
  ("target", "verdict", "words"),
  [
    (Target(low=1.5), "pass", "at least 1.5"),
    (Target(low=1.6), "fail", "at least 1.6"),
    (Target(high=1.5), "pass", "at most 1.5"),
    (Target(high=1.4), "fail", "at most 1.4"),
    (Target(1, 2), "pass", "1 to 2"),
    (Target(0, 1), "fail", "0 to 1"),
    (Target(), "-", "-"),
    (Target(high=1.0, gap=(1.0, 2.0), reason="z"), "known gap", "at most 1"),
    (Target(high=1.0, gap=(1.0, 1.4), reason="z"), "fail", "at most 1"),
  ],
)
def test_verdicts(target, verdict, words):
  (record,) = verify.judge([(MEAN, target)], RESULTS)
  assert record == {
    "what": "x",
    "paper": ".9",
    "ours": 1.5,
    "standard_error": pytest.approx(0.5),
    "target": words,
    "verdict": verdict,
    "reason": "z" if verdict == "known gap" else "",
  }
  assert verify.table([record])[1] == [
    ["x", ".9", "1.50", "0.50", words, verdict]
  ]


def test_a_number_that_is_not_finite_fails():
  results = Results({"chain": [{"loss": math.nan}]}, {})
  for low in (0, -math.inf):
    (record,) = verify.judge([(MEAN, Target(low=low))], results)
    assert record["verdict"] == "fail"


@pytest.mark.parametrize(
  ("ours", "error", "shown"),
  [
    (1.763083, 0.0016551, ("1.7631", "0.0017")),
    (-0.0173642, 0.00107, ("-0.0174", "0.0011")),
    (123.456, 12.3, ("123", "12")),
    (0.96287, None, ("0.9629", "-")),
    (1.0, 0.0, ("1", "0")),
  ],
)
def test_numbers_are_shown_to_the_digits_of_their_errors(ours, error, shown):
  assert verify.digits(ours, error) == shown


def test_both_files_have_the_same_rows(tmp_path):
  rows = verify.judge([(LARGEST, Target(high=3))], RESULTS)
  verify.write(tmp_path, rows)
  record = json.loads((tmp_path / "verify.json").read_text())
  assert record == {"rows": rows}
  assert {"what", "paper", "ours", "standard_error", "verdict"} <= set(rows[0])
  assert (tmp_path / "verify.md").read_text() == (
    "| what | paper | ours | std. error | target | verdict |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
    "| x | .9 | 2 | - | at most 3 | pass |\n"
  )


def test_every_number_has_one_row_whose_source_exists():
  names = [row.what for row in paper.ROWS]
  assert len(set(names)) == len(names)
  assert len(paper.HEADLINES) == 9
  assert set(paper.HEADLINES) <= set(names)
  assert not set(paper.EXPERIMENTS) & set(theory_configs.CHECKS)
  for row in paper.ROWS:
    assert row.source in {*paper.EXPERIMENTS, *paper.QUICK_CHECKS}
    assert row.statistic in ("mean", "largest", "share", "entry")
    for target in (row.quick, row.authors):
      assert target is None or (target.gap is None) == (not target.reason)
