"""Models that predict at every position, against the last position alone."""

import functools

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import metrics
from icl_causal import models

S, T = 3, 5
X_T = jnp.array([0, 2, 1, 1, 2])
MODELS = {
  "reduced": models.Reduced(S, T),
  "reduced, two heads": models.Reduced(S, T, heads=2),
  "disentangled": models.Disentangled(S, T, (1, 1)),
  "disentangled, one layer": models.Disentangled(S, T, (2,)),
  "disentangled, three layers": models.Disentangled(S, T, (2, 1, 2)),
  "standard": models.Standard(S, T, (1, 1), 8),
  "standard, modern": models.Standard(
    S, T, (2, 1, 2), 8, "residual", norm=True, scaled=True
  ),
  "relative": models.Relative(S, T, (1, 2), reach=3),
}


def _params(model):
  """Random parameters."""
  params = model.init(jax.random.key(0), X_T[: model.T])["params"]
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return jax.tree.unflatten(
    tree,
    [
      0.5 * jax.random.normal(key, leaf.shape)
      for key, leaf in zip(keys, leaves, strict=True)
    ],
  )


def _first(model, params, num):
  """The model of the first `num` positions, with the same parameters."""
  shorter = model.clone(T=num, every=False)
  if isinstance(model, models.Relative):
    return shorter, params
  if isinstance(model, models.Standard):
    return shorter, params | {"P": params["P"][:num]}
  if isinstance(model, models.Reduced):
    return shorter, params | {"A1": params["A1"][..., :num, :num]}
  kept = np.arange(S + num)
  cut = {}
  for name, param in params.items():
    blocks = param.shape[-2] // (S + T)
    rows = ((S + T) * np.arange(blocks)[:, None] + kept[None]).ravel()
    cut[name] = param[rows] if name == "W" else param[:, rows][:, :, rows]
  return shorter, cut


@functools.cache
def _outputs(name):
  """Everything that the tests compare, in one program."""
  model = MODELS[name]
  params, every = _params(model), model.clone(every=True)
  shorter, cut = _first(model, params, 3)
  y_TxS = jax.random.dirichlet(jax.random.key(2), jnp.ones(S), (T,))

  def loss(params):
    f_TxS, _ = every.apply({"params": params}, X_T)
    return metrics.loss(f_TxS, y_TxS, 1e-3)

  @jax.jit
  def outputs(params, cut, x_T):
    return {
      "last": model.apply({"params": params}, x_T),
      "every": every.apply({"params": params}, x_T),
      "shorter": shorter.apply({"params": cut}, x_T[:3])[0],
      "changed": every.apply({"params": params}, x_T.at[2].set(0))[0],
      "gradient": jax.grad(loss)(params),
    }

  return params, outputs(params, cut, X_T)


@pytest.mark.parametrize("name", MODELS)
def test_the_last_row_is_that_of_the_last_position_alone(name):
  params, found = _outputs(name)
  every = MODELS[name].clone(every=True)
  like = jax.eval_shape(every.init, jax.random.key(0), X_T)["params"]
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, like)
  (f_S, last), (f_TxS, out) = found["last"], found["every"]
  np.testing.assert_allclose(f_TxS[-1], f_S, atol=2e-6)
  np.testing.assert_allclose(f_TxS.sum(axis=1), 1, atol=2e-6)
  if "logits_S" in last:
    np.testing.assert_allclose(
      out["logits_TxS"][-1], last["logits_S"], atol=1e-5
    )
  names = [name for name in last if name.startswith("attention")]
  for name in names[:-1]:
    np.testing.assert_allclose(out[name], last[name], atol=2e-6)
  maps_HxTxT = np.asarray(out[names[-1]])
  np.testing.assert_allclose(maps_HxTxT[:, -1], last[names[-1]], atol=2e-6)
  np.testing.assert_allclose(maps_HxTxT.sum(axis=2), 1, atol=2e-6)
  assert (np.triu(maps_HxTxT, 1) == 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_row_is_the_prediction_of_a_shorter_prompt(name):
  _, found = _outputs(name)
  np.testing.assert_allclose(found["every"][0][2], found["shorter"], atol=2e-6)


@pytest.mark.parametrize("name", MODELS)
def test_later_tokens_change_no_row(name):
  _, found = _outputs(name)
  before, after = found["every"][0], found["changed"]
  np.testing.assert_allclose(before[:2], after[:2], atol=2e-6)
  assert (np.abs(before[2:] - after[2:]).max(axis=1) > 1e-5).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_finite_and_reaches_every_parameter(name):
  _, found = _outputs(name)
  for path, leaf in jax.tree_util.tree_leaves_with_path(found["gradient"]):
    assert np.isfinite(leaf).all(), path
    assert (leaf != 0).any(), path
  if name == "disentangled":  # each row of A1 learns from one prompt
    block_TxT = np.abs(found["gradient"]["A1"][0, S:, S:])
    assert (block_TxT[1:].max(axis=1) > 0).all()
