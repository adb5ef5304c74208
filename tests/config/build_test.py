"""Every field of a config is checked, and errors name the field."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from configs import pool as configs_pool
from configs import several_parents
from configs import single_parent
from configs import standard
from configs import two_stage
from icl_causal import bayes
from icl_causal import config as configs
from icl_causal.config import ConfigError
from icl_causal.config import build


def _refuse(check, config, fields, message):
  check(config)
  config.update_from_flattened_dict(fields)
  with pytest.raises(ConfigError, match="^" + message) as caught:
    check(config)
  assert "\n" not in str(caught.value)


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
    ("model.heads", (1,), r"model.beta0 = 0.5: must be 0 unless"),
    (
      "train.optimizer",
      "lion",
      r"train.optimizer = 'lion': must be one of sgd",
    ),
    (
      "train.steps",
      100,
      r"train.steps = 100: must be a multiple of train.eval_every = 256; "
      r"train.eval_every = 4 divides it",
    ),
    ("eval.batch_size", 3, r"eval.test_size = \d+: must be a multiple of eval"),
    ("seed", -1, r"seed = -1: must be an integer from 0 to"),
    ("train.momentum", 0.9, r"train.momentum is not a field of this exp"),
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
      {"prior.alpha": 0.001},
      "prior.alpha = 0.001: the exact posterior needs at least 0.01; set eval",
    ),
    (
      {"eval.posterior_prompts": 1},
      "eval.posterior_prompts = 1: must be 0, or",
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
    ({"model.beta0": 0.0}, "train.optimizer = 'staged_heads': needs a model.b"),
    (
      {"train.steps": 128, "train.joint_steps": 60},
      "train.steps = 128: must be more than the 168 steps up to the end of",
    ),
    ({"train.b2": 1.0}, "train.b2 = 1.0: must be a number from 0 to below 1"),
  ],
)
def test_fields_of_staged_heads(fields, message):
  def check(config):
    build.check(config)
    build.graph(config)

  config = several_parents.get_config("half").unlock()
  config.train.eval_every = 64
  _refuse(check, config, fields, message)


def test_fields_of_the_first_layer_phase():
  config = standard.get_config("chain")
  with config.unlocked():
    config.train.update(
      steps=256,
      eval_every=128,
      optimizer="first_layer_phase",
      joint_steps=128,
      phase_steps=192,
    )
  with pytest.raises(ConfigError, match="must be more than the 320 steps"):
    build.check(config)
  config.train.steps = 384
  build.check(config)


def test_models_of_symmetric_adamw_and_staged_heads():
  config = standard.get_config("chain")
  for optimizer, fields in (
    ("symmetric_adamw", {}),
    ("staged_heads", {"phase_steps": 1, "joint_steps": 0, "max_step": 0.5}),
  ):
    config.train = single_parent.get_config("chain").train.unlock()
    config.train.update(optimizer=optimizer, **fields)
    message = f"train.optimizer = '{optimizer}': is for model.name = 'disent"
    with pytest.raises(ConfigError, match="^" + message):
      build.check(config)


def test_orthonormal_embeddings_need_enough_width():
  config = standard.get_config("chain")
  build.model(config, build.graph(config))
  config.model.width = 29
  message = "^model: orthonormal embeddings need a width of at least 30, got 29"
  with pytest.raises(ConfigError, match=message):
    build.model(config, build.graph(config))
  config.model.update(orthonormal=False, beta0=0.0)
  build.model(config, build.graph(config))


def test_invalid_graphs():
  config = single_parent.get_config("manual")
  build.graph(config)
  config.graph = {"name": "kgram", "T": 3, "k": 2}
  config.prior.root_law = "dirichlet"
  assert build.graph(config).target_K.tolist() == [1, 2]
  config.graph.k = 3
  with pytest.raises(ConfigError, match=r"^graph: a k-gram needs 1 <= k < T"):
    build.graph(config)
  config.graph = {"name": "manual", "parents": (-1, 1, -1), "target": ()}
  expected = "graph: position 1: parent 1 is not an earlier position"
  with pytest.raises(ConfigError, match="^" + expected):
    build.graph(config)


def test_several_parents_need_a_root_law_and_heads():
  config = several_parents.get_config("half")
  graph = build.graph(config)
  assert build.model(config, graph).first_layer_heads == 2
  config.model.heads = (1, 2)
  message = "^model: the first layer needs at least 2 heads, .* and has 1$"
  with pytest.raises(ConfigError, match=message):
    build.model(config, graph)
  config.model = two_stage.get_config("forest").model
  with pytest.raises(ConfigError, match=message):
    build.model(config, graph)
  config.prior.root_law = "stationary"
  message = "^prior.root_law = 'stationary': must be .* up to 2 parents$"
  with pytest.raises(ConfigError, match=message):
    build.graph(config)


def test_prompts_must_divide_over_the_devices(monkeypatch):
  config = single_parent.get_config("chain")
  for num, message in (
    (1, None),
    (512, None),
    (1024, "train.batch_size = 512: must be a multiple of the 1024 devices"),
    (3, "train.batch_size = 512: must be a multiple of the 3 devices"),
  ):
    monkeypatch.setattr(jax, "device_count", lambda num=num: num)
    if message is None:
      build.check_devices(config)
    else:
      with pytest.raises(ConfigError, match="^" + message):
        build.check_devices(config)
  monkeypatch.setattr(jax, "device_count", lambda: 2)
  config.eval.posterior_prompts = 3
  with pytest.raises(ConfigError, match=r"^eval\.posterior_prompts = 3: must"):
    build.check_devices(config)
  config.eval.test_size = 3
  with pytest.raises(ConfigError, match=r"^eval\.test_size = 3: must be a mu"):
    build.check_devices(config)


def test_load_takes_a_module_or_its_name():
  by_name = configs.load("configs.single_parent", "pairs,paper")
  by_module = configs.load(single_parent, "pairs,paper")
  expected = single_parent.get_config("pairs,paper")
  assert by_name.to_dict() == by_module.to_dict() == expected.to_dict()
  assert configs.load(single_parent).to_dict() == (
    single_parent.get_config().to_dict()
  )


def test_load_changes_fields():
  changes = {
    "seed": 7,
    "train.steps": 512,
    "train.learning_rate": 1,  # an integer for a float
    "model.heads": (2, 1),
  }
  config = configs.load(single_parent, "chain", **changes)
  expected = single_parent.get_config("chain")
  expected.seed, expected.train.steps = 7, 512
  expected.train.learning_rate, expected.model.heads = 1.0, (2, 1)
  assert config.to_dict() == expected.to_dict()
  assert single_parent.get_config("chain").seed == 0


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"train.momentum": 0.9}, "train.momentum is not a field of this config"),
    ({"trian.steps": 512}, "trian.steps is not a field of this config"),
    ({"steps": 512}, "steps is not a field of this config"),
    ({"train": {"steps": 512}}, "train is not a field of this config"),
    ({"prior.alpha": -1.0}, "prior.alpha = -1.0: must be a number from"),
    ({"train.steps": "many"}, "train.steps = 'many': must be an integer"),
    ({"train.steps": 512.0}, "train.steps = 512.0: must be an integer"),
    ({"train.steps": None}, "these fields have no value .*: train.steps"),
    ({"train.eval_every": 100}, "train.steps = 16384: must be a multiple of"),
    ({"prior.name": "beta"}, "prior.name = 'beta': must be one of dirichlet"),
  ],
)
def test_load_refuses_unknown_fields_and_bad_values(changes, message):
  with pytest.raises(ConfigError, match="^" + message):
    configs.load(single_parent, "chain", **changes)


def test_load_refuses_unknown_variants_and_modules():
  with pytest.raises(ValueError, match="'ring' must be one of"):
    configs.load(single_parent, "ring")
  with pytest.raises(ModuleNotFoundError):
    configs.load("configs.no_such_file")


def test_small_alpha_is_refused_only_with_the_exact_posterior():
  config = single_parent.get_config("chain")
  config.prior.alpha, config.eval.posterior_prompts = 0.001, 0
  build.check(config)
  config.prior.root_law, config.eval.posterior_prompts = "uniform", 8
  build.check(config)


def test_the_posterior_is_that_of_the_prior():
  """It uses the root law, and samples from a prior that is not Dirichlet."""
  config = single_parent.get_config("pairs").unlock()
  config.prior.S, config.graph.T = 3, 6
  config.eval.posterior_samples = 64
  graph, key = build.graph(config), jax.random.key(0)
  x_T = jnp.array([0, 2, 1, 1, 0, 1])

  def found(**changes):
    config.prior.update(changes)
    return jax.jit(build.posterior(config, graph))(key, x_T)

  edge_S = bayes.edge_posterior(x_T, graph, 0.1, 3)
  stationary, uniform = found(), found(root_law="uniform")
  np.testing.assert_allclose(uniform.f_S, edge_S, rtol=1e-5)
  assert np.abs(stationary.f_S - edge_S).max() > 0.05
  # Nearly all the mass is uniform, so the law of the target is, too.
  floored = found(name="floored_dirichlet", gamma=0.999, root_law="stationary")
  np.testing.assert_allclose(floored.f_S, np.full(3, 1 / 3), atol=2e-3)


@pytest.mark.parametrize("root_law", ["stationary", "dirichlet"])
def test_a_pool_has_the_kernels_that_its_prior_draws(root_law):
  """And no others; a smaller pool has the first of them."""
  config = configs.load(
    configs_pool, **{"prior.num_kernels": 3, "prior.root_law": root_law}
  )
  kernels = build.pool(config, 1)
  prior = build.prior(config)
  keys = jax.random.split(jax.random.key(0), 64)
  drawn = jax.vmap(lambda key: prior(key, 3, 1))(keys)
  is_m = np.isclose(drawn[:, None], kernels[None]).all(axis=(2, 3))
  assert (is_m.sum(axis=1) == 1).all()
  assert is_m.any(axis=0).all()
  config.prior.num_kernels = 2
  np.testing.assert_array_equal(build.pool(config, 1), kernels[:2])
  config.prior.seed = 1
  assert np.abs(build.pool(config, 1) - kernels[:2]).max() > 0.1
  assert build.pool(single_parent.get_config(), 1) is None


def test_the_posterior_of_a_pool_is_retrieval():
  config = configs.load(configs_pool, **{"graph.T": 6})
  graph, x_T = build.graph(config), jnp.array([0, 2, 1, 1, 0, 1])
  found = build.posterior(config, graph)(jax.random.key(0), x_T)
  kernels = build.pool(config, 1)
  np.testing.assert_allclose(
    found.f_S, bayes.retrieval(x_T, graph, kernels)[0], rtol=1e-5
  )
  assert np.isinf(found.effective)
