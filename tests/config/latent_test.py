"""Configs of latent graphs, fixed kernels and models at every position."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from configs import latent as configs_latent
from configs import selection as configs_selection
from configs import several_parents
from configs import single_parent
from icl_causal import config as configs
from icl_causal import latent
from icl_causal import priors
from icl_causal.config import ConfigError
from icl_causal.config import build

KERNEL = ((0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.125, 0.375, 0.5))


def _check(config):
  build.check(config)
  build.model(config, build.graph(config))


@pytest.mark.parametrize("variant", configs_latent.VARIANTS)
def test_every_variant_is_accepted(variant):
  config = configs_latent.get_config(variant)
  _check(config)
  graph = build.graph(config)
  assert graph.parents_TxK.ndim == 3
  assert build.predicts_every(config, graph)


@pytest.mark.parametrize("task", configs_selection.TASKS)
def test_every_model_of_a_task_is_accepted(task):
  for model in configs_selection.get_config(task).models.values():
    _check(model)


def test_the_graphs_of_the_variants():
  sizes = {
    name: build.graph(configs_latent.get_config(name)).parents_TxK.shape
    for name in configs_latent.VARIANTS
  }
  assert sizes == {
    "lags": (3, 32, 1),
    "fresh": (2, 32, 1),
    "trees": (24, 54, 1),
  }


ROW = (0.5, 0.25, 0.25)


@pytest.mark.parametrize(
  ("variant", "changes", "message"),
  [
    ("lags", {"graph.lags": (1, 32)}, "graph: lags must be from 1 to T - 1"),
    ("lags", {"graph.lags": (1, 2, 1)}, "graph: lags must be distinct"),
    ("lags", {"graph.lags": ()}, r"graph.lags = \(\): must be a tuple of one"),
    ("lags", {"graph.lags": (0,)}, r"graph.lags = \(0,\): must be a tuple"),
    ("trees", {"graph.length": 8}, "graph: tree examples need num_examples"),
    ("trees", {"graph.length": 1}, "graph.length = 1: must be an integer"),
    ("trees", {"graph.num_examples": -1}, "graph.num_examples = -1: must be"),
    (
      "trees",
      {"graph.num_examples": 0, "graph.length": 2},
      "graph: a graph needs T >= 2 positions, got 1",
    ),
    ("lags", {"prior.kernel": ()}, "prior.kernel must have 5 rows of 5"),
    ("lags", {"prior.kernel": KERNEL}, "prior.kernel must have 5 rows of 5"),
    ("lags", {"prior.S": 6}, "prior.kernel must have 6 rows of 6 numbers >= 0"),
    (
      "lags",
      {"prior.S": 3, "prior.kernel": (*KERNEL[:2], (0.5, 0.25, 0.26))},
      "prior.kernel must have 3 rows of 3 numbers >= 0 that sum to 1",
    ),
    (
      "lags",
      {"prior.S": 3, "prior.kernel": (ROW, ROW, (1.5, -0.25, -0.25))},
      "prior.kernel must have 3 rows of 3 numbers >= 0 that sum to 1",
    ),
    (
      "lags",
      {"prior.S": 3, "prior.kernel": (ROW, ROW, (0.5, 0.5))},
      "prior.kernel must have 3 rows",
    ),
    (
      "lags",
      {"prior.S": 3, "prior.kernel": (ROW, ROW, 1.0)},
      "prior.kernel must have 3 rows",
    ),
    (
      "lags",
      {"prior.S": 3, "prior.kernel": (ROW, ROW, ("a", "b", "c"))},
      "prior.kernel must have 3 rows",
    ),
    (
      "lags",
      {"prior.root_law": "dirichlet"},
      "prior.root_law = 'dirichlet': must be 'stationary' or 'uniform'",
    ),
    (
      "fresh",
      {"prior.root_law": "stationary"},
      "eval.posterior_prompts = 8192: must be 0 for graph.name = 'lags' and",
    ),
    (
      "fresh",
      {"prior.name": "floored_dirichlet", "prior.gamma": 0.1},
      "eval.posterior_prompts = 8192: must be 0",
    ),
    ("lags", {"train.max_norm": 0.0}, "train.max_norm = 0.0: must be a posit"),
    ("lags", {"model.heads": (3,)}, r"model.heads = \(3,\): must have an entr"),
    (
      "lags",
      {"model.name": "relative", "model.reach": 0},
      "model.reach = 0: must be an integer of at least 2",
    ),
  ],
)
def test_refused_in_one_line(variant, changes, message):
  with pytest.raises(ConfigError, match="^" + message) as caught:
    _check(configs.load(configs_latent, variant, **changes))
  assert "\n" not in str(caught.value)


def test_an_every_position_model_needs_a_closed_posterior():
  """Also with one graph; without posterior prompts it is accepted."""
  changes = {"model.name": "autoregressive", "eval.posterior_prompts": 64}
  with pytest.raises(ConfigError, match=r"posterior_prompts = 64: must be 0"):
    configs.load(single_parent, "chain", **changes)
  configs.load(
    single_parent, "chain", **changes | {"prior.root_law": "uniform"}
  )
  for name in ("autoregressive", "relative"):
    changes = {"model.name": name, "eval.posterior_prompts": 0}
    if name == "relative":
      changes |= {"model.reach": 4, "model.period": 0}
      changes |= {"model.strict": False, "model.read_out": "softmax"}
    _check(configs.load(single_parent, "chain", **changes))


def test_a_fixed_kernel_is_for_single_parents():
  config = several_parents.get_config("half").unlock()
  config.prior = {
    "name": "fixed",
    "S": 3,
    "alpha": 0.5,
    "root_law": "uniform",
    "kernel": KERNEL,
  }
  message = "^prior.name = 'fixed': is for single parents, and the graph has 2"
  with pytest.raises(ConfigError, match=message):
    build.graph(config)


def test_the_known_law_and_the_closed_posterior():
  """The kernel of a fixed prior, otherwise alpha; the average of graphs."""
  small = {"prior.S": 3, "graph.T": 6, "eval.posterior_samples": 9}
  x_T, key = jnp.array([0, 2, 1, 1, 0, 1]), jax.random.key(0)
  for variant, changes in (
    ("lags", small | {"prior.kernel": KERNEL}),
    ("fresh", small | {"prior.root_law": "dirichlet"}),
  ):
    config = configs.load(configs_latent, variant, **changes)
    graph, law = build.graph(config), build.known_law(config)
    if variant == "lags":
      np.testing.assert_allclose(law[:3], KERNEL)
      mu_S = priors.stationary(jnp.asarray(KERNEL))
      np.testing.assert_allclose(law[3], mu_S, atol=1e-6)
    else:
      assert law == 0.1
    found = jax.jit(build.posterior(config, graph))(key, x_T)
    expected = latent.model_average(
      x_T, graph, law, 3, config.prior.root_law, every=True
    )
    np.testing.assert_allclose(found.f_S, expected, atol=1e-6)
    np.testing.assert_array_equal(found.halves_2xS[0], found.f_S)
    assert np.isinf(found.effective)
    config.model = single_parent.get_config("chain").model
    last = jax.jit(build.posterior(config, graph))(key, x_T)
    np.testing.assert_allclose(last.f_S, expected[-1], atol=1e-6)


def test_the_sampler_draws_what_the_model_predicts():
  config = configs.load(configs_latent, "fresh", **{"graph.T": 6})
  graph = build.graph(config)
  every = jax.eval_shape(build.sampler(config, graph, 7), jax.random.key(0))
  assert every.y_S.shape == (7, 6, 3)
  assert every.graph_index.shape == (7,)
  config.model = single_parent.get_config("chain").model
  last = jax.eval_shape(build.sampler(config, graph, 7), jax.random.key(0))
  assert last.y_S.shape == (7, 3)
