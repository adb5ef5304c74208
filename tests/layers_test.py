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
