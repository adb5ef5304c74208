"""Measures, confidence intervals and verdicts of the rows of `verify`."""

import math

import numpy as np
import pytest
from scipy import stats

from configs.targets import SHOWN
from configs.targets import Bound
from configs.targets import Entry
from configs.targets import Row
from configs.targets import Target
from experiments.harness import verdicts
from experiments.harness.verdicts import Estimate
from experiments.harness.verdicts import Results

RUNS = [
  {"loss": 1.0, "edges": 3, "edges_recovered": 3, "graph.seed": 0},
  {"loss": 2.0, "edges": 5, "edges_recovered": 4, "graph.seed": 0},
  {"loss": 4.5, "edges": 2, "edges_recovered": 2, "graph.seed": 1},
]
THEORY = {
  "theorems": {
    "header": ["graph", "quantity", "slope", "std. error", "runs"],
    "rows": [
      ["chain", "L - L*", -0.7, 0.1, 4],
      ["pairs", "L - L*", -0.5, 0.2, 4],
    ],
  },
}
RESULTS = Results({"chain": RUNS}, THEORY)
SLOPE = Entry("theorems", ("pairs", "L - L*"), "slope", "std. error", "runs")


def _row(statistic, field, of="chain", unit="seeds"):
  return Row("x", of, statistic, field, unit, ".9", None, None)


def test_measures_by_hand():
  def measure(*arguments, **others):
    return verdicts.measure(_row(*arguments, **others), RESULTS)

  mean, error = 2.5, np.std([1.0, 2.0, 4.5], ddof=1) / 3**0.5
  assert measure("mean", "loss") == (mean, pytest.approx(error), 3)
  # The mean of each graph first: 1.5 and 4.5.
  assert measure("mean", "loss", unit="graphs") == (3.0, pytest.approx(1.5), 2)
  assert measure("largest", "loss") == (4.5, None, 3)
  share = ("edges_recovered", "edges")
  assert measure("share", share) == (9 / 10, None, 3)
  assert measure("entry", SLOPE, of="theorems") == (-0.5, 0.2, 4)
  one = Results({"chain": RUNS[:1]}, {})
  assert verdicts.measure(_row("mean", "loss"), one) == (1.0, None, 1)


def test_margins_are_those_of_student_and_of_the_normal_law():
  assert Estimate(0.0, 2.0, 3).margin == pytest.approx(2 * 4.3027, rel=1e-4)
  assert Estimate(0.0, 2.0, None).margin == pytest.approx(3.92, rel=1e-3)
  assert Estimate(0.0, None, 3).margin == 0


# The mean of the runs is 2.5 +- 4.45 at 95 % confidence.
MARGIN = stats.t.ppf(0.975, 2) * np.std([1.0, 2.0, 4.5], ddof=1) / 3**0.5


@pytest.mark.parametrize(
  ("target", "verdict", "words"),
  [
    (Target("ours", high=7.0), "pass", "at most 7"),
    (Target("ours", high=6.0), "undecided", "at most 6"),
    (Target("ours", high=-1.0), "undecided", "at most -1"),
    (Target("ours", high=-2.0), "fail", "at most -2"),
    (Target("ours", low=-2.0), "pass", "at least -2"),
    (Target("ours", low=7.0), "fail", "at least 7"),
    (Target("paper", -2.0, 7.0), "pass", "-2 to 7"),
    (Target("paper", -2.0, 6.0), "undecided", "-2 to 6"),
    (Target("paper", high=-2.0, error=1.0), "undecided", "at most -2 +- 1"),
    (SHOWN, "-", "-"),
  ],
)
def test_verdicts(target, verdict, words):
  assert MARGIN == pytest.approx(4.45, abs=0.03)
  record = verdicts.judge(
    _row("mean", "loss"), target._replace(reason="z"), RESULTS
  )
  if target == SHOWN:
    record = verdicts.judge(_row("mean", "loss"), target, RESULTS)
  assert record == {
    "what": "x",
    "paper": ".9",
    "ours": 2.5,
    "standard_error": pytest.approx(MARGIN / 4.3027, rel=1e-4),
    "unit": "3 seeds",
    "target": words,
    "source": "-" if target == SHOWN else target.source,
    "verdict": verdict,
    "reason": "z" if verdict in ("undecided", "fail") else "",
  }


@pytest.mark.parametrize(
  ("low", "high", "verdict"),
  [
    # The entry is -.5 +- .64 at 95 % confidence.
    (-math.inf, 0.2, "known gap"),
    (-math.inf, 0.1, "fail"),
    (-1.2, math.inf, "known gap"),
    (-1.1, math.inf, "fail"),
  ],
)
def test_a_gap_is_known_only_if_its_bound_shows_it(low, high, verdict):
  target = Target("ours", high=-2.0, bound=Bound(SLOPE, low, high))
  judged = verdicts.judge(_row("mean", "loss"), target, RESULTS)
  assert judged["verdict"] == verdict
  reached = target._replace(high=7.0)
  judged = verdicts.judge(_row("mean", "loss"), reached, RESULTS)
  assert judged["verdict"] == "pass"


def test_a_count_is_decided_by_its_value():
  row = _row("largest", "loss")
  for high, verdict in ((4.5, "pass"), (4.4, "fail")):
    judged = verdicts.judge(row, Target("ours", high=high), RESULTS)
    assert judged["verdict"] == verdict
    assert judged["standard_error"] is None


def test_a_number_that_some_runs_do_not_have_fails():
  row = _row("mean", "excess_over_exact")
  results = Results(
    {"chain": [{"excess_over_exact": v} for v in (0.1, None)]}, {}
  )
  judged = verdicts.judge(row, Target("ours", high=1.0), results)
  assert (judged["ours"], judged["verdict"]) == (None, "fail")


def test_a_number_that_is_not_finite_fails():
  results = Results({"chain": [{"loss": math.nan}]}, {})
  for target in (Target("ours", low=0), SHOWN):
    judged = verdicts.judge(_row("mean", "loss"), target, results)
    assert judged["verdict"] == "fail"
