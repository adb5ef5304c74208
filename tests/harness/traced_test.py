"""Which configs share a program, and by which numbers they differ."""

import json

from configs import pool
from configs import single_parent
from experiments.harness import program
from experiments.harness import traced
from icl_causal import config as configs
from icl_causal import parallel
from icl_causal import priors
from icl_causal.config import parts


def _config(**changes):
  return configs.load(single_parent, "manual", **changes)


def test_configs_of_one_program_share_its_functions():
  first = program.program(_config())
  changes = {"seed": 3, "graph.target": (5,), "train.learning_rate": 0.02}
  assert program.program(_config(**changes)) is first
  assert program.program(_config(**{"train.batch_size": 16})) is not first
  assert program.program(_config(), parallel.batch_mesh()) is not first


def test_a_name_that_means_another_part_is_another_program(monkeypatch):
  first = program.program(_config())
  with monkeypatch.context() as changed:
    other = parts.PRIORS["dirichlet"]._replace(
      make=lambda alpha, root_law: priors.dirichlet(alpha, root_law)
    )
    changed.setitem(parts.PRIORS, "dirichlet", other)
    assert program.program(_config()) is not first
  assert program.program(_config()) is first


def test_the_size_of_a_pool_is_compiled_in_for_the_bayes_predictor():
  """It has a weight for each kernel."""
  for num, is_argument in ((0, True), (64, False)):
    config = configs.load(pool, "chain", **{"eval.posterior_prompts": num})
    assert ("prior.num_kernels" in traced.names(config)) == is_argument
    compiled_in = json.loads(traced.compiled_in(config))
    assert ("prior.num_kernels" in compiled_in) != is_argument


def test_filled_configs_have_the_values_and_others_stay():
  config = _config()
  filled = traced.fill(config, {"prior.alpha": 0.5, "seed": 7})
  assert (filled.prior.alpha, filled.seed) == (0.5, 7)
  assert (config.prior.alpha, config.seed) == (0.1, 0)
