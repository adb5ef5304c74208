"""The check of training on N prompts: what it measures, at small sizes."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments.theory import repetition
from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from tests.support import theory_checks

pytestmark = pytest.mark.slow

CONFIG = theory_checks.config(
  "repetition",
  T=8,
  num_graphs=2,
  num_prompts=(4, 512),
  measured_at=(32, 192),
  batch_size=64,
  learning_rate=0.03,
  test_size=256,
)


@pytest.fixture(scope="module")
def outcome():
  return repetition.check(CONFIG)


def test_few_prompts_are_memorised_and_many_give_the_graph(outcome):
  few, many, fresh = theory_checks.table(outcome)
  assert (few["N"], many["N"], fresh["N"]) == (4, 512, "fresh")
  assert few["own loss"] < many["own loss"]
  assert few["fresh loss"] > many["fresh loss"] + 0.3
  assert few["excess"] > 0.3 > many["excess"]
  assert many["one gradient"] > few["one gradient"]
  assert fresh["one gradient"] is fresh["own loss"] is None
  assert many["edges"] >= few["edges"]
  for row in (few, many, fresh):
    weights = [row[name] for name in ("uniform", "unigram", "edge_posterior")]
    assert 0 <= sum(weights) <= 1 + 1e-5


def test_the_figure_has_four_heat_maps(outcome):
  assert len(outcome.figure.axes) == 4


def test_steps_must_ascend():
  config = theory_checks.config("repetition", measured_at=(8, 4))
  (message,) = [need(config) for need in repetition.NEEDS]
  assert message == "measured_at = (8, 4): must ascend"


def test_the_first_gradient_is_that_of_the_model_on_these_prompts():
  """To first order in the scale of the start, by automatic differentiation."""
  S, T, num, scale = 3, 6, 16, 1e-2
  graph, prior = graphs.chain(T), priors.dirichlet(1.0)
  own = sampling.sample_batch(jax.random.key(0), graph, prior, S, 32)
  chosen = jax.tree.map(lambda a: a[:num], own)
  model = models.Disentangled(S, T, (1, 1), beta0=scale)
  params = model.init(jax.random.key(0), own.x_T[0])["params"]
  _, slopes = training.loss_and_gradient(params, chosen, model)
  measured = -model.position_blocks(slopes["A1"])[0] * T * num / scale**2
  g_TxT = np.asarray(repetition.first_gradient(own, jnp.arange(32) < num))
  for i in range(T):
    row = g_TxT[i, : i + 1]
    expected = (row - row.mean()) / (i + 1)
    np.testing.assert_allclose(measured[i, : i + 1], expected, atol=0.004)
  assert np.abs(measured).max() > 0.1


def test_half_is_the_step_from_which_half_of_the_edges_stay():
  edges = np.array([[0.0, 0.6, 0.4, 0.6], [0.0, 0.8, 0.4, 0.6]])
  ones = np.ones((2, 4))
  names = ("uniform", "unigram", "wrong_graph", "edge_posterior")
  course = repetition.Course(
    edges, ones, ones, ones, dict.fromkeys(names, ones / 4), ones
  )
  cells = repetition.summary(64, course, np.array([0, 8, 16, 32]))
  assert cells[6] == 32
  cells = repetition.summary(
    64, course._replace(edges=0 * edges), np.array([0, 8, 16, 32])
  )
  assert cells[6] is None
