import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from icl_causal import sweeps

ROOT = pathlib.Path(__file__).parents[1]


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


def test_eight_devices_share_the_runs_and_never_speak():
  """13 runs on 8 devices; the loop of each run has a length of its own."""
  script = """
    import re
    import jax
    import numpy as np
    from icl_causal import sweeps

    def function(run):
      grow = lambda x: x * 1.1 + jax.random.uniform(jax.random.key(run["seed"]))
      return jax.lax.while_loop(lambda x: x < run["limit"], grow, 1.0)

    mesh = sweeps.local_mesh()
    assert mesh.size == 8
    runs = [
      {"seed": np.uint32(r), "limit": np.float32(r**2)} for r in range(13)
    ]
    stacked = sweeps.stack(runs, mesh, parallel=1)
    assert stacked["seed"].shape == (16,)
    assert len(stacked["seed"].sharding.device_set) == 8
    compiled = jax.jit(
      sweeps.over_runs(function, mesh, parallel=1)
    ).lower(stacked).compile()
    text = compiled.as_text()
    assert "while" in text
    found = re.findall(r"all-\\w+|collective-\\w+|reduce-scatter", text)
    assert not found, found
    alone = [jax.jit(function)(run) for run in runs]
    np.testing.assert_allclose(compiled(stacked)[:13], alone, rtol=1e-6)
  """
  eight = " --xla_force_host_platform_device_count=8"
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(script)],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"] + eight},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
