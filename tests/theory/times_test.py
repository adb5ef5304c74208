"""The check of learning times: predictions at small sizes, and its numbers."""

import numpy as np
import pytest
from scipy import stats

from experiments.theory import learned
from experiments.theory import times
from icl_causal import graphs
from icl_causal.config import fields
from tests.support import theory_checks

pytestmark = pytest.mark.slow

CONFIG = theory_checks.config(
  "times",
  T=12,
  cases=((1.0, 0.1, 540.0),),
  forests_steps=96,
  num_graphs=4,
  num_seeds=2,
  num_prompts=2**14,
  num_kernels=256,
  strengths=(1.0, 0.4),
  strengths_steps=192,
  pairs=(),
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


def test_slopes_of_the_last_edge_by_hand(monkeypatch):
  """Steps T and T + 1 at a rate proportional to T: the slope is about 2."""

  def edges_of(config, task, cases):
    ((alpha, gamma, rate),) = cases
    T = len(task.graphs[0].parents_TxK)
    assert (alpha, gamma, rate) == (1.0, 0.1, 5.0 * T)
    assert task.steps == 3 * T
    measured_NxE = np.array([[1.0, T], [1.0, T], [1.0, T + 1.0]])
    predicted = dict.fromkeys(learned.PREDICTIONS, np.array([1.0, 2.0 * T]))
    edges = learned.Edges(
      np.array([4, T]),
      np.ones(2),
      np.ones(2),
      measured_NxE,
      predicted,
      np.ones((2, 3 * T, 2)),
    )
    return {cases[0]: [edges]}

  monkeypatch.setattr(learned, "edges_of", edges_of)
  config = theory_checks.config("times", lengths=(8, 16, 32))
  rows = times.growth(config, 1.0, 0.1, 5.0, 3)
  first, last = rows[0], rows[-1]
  assert first[:7] == ["pairs", 8, 1.0, 0.1, "score", 3, 0]
  assert first[7] == pytest.approx((0.5 + 0.5 + 9 / 16) / 3)
  assert last[4] == "closed form"
  assert last[-2:] == [pytest.approx(2), None]
  measured = next(row for row in rows if row[4] == "measured")
  log = np.log([8 * 9, 16 * 17, 32 * 33])
  slope = np.polyfit(np.log([8, 16, 32]), log, 1)[0]
  assert measured[-2] == pytest.approx((2 + 2 + slope) / 3)
  assert measured[-1] == pytest.approx((2 - slope) / 3)


def test_a_last_edge_that_is_not_learned_is_refused(monkeypatch):
  edges = learned.Edges(
    *[np.ones(1)] * 3, np.full((2, 1), np.inf), {}, np.ones((2, 1, 1))
  )
  monkeypatch.setattr(learned, "edges_of", lambda *_: {0: [edges]})
  config = theory_checks.config("times", lengths=(8, 16))
  with pytest.raises(fields.ConfigError, match="learn the edges of pairs of T"):
    times.growth(config, 1.0, 0.1, 5.0, 3)


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


def test_too_few_steps_are_refused():
  config = theory_checks.config(
    "times",
    T=9,
    forests_steps=2,
    num_graphs=2,
    num_prompts=16,
    num_kernels=4,
    batch_size=4,
  )
  message = "forests_steps = 2: too few to learn the edges of forests at the"
  with pytest.raises(fields.ConfigError, match=message):
    times.check(config)


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
