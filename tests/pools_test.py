"""Retrieval, against sums over all kernels and prompts."""

import itertools

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import pools
from icl_causal import priors
from icl_causal import sampling

FOREST = graphs.from_parents([-1, -1, 0, -1, 1, 0, -1, -1])
TWO_PARENTS = graphs.from_parents([-1, -1, (0, 1), (1, 2), 1, -1], (1, 2))


def _posterior(x_T, graph, kernels):
  """(f_S, w_M) by Bayes' rule, one factor after another."""
  S, T = kernels.shape[-1], len(x_T)
  weights = []
  for kernel in kernels:
    weight = 1.0
    for i, parents_K in enumerate(np.asarray(graph.parents_TxK)):
      if i < T - 1 or (parents_K >= 0).any():
        row = tuple(S if j < 0 else x_T[j] for j in parents_K)
        weight *= kernel[row][x_T[i]]
    weights.append(weight)
  w_M = np.array(weights) / sum(weights)
  target = tuple(x_T[j] for j in graph.target_K)
  return sum(w * k[target] for w, k in zip(w_M, kernels, strict=True)), w_M


@pytest.mark.parametrize("graph", [graphs.chain(6), FOREST, TWO_PARENTS])
def test_retrieval_is_bayes_rule_over_the_kernels(graph):
  S, K = 3, graph.parents_TxK.shape[1]
  rng = np.random.default_rng(K)
  kernels = rng.dirichlet([1.0] * S, size=(4, *[S + 1] * K))
  for _ in range(5):
    x_T = rng.integers(0, S, len(graph.parents_TxK))
    f_S, w_M = bayes.retrieval(jnp.asarray(x_T), graph, jnp.asarray(kernels))
    expected_S, expected_M = _posterior(x_T, graph, kernels)
    np.testing.assert_allclose(f_S, expected_S, atol=1e-5)
    np.testing.assert_allclose(w_M, expected_M, atol=1e-5)


def test_unigram_retrieval_is_bayes_rule_for_independent_tokens():
  """Then applied to the query: the weights ignore the edges, f does not."""
  S = 3
  rng = np.random.default_rng(0)
  kernels = rng.dirichlet([1.0] * S, size=(4, S + 1))
  x_T = rng.integers(0, S, 8)
  counts_S = np.bincount(x_T[:-1], minlength=S)
  likelihood_M = (kernels[:, S] ** counts_S).prod(axis=1)
  w_M = likelihood_M / likelihood_M.sum()
  f_S, found_M = pools.unigram_retrieval(
    jnp.asarray(x_T), FOREST, jnp.asarray(kernels)
  )
  np.testing.assert_allclose(found_M, w_M, atol=1e-5)
  np.testing.assert_allclose(f_S, w_M @ kernels[:, x_T[-1]], atol=1e-5)
  # Here the last position is not a query, so its token counts.
  likelihood_M *= kernels[:, S, x_T[-1]]
  _, found_M = pools.unigram_retrieval(
    jnp.asarray(x_T), graphs.kgram(8, 1), jnp.asarray(kernels)
  )
  np.testing.assert_allclose(
    found_M, likelihood_M / likelihood_M.sum(), atol=1e-5
  )


def _every_prompt(graph, kernels):
  """Every x_T, and its probability under each kernel, N x M."""
  S, T = kernels.shape[-1], len(graph.parents_TxK)
  x_NxT = np.array([*itertools.product(range(S), repeat=T)])
  p_NxM = np.full((len(x_NxT), len(kernels)), 1 / S)  # of the query
  for i, parent in enumerate(np.asarray(graph.parents_TxK)[:-1, 0]):
    rows_N = np.full(len(x_NxT), S) if parent < 0 else x_NxT[:, parent]
    p_NxM *= kernels[:, rows_N, x_NxT[:, i]].T
  return x_NxT, p_NxM


def _loss(f_NxS, x_NxT, p_NxM, kernels):
  """The expected loss on prompts of the pool, over all prompts and kernels."""
  y_MxNxS = kernels[:, x_NxT[:, -1]]
  loss_MxN = -(y_MxNxS * np.log(np.asarray(f_NxS, float))[None]).sum(axis=2)
  return (loss_MxN.T * p_NxM).sum() / len(kernels)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_retrieval_is_the_best_predictor_on_its_pool(alpha):
  """In expectation, by enumeration of all prompts: no worse than others."""
  graph, M = graphs.chain(6), 8
  kernels = np.asarray(
    priors.draws(jax.random.key(0), priors.dirichlet(alpha), 2, 1, M), float
  )
  x_NxT, p_NxM = _every_prompt(graph, kernels)
  of = jax.jit(
    jax.vmap(
      lambda x_T: jnp.stack(
        [
          bayes.retrieval(x_T, graph, jnp.asarray(kernels))[0],
          pools.unigram_retrieval(x_T, graph, jnp.asarray(kernels))[0],
          bayes.edge_posterior(x_T, graph, alpha, 2),
          bayes.unigram(x_T, 2),
        ]
      )
    )
  )
  best, *others = (
    _loss(f_NxS, x_NxT, p_NxM, kernels)
    for f_NxS in np.asarray(of(jnp.asarray(x_NxT))).swapaxes(0, 1)
  )
  entropy = _loss_of_truth(x_NxT, p_NxM, kernels)
  assert entropy < best < min(others) - 1e-3


