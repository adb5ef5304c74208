"""The table of numbers: digits, files, and rows that exist."""

import json

import pytest

from configs import paper
from configs import rows
from configs import theory as theory_configs
from configs.targets import SHOWN
from configs.targets import Entry
from configs.targets import Row
from configs.targets import Target
from experiments import verify
from experiments.harness import verdicts
from experiments.harness.verdicts import Results

MEAN = Row("x", "chain", "mean", "loss", "seeds", ".9", None, None)
RESULTS = Results({"chain": [{"loss": 1.0}, {"loss": 2.0}]}, {})


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
  judged = [verdicts.judge(MEAN, Target("ours", high=30.0), RESULTS)]
  verify.write(tmp_path, judged)
  record = json.loads((tmp_path / "verify.json").read_text())
  assert record == {"rows": judged}
  assert {"what", "paper", "ours", "standard_error", "verdict"} <= set(
    judged[0]
  )
  assert (tmp_path / "verify.md").read_text() == (
    "| what | paper | ours | std. error | over | target | source | verdict |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    "| x | .9 | 1.50 | 0.50 | 2 seeds | at most 30 | ours | pass |\n"
  )


def _entries(row: Row) -> list[Entry]:
  bounds = [
    target.bound.entry
    for target in (row.quick, row.authors)
    if target is not None and target.bound is not None
  ]
  return [*bounds, *([row.field] if isinstance(row.field, Entry) else [])]


def test_every_number_has_one_row_whose_results_exist():
  names = [row.what for row in rows.ROWS]
  assert len(set(names)) == len(names)
  assert len(rows.HEADLINES) == 9
  assert set(rows.HEADLINES) <= set(names)
  assert not set(paper.EXPERIMENTS) & set(theory_configs.CHECKS)
  assert set(paper.CHECKS["quick"]) == set(paper.CHECKS["paper"])
  for row in rows.ROWS:
    assert row.of in {*paper.EXPERIMENTS, *paper.CHECKS["paper"]}
    assert isinstance(row.field, Entry) == (row.statistic == "entry")
    for entry in _entries(row):
      assert entry.check in paper.CHECKS["paper"]
      assert row.of in (*paper.EXPERIMENTS, entry.check)
    for target in (row.quick, row.authors):
      if target not in (None, SHOWN):
        assert not target.bound or target.reason
