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


def _renamed(params, order):
  """The parameters that do to states order[s] what these do to states s."""

  def stream(width):
    blocks = np.arange(width).reshape(-1, S + T)
    blocks[:, :S] = blocks[:, list(order)]
    return blocks.ravel()

  def matrix(A):
    index = stream(A.shape[-1])
    return A[:, index][:, :, index]

  renamed = {name: matrix(A) for name, A in params.items() if name != "W"}
  W = params["W"]
  return renamed | {"W": W[stream(len(W))][:, np.array(order)]}


@pytest.mark.parametrize("heads", [(1, 1), (2, 1), (1, 1, 1)])
def test_the_mean_is_that_over_every_naming(heads):
  params = _params(heads)
  every = [_renamed(params, o) for o in itertools.permutations(range(S))]
  mean = jax.tree.map(lambda *leaves: sum(leaves) / len(every), *every)
  found = jax.jit(symmetry.relabelling_mean)(params)
  for name in mean:
    np.testing.assert_allclose(found[name], mean[name], atol=1e-5)


def test_renaming_is_what_the_model_takes_it_for():
  """What the test above averages over: the model of renamed prompts."""
  params = _params((2, 1))
  apply = jax.jit(models.Disentangled(S, T, (2, 1)).apply)
  order = (2, 0, 1)
  x_T = np.array([0, 1, 2, 1])
  f_S, _ = apply({"params": params}, jnp.asarray(np.array(order)[x_T]))
  renamed_S, _ = apply({"params": _renamed(params, order)}, jnp.asarray(x_T))
  np.testing.assert_allclose(renamed_S, f_S[np.array(order)], atol=1e-5)


def test_asymmetry_by_hand():
  asymmetry = jax.jit(symmetry.asymmetry)
  zeros = {name: 0 * leaf for name, leaf in _params((1, 1)).items()}
  eye, only_one = zeros["W"].copy(), zeros["W"].copy()
  eye[:S], only_one[0, 0] = 2 * np.eye(S), 1
  assert asymmetry({**zeros, "W": eye}) < 1e-6
  # A third of its square is the mean's.
  np.testing.assert_allclose(
    asymmetry({**zeros, "W": only_one}), 2 / 3, rtol=1e-5
  )


def test_the_gradient_of_a_symmetric_model_is_symmetric_but_for_noise():
  model = models.Disentangled(S, T, (1, 1), matching=0.5)
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
  asymmetry = jax.jit(symmetry.asymmetry)
  assert 1e-4 < asymmetry(gradient) < 0.05
  updates, _ = jax.jit(symmetry.symmetric().update)(
    gradient, optax.EmptyState()
  )
  assert asymmetry(updates) < 1e-6
