"""Scores, gauge and blocks of a circuit, on constructions and by hand."""

import math

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import constructions
from icl_causal import graphs
from icl_causal import models
from icl_causal.analysis import circuits

GRAPHS = {
  "chain": graphs.chain(6),
  "forest": graphs.random_forest(jax.random.key(3), 8, 0.5),
  "pairs": graphs.pairs(8),
  "T = 5": graphs.from_parents([-1, 0, 0, 2, -1]),
  "one edge": graphs.from_parents([-1, 0, -1, -1]),
}


def _prompts(S, T, num=64):
  return jax.random.randint(jax.random.key(1), (num, T), 0, S)


def _outputs(model, params, x_BxT):
  return jax.jit(jax.vmap(lambda x_T: model.apply({"params": params}, x_T)))(
    x_BxT
  )


def _scores(out, x_BxT, graph):
  return jax.jit(jax.vmap(circuits.scores, (0, 0, None)))(out, x_BxT, graph)


def random_params(model, scale=0.5):
  """Random parameters, of all blocks."""
  like = model.init(jax.random.key(0), jnp.zeros(model.T, jnp.int32))["params"]
  leaves, tree = jax.tree.flatten(like)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  drawn = [
    scale * jax.random.normal(key, leaf.shape)
    for key, leaf in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(tree, drawn)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("S", [2, 5])
def test_the_scores_of_the_construction_are_1(name, S):
  graph = GRAPHS[name]
  model, params = constructions.disentangled(graph, S)
  x_BxT = _prompts(S, model.T)
  found = _scores(_outputs(model, params, x_BxT)[1], x_BxT, graph)
  np.testing.assert_array_equal(found.parent, 1)
  has = ~np.isnan(found.matching)
  assert has.any()
  np.testing.assert_array_equal(found.matching[has], 1)
  has = ~np.isnan(found.evenness)
  np.testing.assert_allclose(found.evenness[has], 1, atol=1e-6)


def test_scores_by_hand():
  """Children 1, 2, 3 of 0, 0, 1; copies b, b, a of the prompt b a b a b."""
  graph = graphs.from_parents([-1, 0, 0, 1, -1])
  x_T = jnp.array([1, 0, 1, 0, 1])
  maps = np.tri(5)[None] / np.arange(1, 6)[:, None]
  last = np.array([[0.1, 0.3, 0.2, 0.2, 0.2]])
  out = {"attention_1": jnp.asarray(maps), "attention_2": jnp.asarray(last)}
  found = circuits.scores(out, x_T, graph)
  assert float(found.parent) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
  assert float(found.matching) == pytest.approx(0.5)
  assert float(found.by_chance) == pytest.approx(2 / 5)
  entropy = -0.6 * math.log(0.6) - 0.4 * math.log(0.4)
  assert float(found.evenness) == pytest.approx(entropy / math.log(2))


def test_scores_that_are_not_defined_are_nan():
  """No matching position; one of them; a graph without edges."""
  maps = jnp.asarray(np.tri(4)[None] / np.arange(1, 5)[:, None])
  out = {"attention_1": maps, "attention_2": jnp.full((1, 4), 0.25)}
  graph = graphs.from_parents([-1, 0, -1, -1])
  none = circuits.scores(out, jnp.array([0, 1, 1, 1]), graph)
  assert np.isnan([none.matching, none.by_chance, none.evenness]).all()
  one = circuits.scores(out, jnp.array([1, 1, 1, 1]), graph)
  assert float(one.matching) == pytest.approx(0.25)
  assert np.isnan(one.evenness)
  roots = graphs.from_parents([-1, -1, -1, -1])
  assert np.isnan(circuits.scores(out, jnp.array([1, 1, 1, 1]), roots)).all()


def test_a_mean_skips_what_is_not_defined():
  found = circuits.mean([1.0, np.nan, 2.0, 6.0])
  assert found.value == pytest.approx(3)
  assert found.error == pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5)
  assert found.num == 3
  assert circuits.mean([np.nan]) == (None, None, 0)
  assert circuits.mean([2.0]) == (2, None, 1)


@pytest.mark.parametrize(
  ("S", "T", "heads"),
  [(3, 5, (1, 1)), (2, 4, (2, 1)), (2, 4, (1, 2, 1)), (2, 1, (1, 1))],
)
def test_fixing_the_gauge_changes_no_output(S, T, heads):
  model = models.Disentangled(S, T, heads)
  params = random_params(model)
  fixed = circuits.gauge_fixed(model, params)
  x_BxT = _prompts(S, T)
  before, after = (
    _outputs(model, jax.tree.map(jnp.float32, p), x_BxT)
    for p in (params, fixed)
  )
  np.testing.assert_allclose(before[0], after[0], atol=1e-6)
  for layer in range(1, len(heads) + 1):
    name = f"attention_{layer}"
    np.testing.assert_allclose(before[1][name], after[1][name], atol=1e-6)


