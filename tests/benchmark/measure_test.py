"""That every part of the benchmark gives plausible numbers."""

import pytest

from configs import many_graphs
from experiments.benchmark import implementations
from experiments.benchmark import measure
from experiments.benchmark import roofline

CASE = implementations.Case(3, 6, 64, (2, 1))


@pytest.mark.parametrize("kind", implementations.KINDS)
def test_a_row_for_each_kind_of_work(kind):
  row = measure.compare(kind, CASE, roofline.Limits(1e12, 1e12), repeats=3)
  assert row["kind"] == kind
  assert row["batch_size"] == 64
  for name in ("textbook_ms", "ours_ms", "times_faster", "limit_ms"):
    assert row[name] > 0
  assert row["times_limit"] == pytest.approx(row["ours_ms"] / row["limit_ms"])


def test_side_by_side_and_one_after_another():
  config = many_graphs.get_config("rates")
  config.graph.T, config.prior.S, config.train.batch_size = 5, 2, 8
  speeds = measure.side_by_side(3, config, num_runs=3)
  assert min(speeds.values()) > 0


def test_prompts_with_all_rows_and_with_visited_rows():
  """The ratio is that of the two numbers before it."""
  ms = measure.several_parents(1, [(2, 4), (10, 3)])
  assert list(ms)[:3] == [
    f"S = 2, 4 parents, 81 rows: {name}"
    for name in ("all", "visited", "times faster")
  ]
  assert min(ms.values()) > 0
  name = "S = 10, 3 parents, 1331 rows"
  assert ms[f"{name}: times faster"] == pytest.approx(
    ms[f"{name}: all"] / ms[f"{name}: visited"]
  )