def _loss_of_truth(x_NxT, p_NxM, kernels):
  y_MxNxS = kernels[:, x_NxT[:, -1]]
  entropy_MxN = -(y_MxNxS * np.log(y_MxNxS)).sum(axis=2)
  return (entropy_MxN.T * p_NxM).sum() / len(kernels)


def test_with_one_kernel_the_loss_is_the_entropy():
  prior = priors.dirichlet(0.1)
  kernels = priors.draws(jax.random.key(1), prior, 3, 1, 1)
  batch = sampling.sample_batch(
    jax.random.key(2), FOREST, priors.pool(kernels), 3, 64
  )
  f_NxS, w_NxM = jax.vmap(lambda x_T: bayes.retrieval(x_T, FOREST, kernels))(
    batch.x_T
  )
  np.testing.assert_allclose(f_NxS, batch.y_S, atol=1e-6)
  assert (w_NxM == 1).all()
  np.testing.assert_allclose(
    jax.vmap(metrics.loss)(f_NxS, batch.y_S),
    bayes.entropy(batch.y_S),
    atol=1e-5,
  )


def test_with_many_kernels_it_is_the_exact_posterior():
  """2^16 draws of the prior, S = 2; roots have the stationary law.

  The errors are those over 32 parts of the pool and over 16 estimates of the
  exact posterior.
  """
  alpha, M, S = 0.5, 2**16, 2

  @jax.jit
  def laws(key, x_T):
    pool_key, *keys = jax.random.split(key, 17)
    kernels = priors.draws(pool_key, priors.dirichlet(alpha), S, 1, M)
    parts = kernels.reshape(32, -1, S + 1, S)
    exact_16xS = jax.vmap(
      lambda key: bayes.dirichlet_posterior(key, x_T, FOREST, alpha, S, 256).f_S
    )(jnp.stack(keys))
    f_S, _ = bayes.retrieval(x_T, FOREST, kernels)
    parts_32xS = jax.lax.map(
      lambda part: bayes.retrieval(x_T, FOREST, part)[0], parts
    )
    edge_S = bayes.edge_posterior(x_T, FOREST, alpha, S)
    return f_S[0], parts_32xS[:, 0], exact_16xS[:, 0], edge_S[0]

  differs = 0
  for x_T in np.random.default_rng(0).integers(0, S, (6, 8)):
    found = laws(jax.random.key(3), jnp.asarray(x_T))
    f, parts_32, exact_16, edge = map(np.asarray, found)
    error = np.hypot(parts_32.std(ddof=1) / 32**0.5, exact_16.std(ddof=1) / 4)
    assert abs(f - exact_16.mean()) < 4 * error
    assert error < 0.01
    differs += abs(edge - f) > 4 * error
  assert differs > 1


def test_a_prompt_that_no_kernel_allows():
  """The kernels with the fewest impossible tokens remain."""
  never_1, alternates, never_0 = [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]
  kernels = jnp.array(
    [
      [never_1, never_1, never_1],
      [alternates, [1.0, 0.0], [0.5, 0.5]],
      [never_0, never_0, never_0],
    ]
  )
  # Root 1, then 0, 0, 0: impossible for the first once, for the second twice
  # and for the third three times.
  f_S, w_M = bayes.retrieval(
    jnp.array([1, 0, 0, 0]), graphs.kgram(4, 1), kernels
  )
  np.testing.assert_allclose(w_M, [1, 0, 0], atol=1e-6)
  np.testing.assert_allclose(f_S, never_1, atol=1e-6)


def test_kernels_must_fit_the_graph():
  kernels = jnp.full((2, 4, 3), 1 / 3)
  with pytest.raises(AssertionError):
    bayes.retrieval(jnp.zeros(6, int), TWO_PARENTS, kernels)
  with pytest.raises(ValueError, match="expected 8 tokens"):
    bayes.retrieval(jnp.zeros(6, int), FOREST, kernels)
