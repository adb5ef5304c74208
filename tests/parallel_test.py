import jax
import numpy as np
import pytest

from icl_causal import models
from icl_causal import parallel


@pytest.mark.parametrize("num_parallel", [1, 2, 3, 8])
def test_over_runs_equals_single_runs(num_parallel):
  mesh = parallel.runs_mesh()
  runs = [{"a": np.float32(r), "b": np.arange(3) + r} for r in range(5)]

  def function(run, same_run):
    return {"sum": run["a"] + run["b"].sum(), "twice": 2 * same_run["a"]}

  stacked = parallel.stack(runs, mesh, num_parallel)
  results = jax.jit(parallel.over_runs(function, mesh, num_parallel))(
    stacked, stacked
  )
  assert len(results["sum"]) == {1: 5, 2: 6, 3: 6, 8: 5}[num_parallel]
  for r, run in enumerate(runs):
    single = function(run, run)
    assert {name: results[name][r] for name in results} == single


@pytest.mark.parametrize(
  ("batch_size", "test_size", "available", "num"),
  [
    (1024, 4096, 1, 1),
    (1024, 4096, 8, 8),
    (1024, 4096, 6, 4),
    (500, 4096, 8, 4),
    (500, 500, 6, 4),
    (64, 4096, 8, 2),
    (32, 4096, 8, 1),
    (7, 7, 8, 1),
  ],
)
def test_num_cores_divides_the_prompts(batch_size, test_size, available, num):
  assert parallel.num_cores(batch_size, (test_size, 4096), available) == num


@pytest.mark.parametrize(
  ("num_prompts", "model", "chunk_size"),
  [
    (512, models.Disentangled(10, 20, (1, 1)), 128),
    (512, models.Disentangled(10, 20, (2, 1)), 64),
    (64, models.Disentangled(10, 64, (1, 1)), 16),
    (60, models.Disentangled(10, 128, (1, 1)), 4),
    (512, models.Standard(10, 20, (1, 1), 30), 64),
    (64, models.Disentangled(10, 512, (1, 1)), 1),
    (7, models.Standard(3, 512, (1, 1), 8), 1),
    (512, models.Reduced(3, 512), 512),
  ],
)
def test_attention_maps_of_a_chunk_fit_in_the_cache(
  num_prompts, model, chunk_size
):
  assert parallel.chunk_size(num_prompts, model) == chunk_size
