"""What is measured of a model, on models whose circuit is known."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments.harness import app
from experiments.harness import circuits as measuring
from icl_causal import bayes
from icl_causal import constructions
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import patches
from tests.analysis import circuits_test

S, T, ALPHA = 3, 6, 0.3
GRAPH = graphs.from_parents([-1, 0, 0, 2, 1, -1])
NUM = 2 * measuring.GROUPS


@pytest.fixture(scope="module")
def batch():
  return sampling.sample_batch(
    jax.random.key(5), GRAPH, priors.dirichlet(ALPHA), S, NUM
  )


@pytest.fixture(scope="module")
def model():
  return models.Disentangled(S, T, (1, 1))


@pytest.fixture(scope="module")
def params(model):
  return circuits_test.random_params(model)


def _fitted():
  return {
    "slot_K": jnp.array([2.0]),
    "position_T": jnp.linspace(0, 1, T),
    "scale": jnp.array(3.0),
  }


def test_the_chunks_of_prompts_do_not_change_the_means(
  batch, params, monkeypatch
):
  whole = measuring.patch(params, batch, GRAPH, ALPHA, _fitted())
  assert whole.means["token alone"].shape == (measuring.GROUPS, T, T)
  monkeypatch.setattr(measuring, "_AT_ONCE", 1)
  single = measuring.patch(params, batch, GRAPH, ALPHA, _fitted())
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, single
  )


def test_the_means_are_those_of_the_prompts(batch, params):
  found = measuring.patch(params, batch, GRAPH, ALPHA, _fitted())

  @jax.jit
  @jax.vmap
  def changes(x_T, y_S):
    of = patches.reading(params, x_T)
    return (
      patches.loss_changes(patches.patch_row(of), patches.logits(of), y_S),
      patches.predicted(
        lambda g: metrics.loss(bayes.edge_posterior(x_T, g, ALPHA, S), y_S),
        GRAPH,
      ),
    )

  m, p = (np.asarray(a) for a in changes(batch.x_T, batch.y_S))
  moments = found.moments["whole row", "edge posterior"]
  for got, expected in (
    (found.means["whole row"], m),
    (moments.measured, m),
    (moments.predicted, p),
    (moments.measured_squares, m**2),
    (moments.predicted_squares, p**2),
    (moments.products, m * p),
  ):
    by_group = expected.reshape(measuring.GROUPS, 2, T, T).mean(axis=1)
    np.testing.assert_allclose(got, by_group, atol=1e-5)


def test_agreement_is_over_the_rows_of_children(batch, params):
  of = measuring.patch(params, batch, GRAPH, ALPHA, _fitted())
  found = measuring.agreements(of, GRAPH)
  assert set(found) == {
    (m, p) for m in patches.MEASURED for p in patches.PREDICTED
  }
  chosen = patches.pairs(GRAPH, of_children=True)
  mean = of.means["token alone"].mean(axis=0)[chosen].mean()
  number = found["token alone", "edge posterior"].measured
  assert number.value == pytest.approx(mean, abs=1e-6)
  one_edge = graphs.from_parents([-1, 0, -1, -1, -1, -1])
  assert measuring.agreements(of, one_edge) == {}


def test_scores_and_clamp_of_the_construction(batch):
  """Clamping layer 1 to the graph that it has changes nothing."""
  model, params = constructions.disentangled(GRAPH, S)
  found = measuring.scores(model, params, batch.x_T, GRAPH)
  for name in ("parent", "matching", "evenness"):
    assert found[name].value == pytest.approx(1, abs=1e-6)
  assert found["parent"].num == NUM > found["matching"].num > 0
  # Its logits are a law, so its own prediction is a softmax of it.
  change = measuring.clamp(model, params, batch, GRAPH)
  assert change.value == pytest.approx(0, abs=1e-6)


def test_a_clamp_changes_the_loss_of_other_models(batch, model, params):
  found = measuring.clamp(model, params, batch, GRAPH)
  assert found.num == NUM
  assert abs(found.value) > 1e-4
  assert 0 < found.error < 1


def test_a_standard_transformer_is_measured_through_its_embeddings(batch):
  model = models.Standard(S, T, (1, 1), width=8)
  like = model.init(jax.random.key(0), jnp.zeros(T, jnp.int32))["params"]
  params = dict(like) | {
    name: 0.3 * jax.random.normal(jax.random.key(n), like[name].shape)
    for n, name in enumerate(("A1", "A2", "W"))
  }
  same = measuring.equivalent(model, params)
  assert same.reason is None
  logits_BxS = jax.vmap(
    lambda x_T: patches.logits(patches.reading(same.params, x_T))
  )(batch.x_T)
  f_BxS = jax.vmap(lambda x_T: model.apply({"params": params}, x_T)[0])(
    batch.x_T
  )
  np.testing.assert_allclose(jax.nn.softmax(logits_BxS), f_BxS, atol=1e-5)


def test_an_mlp_has_scores_alone():
  model = models.Standard(S, T, (1, 1), width=8, mlp="residual")
  found = measuring.equivalent(model, {})
  assert found.model is None
  assert found.reason.startswith("blocks and patches need a model of attention")


@pytest.mark.parametrize(
  ("model", "graph", "message"),
  [
    (models.Reduced(S, T), GRAPH, "one head in each of two layers"),
    (models.Disentangled(S, T, (2, 1)), GRAPH, "one head in each of two"),
    (models.Disentangled(S, T, (1, 1)), graphs.kgram(T, 2), "single parents"),
    (
      models.Disentangled(S, 3, (1, 1)),
      graphs.from_parents([-1, 0, 1], target=[0]),
      "the last position as the parent of the target",
    ),
    (
      models.Disentangled(S, 3, (1, 1)),
      graphs.from_parents([-1, -1, -1]),
      "the graph has no edges",
    ),
  ],
)
def test_models_and_graphs_without_such_a_circuit(model, graph, message):
  with pytest.raises(app.Refused, match=message):
    measuring.check(model, graph)
  measuring.check(models.Standard(S, T, (1, 1), width=8), GRAPH)
