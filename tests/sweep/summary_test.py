import numpy as np

from experiments.sweep import summary


def test_bands_are_the_median_and_the_range_at_each_step():
  histories = [
    [{"step": step, "excess_loss": loss / (1 + step)} for step in (0, 1)]
    for loss in (1.0, 2.0, 6.0)
  ]
  np.testing.assert_array_equal(
    summary._band(histories, "excess_loss"), [[0, 1], [2, 1], [1, 0.5], [6, 3]]
  )


def test_means_over_the_runs_of_a_cell():
  rows = [
    {"rate": 1, "alpha": 1, "loss": 2.0},
    {"rate": 1, "alpha": 1, "loss": 4.0},
    {"rate": 2, "alpha": 1, "loss": 7.0},
  ]
  means = summary._means(
    rows, lambda row: row["loss"], ("rate", (1, 2)), ("alpha", (1, 3))
  )
  np.testing.assert_array_equal(means, [[3, np.nan], [7, np.nan]])
