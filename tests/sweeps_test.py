import jax
import numpy as np
import pytest

from icl_causal import sweeps


def test_grid_has_every_combination_once():
  axes = {"seed": (0, 1, 2), "rate": (0.1, 0.2)}
  points = sweeps.grid(axes)
  assert [(p["seed"], p["rate"]) for p in points] == [
    (seed, rate) for seed in (0, 1, 2) for rate in (0.1, 0.2)
  ]
  assert sweeps.grid({}) == [{}]


def test_draws_have_their_laws():
  ranges = {"a": ("uniform", -1.0, 3.0), "b": ("log", 1e-4, 1e2)}
  points = sweeps.draws(ranges, 4000, seed=1)
  a, b = (np.array([point[name] for point in points]) for name in "ab")
  for values, low, high in ((a, -1, 3), (np.log10(b), -4, 2)):
    assert low < values.min() < values.max() < high
    share, _ = np.histogram(values, bins=10, range=(low, high))
    assert np.abs(share - 400).max() < 5 * 400**0.5
  assert abs(np.corrcoef(a, np.log(b))[0, 1]) < 5 / 4000**0.5
  assert sweeps.draws(ranges, 7, seed=1) == points[:7]
  assert sweeps.draws(ranges, 7, seed=2) != points[:7]


@pytest.mark.parametrize("parallel", [1, 2, 3, 8])
def test_over_runs_is_one_run_after_another(parallel):
  mesh = sweeps.local_mesh()
  runs = [{"a": np.float32(r), "b": np.arange(3) + r} for r in range(5)]

  def function(run, twice):
    return {"sum": run["a"] + run["b"].sum(), "twice": 2 * twice["a"]}

  stacked = sweeps.stack(runs, mesh, parallel)
  many = jax.jit(sweeps.over_runs(function, mesh, parallel))(stacked, stacked)
  assert len(many["sum"]) == {1: 5, 2: 6, 3: 6, 8: 5}[parallel]
  for r, run in enumerate(runs):
    alone = function(run, run)
    assert {name: many[name][r] for name in many} == alone
