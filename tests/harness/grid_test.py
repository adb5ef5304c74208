import numpy as np

from experiments.harness import grid


def test_points_has_every_combination_once():
  axes = {"seed": (0, 1, 2), "rate": (0.1, 0.2)}
  points = grid.points(axes)
  assert [(p["seed"], p["rate"]) for p in points] == [
    (seed, rate) for seed in (0, 1, 2) for rate in (0.1, 0.2)
  ]
  assert grid.points({}) == [{}]


def test_draws_have_the_requested_distributions():
  ranges = {"a": ("uniform", -1.0, 3.0), "b": ("log", 1e-4, 1e2)}
  points = grid.draws(ranges, 4000, seed=1)
  a, b = (np.array([point[name] for point in points]) for name in "ab")
  for values, low, high in ((a, -1, 3), (np.log10(b), -4, 2)):
    assert low < values.min() < values.max() < high
    counts, _ = np.histogram(values, bins=10, range=(low, high))
    assert np.abs(counts - 400).max() < 5 * 400**0.5
  assert abs(np.corrcoef(a, np.log(b))[0, 1]) < 5 / 4000**0.5
  assert grid.draws(ranges, 7, seed=1) == points[:7]
  assert grid.draws(ranges, 7, seed=2) != points[:7]
