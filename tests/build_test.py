"""What a config may hold: what it may not is refused by the field's name."""

import pytest

from configs import several_parents
from configs import single_parent
from configs import standard
from configs import theory as theory_configs
from configs import two_stage
from experiments import build
from experiments import theory
from experiments.cli import Refused
from icl_causal import models


def _refuse(check, config, fields, message):
  check(config)
  config.update_from_flattened_dict(fields)
  with pytest.raises(Refused, match="^" + message):
    check(config)


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("prior.alpha", 0.0, r"prior.alpha = 0.0: must be a number from 1e-06"),
    ("prior.alpha", float("nan"), r"prior.alpha = nan"),
    ("prior.S", 1, r"prior.S = 1: must be an integer of at least 2"),
    ("graph.T", 1, r"graph.T = 1: must be an integer of at least 2"),
    ("graph.T", True, r"graph.T = True: must be an integer"),
    ("model.heads", (1, 0), r"model.heads = \(1, 0\): must be a tuple of one"),
    ("model.heads", (), r"model.heads = \(\): must be a tuple of one or more"),
    ("model.heads", (1,), r"model.matching = 0.5: must be 0 unless"),
    (
      "train.optimizer",
      "lion",
      r"train.optimizer = 'lion': must be one of sgd",
    ),
    (
      "train.steps",
      100,
      r"train.steps = 100: must be a multiple of train.eval",
    ),
    ("eval.batch_size", 3, r"eval.test_size = \d+: must be a multiple of eval"),
    ("seed", -1, r"seed = -1: must be an integer from 0 to"),
    ("train.momentum", 0.9, r"train.momentum is no field that this experiment"),
  ],
)
def test_fields_of_training(field, value, message):
  config = single_parent.get_config("chain").unlock()
  _refuse(build.check, config, {field: value}, message)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"model.name": "disentangled"}, "the config has no model.heads"),
    (
      {"prior.name": "floored_dirichlet", "prior.gamma": 0.1},
      "eval.posterior_prompts = 64: must be 0 unless prior.name = 'dir",
    ),
    ({"train.epsilon": 0.0}, "train.epsilon = 0: must be positive for"),
    ({"train.stop": 2.0}, "train.stop = 2.0: must be a number from 0 to 1"),
    (
      {
        "model.name": "disentangled",
        "model.heads": (1, 1),
        "model.noise": 0.0,
      },
      "train.optimizer = 'algorithm_1': is for model.name = 'reduced'",
    ),
  ],
)
def test_fields_of_algorithm_1(fields, message):
  config = two_stage.get_config("forest").unlock()
  _refuse(build.check, config, fields, message)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"model.matching": 0.0}, "train.optimizer = 'in_turns': is for"),
    (
      {"train.steps": 128, "train.joint_steps": 60},
      "train.steps = 128: must be more than the 168 steps up to the end of",
    ),
    ({"train.b2": 1.0}, "train.b2 = 1.0: must be a number from 0 to below 1"),
  ],
)
def test_fields_of_turns(fields, message):
  def check(config):
    build.check(config)
    build.graph(config)

  config = several_parents.get_config("half").unlock()
  _refuse(check, config, fields, message)


def test_fields_of_a_turn_of_the_first_layer():
  config = standard.get_config("chain")
  config.train.update(steps=256)
  with pytest.raises(Refused, match="must be more than the 320 steps"):
    build.check(config)
  config.train.steps = 384
  build.check(config)


def test_orthonormal_embeddings_need_room():
  config = standard.get_config("chain")
  build.model(config, build.graph(config))
  config.model.width = 29
  with pytest.raises(Refused, match=r"a model\.width of at least 30, the"):
    build.model(config, build.graph(config))
  config.model.orthonormal = False
  build.model(config, build.graph(config))


def test_graphs_that_a_config_can_not_have():
  config = single_parent.get_config("manual")
  build.graph(config)
  config.graph = {"name": "kgram", "T": 3, "k": 2}
  config.prior.root_law, config.model.heads = "dirichlet", (2, 1)
  assert build.graph(config).target_K.tolist() == [1, 2]
  config.graph.k = 3
  with pytest.raises(Refused, match=r"^graph: a k-gram needs 1 <= k < T"):
    build.graph(config)
  config.graph = {"name": "manual", "parents": (-1, 1, -1), "target": ()}
  expected = "graph: position 1: parent 1 is not an earlier position"
  with pytest.raises(Refused, match="^" + expected):
    build.graph(config)


@pytest.mark.parametrize(
  ("check", "field", "value", "message"),
  [
    ("information", "S", (3, 1), r"S = \(3, 1\): must be a tuple of one or mo"),
    ("information", "num_forests", 7, "num_forests = 7: must be a multiple of"),
    (
      "estimates",
      "priors",
      ((0.1,),),
      r"priors = \(\(0.1,\),\): must be a tup",
    ),
    (
      "estimates",
      "num_kernels",
      1,
      "num_kernels = 1: must be an integer of at",
    ),
    ("gradient", "cases", (), r"cases = \(\): must be a tuple of one or more"),
    ("gradient", "num_prompts", 100, "num_prompts = 100: must be a multiple"),
    ("gradient", "num_prompts", 256, "num_prompts = 256: must be at least twi"),
    ("roots", "num_graphs", 0, "num_graphs = 0: must be an integer of at leas"),
    ("pooled", "alpha", 0.0, "alpha = 0.0: must be a number from 1e-06 to"),
    ("pooled", "heads", 2, "heads is no field that this experiment reads"),
    ("theorems", "num_runs", 0, "num_runs = 0: must be an integer of at least"),
    ("theorems", "gamma", 1.5, "gamma = 1.5: must be a number from 0 to 1"),
    ("roots", "check", "root", "check = 'root': must be one of information, "),
    ("roots", "seed", -1, "seed = -1: must be an integer from 0 to"),
  ],
)
def test_fields_of_theory(check, field, value, message):
  config = theory_configs.get_config(check).unlock()
  _refuse(theory.check, config, {field: value}, message)


@pytest.mark.parametrize("check", theory_configs.CHECKS)
def test_theory_reads_what_its_config_holds(check):
  theory.check(theory_configs.get_config(check))


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
def test_cores_share_the_prompts_evenly(batch_size, test_size, available, num):
  assert build.num_cores(batch_size, (test_size, 4096), available) == num


@pytest.mark.parametrize(
  ("share", "model", "chunk"),
  [
    (512, models.Disentangled(10, 20, (1, 1)), 512),
    (512, models.Disentangled(10, 20, (2, 1)), 256),
    (64, models.Disentangled(10, 64, (1, 1)), 64),
    (60, models.Disentangled(10, 128, (1, 1)), 15),
    (64, models.Disentangled(10, 512, (1, 1)), 1),
    (7, models.Standard(3, 512, (1, 1), 8), 1),
    (512, models.Reduced(3, 512), 512),
  ],
)
def test_chunks_whose_attention_maps_stay_in_a_cache(share, model, chunk):
  assert build.chunk_size(share, model) == chunk
