"""The check of learning times: predictions at small sizes, and its numbers."""

import numpy as np
import pytest
from scipy import stats

from experiments.theory import learned
from experiments.theory import times
from icl_causal import graphs
from tests.support import theory_checks

CONFIG = theory_checks.config(
  "times",
  T=12,
  cases=((1.0, 0.1, 540.0),),
  steps=96,
  num_graphs=4,
  num_seeds=2,
  num_prompts=2**14,
  num_kernels=256,
  strengths=(1.0, 0.4),
  strengths_steps=192,
  lengths=(8, 16),
  pairs=((1.0, 0.1, 80.0, 4),),
)


@pytest.fixture(scope="module")
def outcome():
  return times.check(CONFIG)


def test_the_score_predicts_every_edge(outcome):
  rows = theory_checks.table(outcome)
  for task in ("forests", "strengths"):
    (row,) = [
      r for r in rows if (r["task"], r["prediction"]) == (task, "score")
    ]
    assert row["missed"] == 0
    assert abs(row["ratio"] - 1) < 5 * row["error"] + 0.02
    assert 0.8 < row["10 %"] < row["ratio"] < row["90 %"] < 1.2
    assert row["Spearman"] > 0.95


def test_information_predicts_edges_of_different_strength(outcome):
  rows = theory_checks.table(outcome)
  ratios = {
    row["prediction"]: row["ratio"]
    for row in rows
    if row["task"] == "strengths"
  }
  # Theory is for large T; here T = 12.
  assert ratios["information"] == pytest.approx(1, abs=0.15)
  assert ratios["closed form"] == pytest.approx(1, abs=0.15)


def test_information_orders_the_edges_of_one_position(outcome):
  rows = {
    row["task"]: row
    for row in theory_checks.table(outcome)
    if row["prediction"] == "closed form"
  }
  assert rows["strengths"]["partial"] > 0.8
  assert rows["strengths"]["Spearman, position"] < 0.9
  assert rows["forests"]["partial"] is None


def test_the_last_edge_takes_time_of_order_T_squared(outcome):
  slopes = {
    row["prediction"]: row["slope"]
    for row in theory_checks.table(outcome)
    if row["slope"] is not None
  }
  assert set(slopes) == {"measured", *learned.PREDICTIONS}
  assert slopes["measured"] == pytest.approx(slopes["closed form"], abs=0.25)
  assert 1.8 < slopes["measured"] < 2.4


def test_the_figure_has_three_panels(outcome):
  assert len(outcome.figure.axes) == 3


def test_partial_rank_is_the_correlation_of_residuals():
  rng = np.random.default_rng(0)
  x, y, given = rng.normal(size=(3, 40))
  y = y + x + given
  ranks = [stats.rankdata(a) for a in (x, y, given)]
  residuals = [
    a - np.polyval(np.polyfit(ranks[2], a, 1), ranks[2]) for a in ranks[:2]
  ]
  expected = np.corrcoef(residuals)[0, 1]
  assert learned.partial_rank(x, y, given) == pytest.approx(expected)


def test_an_edge_that_is_not_learned_is_last_and_has_no_ratio():
  measured = np.array([10.0, np.inf, 30.0, 44.0])
  predicted = np.array([10.0, 100.0, 20.0, 40.0])
  i = np.array([3.0, 9.0, 5.0, 7.0])
  median, low, high, order, position, partial = times.statistics(
    measured, predicted, i, np.ones(4)
  )
  assert (median, low, high) == pytest.approx((1.1, 1.02, 1.42))
  assert order == position == 1
  assert partial is None


def test_graphs_of_different_strengths_have_no_other_dependence():
  """Every child has its own root, and the query is last."""
  task = learned.strengths(CONFIG, 1)
  for graph in task.graphs:
    children, parents = np.array(graphs.edges(graph)).T
    assert sorted(parents) == [0, 1, 2, 3, 4]
    assert sorted(children) == [5, 6, 7, 8, 9]
  assert {0, 1} == set(task.slot_GxT.ravel())
