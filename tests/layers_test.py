"""The layers of the standard transformer."""

import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from icl_causal import layers
from icl_causal import models


def _step_of_adam(model, x_T):
  """The parameters before and after one step, all of them nonzero."""
  params = jax.jit(model.init)(jax.random.key(0), x_T)["params"]
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  params = jax.tree.unflatten(
    tree,
    [
      jax.random.normal(key, leaf.shape) / 4
      for key, leaf in zip(keys, leaves, strict=True)
    ],
  )
  gradient = jax.jit(
    jax.grad(lambda p: model.apply({"params": p}, x_T)[1]["logits_S"][0])
  )(params)
  optimizer = optax.adam(0.01, eps=1e-12)
  updates, _ = optimizer.update(gradient, optimizer.init(params))
  return params, optax.apply_updates(params, updates)


@pytest.mark.parametrize("width", [8, 30])
def test_adam_moves_scaled_biases_sqrt_width_times_as_far(width):
  """The effective bias is what the layer adds to x K."""
  x_T = jnp.array([0, 1, 2, 0, 1])

  def moved(scaled_biases):
    model = models.Standard(
      3, 5, (1, 1), width, "of_attention", scaled_biases=scaled_biases
    )
    before, after = _step_of_adam(model, x_T)
    scale = width**0.5 if scaled_biases else 1.0
    layer = layers.Linear(width, jax.nn.initializers.zeros, scale)

    def effective(params):
      leaf = params["mlp2_out"]
      return layer.apply({"params": leaf}, jnp.zeros(width))

    return np.abs(effective(after) - effective(before))

  np.testing.assert_allclose(moved(False), 0.01, rtol=1e-3)
  np.testing.assert_allclose(moved(True), 0.01 * np.sqrt(width), rtol=1e-3)


@pytest.mark.parametrize("shape", [(1, 4), (6, 6), (20, 31)])
def test_orthonormal_rows_are_those_of_qr(shape):
  x_RxD = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  Q_DxR, R_RxR = np.linalg.qr(x_RxD.astype(float).T)
  expected_RxD = (Q_DxR * np.sign(np.diag(R_RxR))).T
  rows_RxD = jax.jit(layers.orthonormal_rows)(x_RxD)
  np.testing.assert_allclose(rows_RxD, expected_RxD, atol=1e-4)
  np.testing.assert_allclose(rows_RxD @ rows_RxD.T, np.eye(shape[0]), atol=1e-6)


def test_orthonormal_rows_of_nearly_equal_rows():
  """One pass leaves an overlap of about 1e-3 here."""
  close_3xD = 1 + 1e-4 * np.random.default_rng(0).normal(size=(3, 8))
  rows_3xD = layers.orthonormal_rows(jnp.asarray(close_3xD, jnp.float32))
  np.testing.assert_allclose(rows_3xD @ rows_3xD.T, np.eye(3), atol=1e-6)


def test_a_large_batch_of_starts_ends():
  """A batch of 1024 calls of `jnp.linalg.qr` hangs on a CPU with two cores."""
  starts = jax.jit(jax.vmap(lambda key: layers.orthonormal(key, (1, 12, 12))))
  V_Nx1xDxD = starts(jax.random.split(jax.random.key(0), 1024))[:, 0]
  np.testing.assert_allclose(
    V_Nx1xDxD @ jnp.swapaxes(V_Nx1xDxD, 1, 2),
    np.broadcast_to(np.eye(12), V_Nx1xDxD.shape),
    atol=1e-5,
  )
