"""Patches against the definition: a forward pass with another copy."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import bayes
from icl_causal import constructions
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal.analysis import patches

GRAPHS = {
  "chain": graphs.chain(6),
  "forest": graphs.random_forest(jax.random.key(3), 8, 0.5),
  "T = 5": graphs.from_parents([-1, 0, 0, 2, -1]),
  "one edge": graphs.from_parents([-1, -1, 0, -1]),
}


def _random(model):
  like = model.init(jax.random.key(0), jnp.zeros(model.T, jnp.int32))["params"]
  keys = jax.random.split(jax.random.key(2), 3)
  return {
    name: 0.5 * jax.random.normal(key, a.shape)
    for key, (name, a) in zip(keys, like.items(), strict=True)
  }


def _prompts(S, T, num):
  return jax.random.randint(jax.random.key(1), (num, T), 0, S)


def _logits(params, x_T, att_TxT, copies_TxD, S):
  """Layer 2 and W, in full, for given copies [token, place] of layer 1."""
  T = len(x_T)
  inputs_TxD = np.concatenate([np.eye(S)[x_T], np.eye(T)], axis=1)
  stream_TxD = np.concatenate([inputs_TxD, copies_TxD], axis=1)
  score_T = stream_TxD @ np.asarray(params["A2"][0], float).T @ stream_TxD[-1]
  weight_T = np.exp(score_T - score_T.max())
  copy_D = weight_T @ stream_TxD / weight_T.sum()
  return np.concatenate([stream_TxD[-1], copy_D]) @ np.asarray(params["W"])


def _all(params, x_T):
  of = patches.reading(params, x_T)
  return (
    of.attention_TxT,
    patches.logits(of),
    patches.patch_token(of),
    patches.patch_row(of),
  )


@pytest.mark.parametrize(("S", "T"), [(2, 5), (4, 7)])
def test_the_model_and_both_patches_by_a_full_forward_pass(S, T):
  model = models.Disentangled(S, T, (1, 1))
  params, x_BxT = _random(model), _prompts(S, T, 3)
  # Layer 1 attends less evenly, so that a patch changes more.
  params["A1"] = 3 * params["A1"]
  found = jax.jit(jax.vmap(_all, (None, 0)))(params, x_BxT)
  for x_T, att_TxT, own_S, token_TxTxS, row_TxTxS in zip(
    x_BxT, *found, strict=True
  ):
    _, out = model.apply({"params": params}, x_T)
    np.testing.assert_allclose(own_S, out["logits_S"], atol=1e-5)
    np.testing.assert_allclose(
      jax.nn.softmax(own_S), jax.nn.softmax(out["logits_S"]), atol=1e-6
    )
    np.testing.assert_allclose(att_TxT, out["attention_1"][0], atol=1e-6)
    x_T, att_TxT = np.asarray(x_T), np.asarray(att_TxT, float)
    inputs_TxD = np.concatenate([np.eye(S)[x_T], np.eye(T)], axis=1)
    for i, j in np.argwhere(patches.pairs(graphs.chain(T))):
      copies_TxD = att_TxT @ inputs_TxD
      copies_TxD[i, :S] = np.eye(S)[x_T[j]]
      np.testing.assert_allclose(
        token_TxTxS[i, j],
        _logits(params, x_T, att_TxT, copies_TxD, S),
        atol=1e-4,
      )
      copies_TxD[i, S:] = np.eye(T)[j]
      np.testing.assert_allclose(
        row_TxTxS[i, j],
        _logits(params, x_T, att_TxT, copies_TxD, S),
        atol=1e-4,
      )


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("S", [2, 4])
def test_the_patched_construction_counts_along_the_changed_graph(name, S):
  """Both patches; a patch to the parent is none."""
  graph = GRAPHS[name]
  parents_T = np.asarray(graph.parents_TxK)[:, 0]
  model, params = constructions.disentangled(graph, S)
  x_BxT = _prompts(S, model.T, 24)
  _, own_BxS, token, row = jax.jit(jax.vmap(_all, (None, 0)))(params, x_BxT)
  seen = 0
  for i, j in np.argwhere(np.tri(model.T, k=-1)):
    if parents_T[i] < 0:
      continue
    changed = parents_T.copy()
    changed[i] = j
    for b, x_T in enumerate(np.asarray(x_BxT)):
      is_match_T = (changed >= 0) & (x_T[changed] == x_T[-1])
      if not is_match_T.any():
        continue
      seen += 1
      transition_S = np.eye(S)[x_T[is_match_T]].mean(axis=0)
      for patched in (token, row):
        np.testing.assert_allclose(patched[b, i, j], transition_S, atol=1e-6)
        if j == parents_T[i]:
          np.testing.assert_allclose(patched[b, i, j], own_BxS[b], atol=1e-6)
  assert seen >= 9


@pytest.mark.parametrize("name", GRAPHS)
def test_a_prediction_is_the_loss_of_the_changed_graph(name):
  graph, S = GRAPHS[name], 3
  T, parents_T = len(graph.parents_TxK), np.asarray(graph.parents_TxK)[:, 0]
  x_T, y_S = _prompts(S, T, 1)[0], jnp.array([0.2, 0.5, 0.3])

  def loss(graph):
    return metrics.loss(bayes.edge_posterior(x_T, graph, 0.1, S), y_S)

  found_TxT = jax.jit(lambda graph: patches.predicted(loss, graph))(graph)
  for i, j in np.argwhere(patches.pairs(graph)):
    changed = [p if k != i else j for k, p in enumerate(parents_T)]
    expected = loss(graphs.from_parents(changed)) - loss(graph)
    assert float(found_TxT[i, j]) == pytest.approx(float(expected), abs=1e-6)


def test_the_change_of_the_loss():
  logits_S, y_S = jnp.array([0.0, 1.0]), jnp.array([0.3, 0.7])
  patched = jnp.array([[[0.0, 1.0], [2.0, 1.0]], [[0.0, 3.0], [1.0, 2.0]]])
  found = patches.loss_changes(patched, logits_S, y_S)

  def loss(logits_S):
    return -float(y_S @ jax.nn.log_softmax(logits_S))

  expected = [[loss(f_S) - loss(logits_S) for f_S in row] for row in patched]
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_pairs_by_hand():
  graph = graphs.from_parents([-1, 0, -1, 1, -1])
  every = np.argwhere(patches.pairs(graph)).tolist()
  assert every == [[1, 0], [2, 0], [2, 1], [3, 0], [3, 1], [3, 2]]
  children = patches.pairs(graph, of_children=True)
  assert np.argwhere(children).tolist() == [[3, 0], [3, 2]]
  roots = graphs.from_parents([-1, -1, -1])
  assert not patches.pairs(roots, of_children=True).any()


def test_other_heads_are_refused():
  model = models.Disentangled(3, 5, (1, 2))
  params = model.init(jax.random.key(0), jnp.zeros(5, jnp.int32))["params"]
  with pytest.raises((ValueError, AssertionError)):
    patches.reading(params, jnp.zeros(5, jnp.int32))
