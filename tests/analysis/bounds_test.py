"""Bounds on the error of graph recovery, against exact errors."""

import itertools

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import bounds
from icl_causal.analysis import information
from icl_causal.analysis import likelihood
from tests.support import enumeration


def _laws(kernel, i):
  """P(prompt | p(i) = j) for every j < i, i x S**T, with a chain before i."""
  return np.array(
    [
      [
        probability
        for _, probability in enumeration.sequences(
          graphs.from_parents([*range(-1, i - 1), j, -1]), kernel
        )
      ]
      for j in range(i)
    ]
  )


def _error(laws_JxX, N):
  """The least mean error over uniform j from N prompts, by enumeration."""
  of_prompts = laws_JxX
  for _ in range(N - 1):
    of_prompts = (of_prompts[:, :, None] * laws_JxX[:, None, :]).reshape(
      len(laws_JxX), -1
    )
  return 1 - of_prompts.max(axis=0).sum() / len(laws_JxX)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_exact_error_is_between_the_bounds(seed):
  """For one kernel and N = 1, 2, 3 prompts: mean over the parent of node 3."""
  kernel = enumeration.random_kernel(seed, 2, 1)
  i = 3
  laws_JxX = _laws(kernel, i)
  sizes = (1, 2, 3)
  most, least = [], []
  for j in range(i):
    graph = graphs.from_parents([*range(-1, i - 1), j, -1])
    B_TxT = information.bhattacharyya(graph, jnp.asarray(kernel))
    most.append(bounds.most_error(B_TxT, graph, sizes)[:, -1])
    least.append(bounds.least_error(B_TxT, graph, sizes)[:, -1])
  np.testing.assert_allclose(least[0], least[1], rtol=1e-4)
  for n, N in enumerate(sizes):
    exact = _error(laws_JxX, N)
    assert np.mean(least, axis=0)[n] <= exact + 1e-6
    assert exact <= np.mean(most, axis=0)[n] + 1e-6
    # The mean law of a prompt; I = H(mean) - mean H.
    mean_X = laws_JxX.mean(axis=0)
    I = (laws_JxX * np.log(laws_JxX / mean_X)).sum() / i
    assert bounds.fano([I], [i], [N])[0, 0] <= exact + 1e-6


def test_least_error_by_all_permutations():
  rng = np.random.default_rng(0)
  B_TxT = rng.uniform(0.3, 0.9, (6, 6))
  B_TxT = (B_TxT + B_TxT.T) / 2
  graph = graphs.from_parents([-1, 0, 0, 2, 1, -1])
  least = bounds.least_error(B_TxT, graph, (1, 3))
  assert least.shape == (2, 4)
  for n, N in enumerate((1, 3)):
    e_TxT = (1 - np.sqrt(1 - B_TxT ** (2 * N))) / 2
    for e, (i, _) in enumerate(graphs.edges(graph)):
      sums = [
        sum(e_TxT[j, f[j]] for j in range(i)) / i
        for f in itertools.permutations(range(i))
        if all(f[j] != j for j in range(i))
      ]
      np.testing.assert_allclose(least[n, e], max(sums, default=0))


def test_the_largest_affinity_alone_is_no_bound():
  """One candidate is close to all others, which are far from each other.

  A method that never guesses it has an error of 1 / i and no other errors, so
  the mean over parents of max_j B_pj^(2N) / 4 is not below the error.
  """
  i, near = 64, 0.7
  B_TxT = np.full((i + 2, i + 2), near**4)
  B_TxT[0], B_TxT[:, 0] = near, near
  np.fill_diagonal(B_TxT, 1)
  graph = graphs.from_parents([-1, *[0] * i, -1])
  N = [1]
  claimed = near**2 / 4
  assert claimed > 1 / i + 0.1
  least = bounds.least_error(B_TxT, graph, N)[0, -1]
  assert least < claimed / 2


def test_most_error_by_hand():
  graph = graphs.from_parents([-1, 0, 1, 1, -1])
  B_TxT = np.eye(5)
  B_TxT[0, 1] = B_TxT[1, 0] = 0.5
  B_TxT[2, 1] = B_TxT[1, 2] = 0.2
  most = bounds.most_error(B_TxT, graph, (1, 2))
  np.testing.assert_allclose(most, [[0, 0.5, 2 / 3], [0, 0.25, 0.29]])


def test_fano_by_hand():
  """Without information the error is that of a guess; with enough it is 0."""
  errors = bounds.fano([0.1, 0.1, 0.0], [1, 4, 4], [1, 10, 14])
  np.testing.assert_allclose(errors[:, 0], 0)
  np.testing.assert_allclose(errors[:, 2], 0.75, rtol=1e-6)
  assert errors[2, 1] == 0  # 14 * .1 > log 4
  x = errors[1, 1]
  left = -x * np.log(x) - (1 - x) * np.log(1 - x) + x * np.log(3)
  np.testing.assert_allclose(left, np.log(4) - 1.0, rtol=1e-9)


def test_parent_information_by_enumeration():
  """Averaged over the parent, it is the mutual information of both."""
  kernel, i = enumeration.random_kernel(4, 3, 1), 3
  laws_JxX = _laws(kernel, i)
  exact = (laws_JxX * np.log(laws_JxX / laws_JxX.mean(axis=0))).sum() / i
  gain = jax.jit(
    jax.vmap(
      lambda x_T, graph: bounds.parent_information(
        likelihood.likelihood_score(x_T, jnp.asarray(kernel)), graph
      ),
      (0, None),
    )
  )
  total = 0
  for j in range(i):
    graph = graphs.from_parents([*range(-1, i - 1), j, -1])
    x_NxT, weight_N = zip(*enumeration.sequences(graph, kernel), strict=True)
    gains_NxT = np.asarray(gain(jnp.array(x_NxT), graph))
    assert not gains_NxT[:, [0, 4]].any()
    np.testing.assert_allclose(gains_NxT[:, 1], 0, atol=1e-6)
    total += weight_N @ gains_NxT[:, 3] / i
  np.testing.assert_allclose(total, exact, rtol=1e-4)


def test_a_guarantee_holds_on_prompts():
  """The share that the likelihood finds is above 1 - most_error."""
  graph, prior, S = graphs.chain(8), priors.dirichlet(0.2), 3
  B_TxT, _ = jax.jit(
    lambda key: information.expected(
      key, graph, prior, S, information.bhattacharyya, 2048
    )
  )(jax.random.key(0))
  most = bounds.most_error(B_TxT, graph, (6,))[0]

  @jax.jit
  @jax.vmap
  def missed(key):
    batch = sampling.sample_batch(key, graph, prior, S, 6)
    score = jax.vmap(likelihood.likelihood_score)(batch.x_T, batch.kernel)
    score_TxT = jnp.where(jnp.tri(8, k=-1), score.sum(axis=0), -jnp.inf)
    return score_TxT.argmax(axis=1) != graph.parents_TxK[:, 0]

  missed_RxT = np.asarray(missed(jax.random.split(jax.random.key(1), 2000)))
  share = missed_RxT[:, 1:7].mean(axis=0)
  error = 4 * (share * (1 - share) / 2000) ** 0.5
  assert (share <= most + error).all()
  assert share[-1] > 0.1