def test_what_no_output_shows_changes_no_fixed_parameter():
  """Constants over keys and states, shifts between blocks, unread entries."""
  S, T = 3, 4
  D = S + T
  model = models.Disentangled(S, T, (1, 1))
  params = jax.tree.map(lambda a: np.array(a, float), random_params(model))
  other = {name: a.copy() for name, a in params.items()}
  random = np.random.default_rng(0)
  other["A1"][0, :, :S] += random.normal(size=(D, 1))
  other["A1"][0, :, S:] += random.normal(size=(D, 1))
  other["A1"][0, S, S + 1 :] += 7  # after the query
  other["A2"][0, :, D : D + S] += random.normal(size=(2 * D, 1))
  other["A2"][0, S : D - 1] += 5  # the query is at the last position
  row = random.normal(size=2 * D)
  other["A2"][0, :S] += row
  other["A2"][0, D + S :] -= row
  other["W"] += random.normal(size=(4 * D, 1))
  other["W"][S : D - 1] += random.normal(size=S)
  row = random.normal(size=S)
  other["W"][D : D + S] += row
  other["W"][2 * D : 2 * D + S] -= row
  first, second = (circuits.gauge_fixed(model, p) for p in (params, other))
  for name, fixed in first.items():
    np.testing.assert_allclose(fixed, second[name], atol=1e-9)
    assert (fixed != params[name]).any()
  twice = circuits.gauge_fixed(model, first)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), first, twice
  )


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("S", [2, 4])
def test_the_construction_has_nothing_outside_itself(name, S):
  graph = GRAPHS[name]
  model, params = constructions.disentangled(graph, S)
  found = circuits.compare(model, params, graph)
  assert len(found) == 4 + 16 + 8
  inside = {
    (one.matrix, one.row, one.column): one
    for one in found
    if one.cosine is not None
  }
  for one in found:
    if one.cosine is None:
      assert one.share == pytest.approx(0, abs=1e-12)
      assert one.scale is None
  assert inside.pop(("A2", "token", "token 1.1")).scale == pytest.approx(
    20 * model.T
  )
  assert inside.pop(("W", "token 2.1", "next token")).scale == pytest.approx(1)
  assert set(inside) <= {
    (matrix, "position", "position") for matrix in ("A1", "A2")
  }
  assert circuits.outside(found) == pytest.approx({"A1": 0, "A2": 0, "W": 0})


def test_shares_cosines_and_scales():
  """Twice the block of the construction, and as much norm elsewhere."""
  graph, S, T = graphs.chain(5), 3, 5
  D = S + T
  model = models.Disentangled(S, T, (1, 1))
  centred = np.eye(S) - 1 / S
  W_DxS = np.zeros((4 * D, S))
  W_DxS[2 * D : 2 * D + S] = 2 * centred
  W_DxS[D : D + S] = -2 * centred
  params = {"A1": np.zeros((1, D, D)), "A2": np.zeros((1, 2 * D, 2 * D))}
  found = {
    (one.matrix, one.row, one.column): one
    for one in circuits.compare(model, params | {"W": W_DxS}, graph)
  }
  block = found["W", "token 2.1", "next token"]
  assert block[3:] == pytest.approx((0.5, 1, 2))
  assert found["W", "token 1.1", "next token"][3:] == (
    pytest.approx(0.5),
    None,
    None,
  )
  # A zero matrix has no direction.
  assert found["A2", "token", "token 1.1"][3:] == (0, 0, 0)
  assert circuits.outside(list(found.values()))["W"] == pytest.approx(0.5)


def test_other_heads_have_no_construction_to_compare_with():
  model = models.Disentangled(3, 5, (2, 1))
  with pytest.raises(ValueError, match=r"heads \(1, 1\), got \(2, 1\)"):
    circuits.compare(model, random_params(model), graphs.chain(5))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_clamped_layer_1_is_the_graph(name):
  """Rows without a parent stay as they are."""
  graph = GRAPHS[name]
  T, S = len(graph.parents_TxK), 3
  model = models.Disentangled(S, T, (1, 1))
  params, x_BxT = random_params(model), _prompts(S, T, 8)
  before = _outputs(model, params, x_BxT)[1]["attention_1"][:, 0]
  clamped = jax.jit(circuits.clamp)(params, graph)
  after = _outputs(model, clamped, x_BxT)[1]["attention_1"][:, 0]
  has_parent_T = (np.asarray(graph.parents_TxK) >= 0)[:, 0]
  edges_TxT = np.asarray(graphs.adjacency(graph))
  np.testing.assert_array_equal(
    after[:, has_parent_T], edges_TxT[None, has_parent_T].repeat(8, 0)
  )
  np.testing.assert_allclose(
    after[:, ~has_parent_T], before[:, ~has_parent_T], atol=1e-6
  )
