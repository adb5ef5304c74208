import functools

import jax
from jax import numpy as jnp
import numpy as np
import pytest
from scipy import stats

from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import estimators
from icl_causal.analysis import gradient
from icl_causal.analysis import information

MEASURES = [information.shannon, information.chi2]
pooled = jax.jit(estimators.pooled, static_argnums=(1, 2))


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize("measure", MEASURES)
def test_pooled_by_hand(measure):
  """Eight sequences with the table [[3, 1], [1, 3]] of counts."""
  x_NxT = jnp.array([[0, 0]] * 3 + [[0, 1], [1, 0]] + [[1, 1]] * 3)
  plain = estimators.pooled(x_NxT, 2, measure, correct=False)
  corrected = estimators.pooled(x_NxT, 2, measure)
  if measure is information.chi2:
    # phi^2 = (1/2)^2; lifts 3/2, 1/2 have weights 1/16, 9/16
    expected, bias = 1 / 4, (2 * 3 / 2 / 16 + 2 / 2 * 9 / 16) / 8
  else:  # one degree of freedom
    expected, bias = np.log(2) - stats.entropy([0.75, 0.25]), 1 / 2 / 8
  np.testing.assert_allclose(plain[1, 0], expected)
  np.testing.assert_allclose(plain[1, 0] - corrected[1, 0], bias)


def test_pooled_refuses_to_correct_an_unknown_measure():
  with pytest.raises(ValueError, match="set correct=False"):
    estimators.pooled(jnp.zeros((8, 2), int), 2, lambda P: P.sum((2, 3)))


def test_refuses_tokens_that_do_not_fit_and_no_permutations():
  x_RxNxT = jnp.array([[[0, 1], [2, 3]]] * 2)
  message, measure = "tokens must be from 0 to S - 1 = 2, got 3", MEASURES[0]
  with pytest.raises(ValueError, match=message):
    estimators.pooled(x_RxNxT[0], 3, measure)
  with pytest.raises(ValueError, match=message):
    estimators.conditional(x_RxNxT, 3, measure)
  key = jax.random.key(0)
  with pytest.raises(ValueError, match=message):
    estimators.permutation_null(key, x_RxNxT, 3, measure, 5)
  with pytest.raises(ValueError, match="num_permutations must be at least 1"):
    estimators.permutation_null(key, x_RxNxT, 4, measure, 0)


@pytest.mark.parametrize("measure", MEASURES)
def test_correction_removes_the_bias_of_first_order(measure):
  """The bias is exact: a mean over all outcomes, weighted by probability.

  From 20 to 40 sequences the bias of the plug-in estimate halves; the bias of
  the corrected estimate falls by a factor of about 4.
  """
  law = np.array([[0.4, 0.1], [0.2, 0.3]])
  exact = measure(jnp.asarray(law)[None, None])[0, 0]

  def bias(N, correct):
    splits = [
      (a, b, c, N - a - b - c)
      for a in range(N + 1)
      for b in range(N + 1 - a)
      for c in range(N + 1 - a - b)
    ]
    cells = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
    x_MxNxT = np.array([np.repeat(cells, split, axis=0) for split in splits])
    I_MxTxT = jax.jit(
      jax.vmap(lambda x_NxT: estimators.pooled(x_NxT, 2, measure, correct))
    )(x_MxNxT)
    weights_M = stats.multinomial.pmf(splits, N, law.ravel())
    return weights_M @ I_MxTxT[:, 1, 0] - exact

  assert 1.7 < bias(20, False) / bias(40, False) < 2.4
  assert bias(20, True) / bias(40, True) > 3.4


@pytest.fixture(scope="module")
def sequences():
  """64 kernels with 1024 sequences each, on a forest with two trees."""
  graph, prior = (
    graphs.from_parents([-1, 0, 1, -1, 3, -1]),
    priors.dirichlet(1.0),
  )

  def draw(key):
    kernel_key, key = jax.random.split(key)
    kernel = prior(kernel_key, 3, 1)
    batch = sampling.sample_batch(key, graph, priors.fixed(kernel), 3, 1024)
    return batch.x_T, kernel

  x_RxNxT, kernels = jax.jit(jax.vmap(draw))(
    jax.random.split(jax.random.key(5), 64)
  )
  return graph, x_RxNxT, kernels


@pytest.mark.parametrize("measure", MEASURES)
def test_conditional_is_unbiased_and_pooled_is_not(sequences, measure):
  graph, x_RxNxT, kernels = sequences
  exact_RxTxT = np.array(
    jax.jit(
      jax.vmap(
        lambda kernel: measure(information.pair_laws(graph, kernel)),
      )
    )(kernels)
  )
  each = np.array([pooled(x_NxT, 3, measure) for x_NxT in x_RxNxT])
  mean, error = jax.jit(lambda x: estimators.conditional(x, 3, measure))(
    x_RxNxT
  )
  np.testing.assert_allclose(mean, each.mean(0), atol=1e-12)
  np.testing.assert_allclose(error, stats.sem(each), atol=1e-12)
  difference = each - exact_RxTxT
  lower = np.tril_indices(5, -1)
  z = difference.mean(0)[lower] / stats.sem(difference)[lower]
  assert np.abs(z).max() < 4
  # Two roots depend on each other through the kernel only.
  assert abs(mean[3, 0]) < 0.002
  assert pooled(x_RxNxT.reshape(-1, 6), 3, measure)[3, 0] > 0.005


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_gradient_score_estimates_the_exact_score(epsilon):
  graph, prior = (
    graphs.from_parents([-1, 0, 1, -1, 3, -1]),
    priors.dirichlet(1.0),
  )
  batch = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))(
    jax.random.key(6), graph, prior, 3, 2**14
  )
  mean, error = jax.jit(estimators.gradient_score)(
    batch.x_T, batch.kernel, epsilon
  )
  score = functools.partial(gradient.gradient_score, epsilon=epsilon)
  exact, exact_error = jax.jit(
    lambda key: information.expected(key, graph, prior, 3, score, 2**12)
  )(jax.random.key(7))
  lower = np.tril_indices(5)
  z = (mean - exact)[lower] / np.hypot(error, exact_error)[lower]
  assert np.abs(z).max() < 4
  assert (np.asarray(mean)[np.triu_indices(6, 1)] == 0).all()
  assert (mean[-1] == 0).all()


def test_permutation_null_separates_roots_from_children(sequences):
  x_RxNxT = sequences[1][:16]
  I_TxT, _ = estimators.conditional(x_RxNxT, 3, information.shannon)
  null_MxT = jax.jit(
    functools.partial(
      estimators.permutation_null,
      S=3,
      measure=information.shannon,
      num_permutations=40,
    )
  )(jax.random.key(8), x_RxNxT)
  assert np.isneginf(null_MxT[:, 0]).all()
  largest = np.where(np.tri(6, k=-1, dtype=bool), I_TxT, -np.inf).max(1)
  # The maximum of a root is one more draw from the null: it is the largest with
  # probability 1/41.
  above = (largest > null_MxT.max(0))[:-1]
  assert above.tolist() == [False, True, True, False, True]
  # Null maxima differ between rows with one candidate and with four.
  assert null_MxT[:, 4].mean() > null_MxT[:, 1].mean()
