import itertools

import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from icl_causal import symmetry
from icl_causal import training

S, T = 3, 4


def _params(heads):
  rng, width, params = np.random.default_rng(0), S + T, {}
  for layer, num_heads in enumerate(heads, start=1):
    shape = (num_heads, width, width)
    params[f"A{layer}"] = rng.normal(size=shape).astype(np.float32)
    width *= 1 + num_heads
  return params | {"W": rng.normal(size=(width, S)).astype(np.float32)}


def _relabelled(params, order):
  """The parameters with state s relabelled as order[s]."""

  def stream(width):
    blocks = np.arange(width).reshape(-1, S + T)
    blocks[:, :S] = blocks[:, list(order)]
    return blocks.ravel()

  def matrix(A):
    index = stream(A.shape[-1])
    return A[:, index][:, :, index]

  matrices = {name: matrix(A) for name, A in params.items() if name != "W"}
  W = params["W"]
  return matrices | {"W": W[stream(len(W))][:, np.array(order)]}


@pytest.mark.parametrize("heads", [(1, 1), (2, 1), (1, 1, 1)])
def test_relabelling_mean_is_the_mean_over_all_permutations(heads):
  params = _params(heads)
  relabelled = [
    _relabelled(params, order) for order in itertools.permutations(range(S))
  ]
  expected = jax.tree.map(
    lambda *leaves: sum(leaves) / len(relabelled), *relabelled
  )
  mean = jax.jit(symmetry.relabelling_mean)(params)
  for name in expected:
    np.testing.assert_allclose(mean[name], expected[name], atol=1e-5)


def test_relabelled_parameters_predict_relabelled_prompts():
  """Checks the helper of the test above."""
  params = _params((2, 1))
  apply = jax.jit(models.Disentangled(S, T, (2, 1)).apply)
  order = (2, 0, 1)
  x_T = np.array([0, 1, 2, 1])
  f_S, _ = apply({"params": params}, jnp.asarray(np.array(order)[x_T]))
  relabelled_S, _ = apply(
    {"params": _relabelled(params, order)}, jnp.asarray(x_T)
  )
  np.testing.assert_allclose(relabelled_S, f_S[np.array(order)], atol=1e-5)


def test_asymmetry_by_hand():
  asymmetry = jax.jit(symmetry.asymmetry)
  zeros = {name: 0 * leaf for name, leaf in _params((1, 1)).items()}
  eye, only_one = zeros["W"].copy(), zeros["W"].copy()
  eye[:S], only_one[0, 0] = 2 * np.eye(S), 1
  assert asymmetry({**zeros, "W": eye}) < 1e-6
  # The squared norm of the mean is 1/3.
  np.testing.assert_allclose(
    asymmetry({**zeros, "W": only_one}), 2 / 3, rtol=1e-5
  )


def test_the_gradient_of_a_symmetric_model_is_symmetric_up_to_noise():
  model = models.Disentangled(S, T, (1, 1), beta0=0.5)
  optimizer = optax.sgd(1.0)
  params = jax.jit(lambda key: training.init(key, model, optimizer).params)(
    jax.random.key(0)
  )
  batch = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))(
    jax.random.key(1), graphs.chain(T), priors.dirichlet(0.3), S, 2**14
  )
  _, gradient = jax.jit(training.loss_and_gradient, static_argnums=2)(
    params, batch, model
  )
  assert 1e-4 < jax.jit(symmetry.asymmetry)(gradient) < 0.05
