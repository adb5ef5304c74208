"""The table of claims: verdicts, and a run of it all on small experiments."""

import json

import numpy as np
import pytest

from experiments import verify
from experiments.verify import Claim
from experiments.verify import Found

ROWS = [
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
FOUND = Found({"some": ROWS}, THEORY)


def test_measures_by_hand():
  assert verify.mean("some", "loss")(FOUND) == (1.5, pytest.approx(0.5))
  assert verify.largest("some", "loss")(FOUND) == (2.0, None)
  assert verify.share_of_edges("some")(FOUND) == (7 / 8, None)
  slope = verify.in_theory("theorems", "slope", "pairs", "L - L*")
  assert slope(FOUND) == (-0.5, 0.2)
  assert verify.share_of_rows(FOUND) == (19 / 20, None)
  alone = Found({"some": ROWS[:1]}, {})
  assert verify.mean("some", "loss")(alone) == (1.0, None)


@pytest.mark.parametrize(
  ("low", "high", "verdict", "asked"),
  [
    (1.5, np.inf, "pass", "at least 1.5"),
    (1.6, np.inf, "fail", "at least 1.6"),
    (-np.inf, 1.5, "pass", "at most 1.5"),
    (-np.inf, 1.4, "fail", "at most 1.4"),
    (1, 2, "pass", "1 to 2"),
    (0, 1, "fail", "0 to 1"),
    (-np.inf, np.inf, "-", "-"),
  ],
)
def test_verdicts(low, high, verdict, asked):
  claim = Claim("the loss", ".9", verify.mean("some", "loss"), low, high)
  (row,) = verify.judge([claim], FOUND)
  assert row == {
    "what": "the loss",
    "paper": ".9",
    "ours": 1.5,
    "standard_error": pytest.approx(0.5),
    "asked": asked,
    "verdict": verdict,
  }
  assert verify.table([row])[1] == [
    ["the loss", ".9", "1.50", "0.50", asked, verdict]
  ]


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
def test_numbers_are_shown_as_far_as_their_errors_go(ours, error, shown):
  row = {"what": "x", "paper": "-", "asked": "-", "verdict": "-"}
  row |= {"ours": ours, "standard_error": error}
  assert verify.table([row])[1] == [["x", "-", *shown, "-", "-"]]


def test_what_is_known_to_miss():
  """It is said, and no more is forgiven than is known."""
  for missed, verdict in (((1.0, 2.0), "missed"), ((1.0, 1.4), "fail")):
    claim = Claim("x", "-", verify.mean("some", "loss"), high=1, missed=missed)
    assert verify.judge([claim], FOUND)[0]["verdict"] == verdict


def test_nothing_is_verified_by_a_number_that_is_none():
  for low in (0, -np.inf):
    claim = Claim("x", "-", lambda found: (float("nan"), None), low=low)
    assert verify.judge([claim], FOUND)[0]["verdict"] == "fail"


def test_written_twice_as_it_is(tmp_path):
  claim = Claim("the loss", "-", verify.largest("some", "loss"), high=3)
  rows = verify.judge([claim], FOUND)
  verify.write(tmp_path, rows)
  record = json.loads((tmp_path / "verify.json").read_text())
  assert record == {"rows": rows}
  assert {"what", "paper", "ours", "standard_error", "verdict"} <= set(rows[0])
  assert (tmp_path / "verify.md").read_text() == (
    "| what | paper | ours | std. error | asked | verdict |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
    "| the loss | - | 2 | - | at most 3 | pass |\n"
  )


@pytest.mark.parametrize("tier", ["quick", "paper"])
def test_every_claim_is_of_what_the_tier_runs(tier):
  """Each reads an experiment or a check that `main` has results of."""

  class Anything(dict):
    def __missing__(self, name):
      assert name in known
      return [{}]

  known = {n for names in verify.paper.FIGURES.values() for n in names}
  for claim in verify.CLAIMS[tier]:
    with pytest.raises(KeyError) as missing:  # a field of a result, or a check
      claim.measure(Found(Anything(), {}))
    assert missing.value.args[0] not in known
