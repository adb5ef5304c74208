"""The runs of a sweep, their division into batches, and refused sweeps."""

import pathlib

import pytest

from configs import diversity
from configs import many_graphs
from configs import pool
from configs import standard_seeds
from experiments import diversity as experiments_diversity
from experiments.harness import grid
from icl_causal.config import build
from icl_causal.config.fields import ConfigError
from tests.support import small_sweeps

WORKDIR = pathlib.Path("unused")


def test_batches_have_one_program_and_a_bounded_size():
  # The fields of a grid are ordered by name.
  axes = {
    "eval": {"batch_size": (16, 32)},
    "graph": {"seed": tuple(range(5))},
  }
  planned = grid.every_run(small_sweeps.config(axes), WORKDIR)
  divided = grid.divide(planned, 3)
  assert [len(batch) for batch in divided] == [3, 2, 3, 2]
  assert [run for batch in divided for run in batch] == planned
  for batch in divided:
    assert len({run.config.eval.batch_size for run in batch}) == 1


def test_every_process_has_a_batch_of_each_program():
  axes = {"graph": {"seed": tuple(range(5))}}
  planned = grid.every_run(small_sweeps.config(axes), WORKDIR)
  divided = grid.divide(planned, 256, num_processes=2)
  assert [len(batch) for batch in divided] == [3, 2]


def test_every_run_has_a_directory_named_by_its_config():
  planned = grid.every_run(small_sweeps.config(), WORKDIR)
  for run in planned:
    assert run.workdir == WORKDIR / "members" / run.name
  assert len({run.workdir for run in planned}) == 6


def test_a_random_search_has_as_many_runs_as_samples_at_every_point():
  config = small_sweeps.config(
    {"seed": (0, 1)}, {"train": {"learning_rate": ("log", 1.0, 100.0)}}, 3
  )
  planned = grid.every_run(config, WORKDIR)
  rates = [run.config.train.learning_rate for run in planned]
  assert rates[:3] == rates[3:]
  assert len(set(rates)) == 3
  assert 1 < min(rates) < max(rates) < 100
  assert [run.config.seed for run in planned] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
  ("axes", "random", "samples", "message"),
  [
    (
      {"graph": {"sed": (0,)}},
      {},
      1,
      "sweep: graph.sed is not a field of the config",
    ),
    ({"seed": 3}, {}, 1, "sweep.grid.seed = 3: must be a tuple of values"),
    ({"seed": ()}, {}, 1, r"sweep.grid.seed = \(\): must be a tuple of values"),
    ({"seed": (0, 0)}, {}, 1, "sweep: two runs are equal"),
    ({"seed": (0, -1)}, {}, 1, "seed = -1: must be an integer from 0"),
    ({"prior": {"alpha": (1.0, "a")}}, {}, 1, "prior.alpha = 'a': must be a n"),
    ({"seed": (0, 1)}, {}, 2, "sweep.samples = 2: must be 1 if"),
    (
      {},
      {"prior": {"alpha": ("log", 0.0, 1.0)}},
      2,
      "sweep.random.prior.alpha",
    ),
    ({}, {"prior": {"alpha": (0.1, 0.2)}}, 2, "sweep.random.prior.alpha = "),
    ({}, {"prior": {"alpha": 0.1}}, 2, "sweep.random.prior.alpha = 0.1: "),
  ],
)
def test_refused_sweeps(axes, random, samples, message):
  with pytest.raises(ConfigError, match="^" + message):
    grid.every_run(small_sweeps.config(axes, random, samples), WORKDIR)


def test_a_config_without_a_sweep_is_refused():
  config = small_sweeps.config()
  del config["sweep"]
  with pytest.raises(ConfigError, match="the config has no group sweep"):
    grid.every_run(config, WORKDIR)


@pytest.mark.parametrize(
  ("module", "variant"),
  [
    (module, variant)
    for module in (many_graphs, standard_seeds)
    for variant in module.VARIANTS
  ],
)
def test_the_configs_are_accepted(module, variant):
  planned = grid.every_run(module.get_config(variant), WORKDIR)
  assert len(grid.divide(planned, 256)) == 1
  assert build.check(planned[0].config) is None


@pytest.mark.parametrize("variant", pool.VARIANTS)
@pytest.mark.parametrize("model", pool.MODELS)
def test_sweeps_over_pools_have_a_program_for_each_size(variant, model):
  config = pool.get_config(f"{variant},{model}")
  planned = grid.every_run(config, WORKDIR)
  assert len(planned) == 3 * len(pool.NUM_KERNELS)
  batches = grid.divide(planned, 256)
  sizes = [{run.config.prior.num_kernels for run in one} for one in batches]
  assert sizes == [{size} for size in pool.NUM_KERNELS]


@pytest.mark.parametrize("task", diversity.TASKS)
def test_pools_of_every_size_train_together(task):
  runs_of = experiments_diversity.planned(diversity.get_config(task), WORKDIR)
  for group in runs_of.values():
    assert len(grid.divide(group, 256)) == 1
    for run in group:
      config = run.config
      assert config.seed == config.eval.seed == config.prior.seed
