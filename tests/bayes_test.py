import jax
from jax import numpy as jnp
from jax.scipy import special as jax_special
import numpy as np
import pytest
from scipy import special

from icl_causal import bayes
from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling


def test_edge_posterior_by_hand():
  # Roots 0 and 3 follow nothing; 1 and 2 follow 0; 4 follows 3.
  graph = graphs.from_parents([-1, 0, 0, -1, 3, -1])
  x_T = jnp.array([2, 0, 1, 2, 0, 2])
  # Children of a 2: tokens 0, 1, 0.
  np.testing.assert_allclose(
    bayes.edge_posterior(x_T, graph, 0.5, 3), [2.5 / 4.5, 1.5 / 4.5, 0.5 / 4.5]
  )
  # No child of a 1: the prior's mean.
  x_T = x_T.at[5].set(1)
  np.testing.assert_allclose(
    bayes.edge_posterior(x_T, graph, 0.5, 3), [1 / 3] * 3, rtol=1e-6
  )


def test_edge_posterior_of_two_parents_by_hand():
  # The target's parents read (1, 0), as those of position 3; position 4 has
  # the single parent 1 and position 2 reads (0, 1): neither counts.
  graph = graphs.from_parents([-1, -1, (0, 1), (1, 2), 1, -1], (1, 2))
  x_T = jnp.array([0, 1, 0, 2, 2, 1])
  np.testing.assert_allclose(
    bayes.edge_posterior(x_T, graph, 1.0, 3), [1 / 4, 1 / 4, 2 / 4]
  )


@pytest.mark.parametrize(
  "graph",
  [
    graphs.chain(6),
    graphs.pairs(6),
    graphs.from_parents([-1, -1, 0, 1, -1, 0, 4, -1]),
  ],
)
@pytest.mark.parametrize("alpha", [0.1, 1.0, 2.5])
def test_edge_posterior_integrates_over_kernels(graph, alpha):
  """E[pi(0|s_T) L(pi)] / E[L(pi)] for S = 2, by quadrature over both rows.

  L is the product of pi(s_i | s_p(i)) over the edges. Each row is Beta(alpha,
  alpha); Gauss-Jacobi quadrature is exact for these polynomials.
  """
  nodes, weights = special.roots_jacobi(24, alpha - 1, alpha - 1)
  p_N = (nodes + 1) / 2
  row0_NxN, row1_NxN = np.meshgrid(p_N, p_N, indexing="ij")
  pi = np.array([[row0_NxN, 1 - row0_NxN], [row1_NxN, 1 - row1_NxN]])
  rng = np.random.default_rng(0)
  for _ in range(20):
    x_T = rng.integers(0, 2, len(graph.parents_TxK))
    likelihood = np.outer(weights, weights)
    for child, parent in graphs.edges(graph):
      likelihood = likelihood * pi[x_T[parent], x_T[child]]
    expected = (likelihood * pi[x_T[-1], 0]).sum() / likelihood.sum()
    f_S = bayes.edge_posterior(jnp.asarray(x_T), graph, alpha, 2)
    np.testing.assert_allclose(f_S, [expected, 1 - expected], atol=1e-6)


def test_unigram_and_uniform_by_hand():
  x_T = jnp.array([0, 0, 2, 0])
  np.testing.assert_allclose(bayes.unigram(x_T, 3), [4 / 7, 1 / 7, 2 / 7])
  np.testing.assert_allclose(bayes.uniform(4), [0.25] * 4)


def test_entropy_by_hand():
  np.testing.assert_allclose(bayes.entropy(jnp.array([0.5, 0.5, 0])), np.log(2))
  np.testing.assert_allclose(bayes.entropy(jnp.array([1.0, 0, 0])), 0)


# Entropy and edge posterior in nats, measured with another implementation, its
# Monte-Carlo standard error about .004.
REFERENCE = {
  "chain 10": (graphs.chain(20), 10, "stationary", 0.848, 1.760),
  "pairs 10": (graphs.pairs(20), 10, "stationary", 0.847, 1.930),
  "chain 3": (graphs.chain(20), 3, "stationary", 0.254, 0.609),
  "pairs 3": (graphs.pairs(20), 3, "stationary", 0.253, 0.640),
  "two parents": (graphs.half_and_previous(32), 5, "dirichlet", 0.431, 0.878),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_losses(name):
  graph, S, root_law, entropy, edge_posterior = REFERENCE[name]
  num, alpha = 2**15, 0.1

  @jax.jit
  def losses(key):
    prior = priors.dirichlet(alpha, root_law)
    batch = sampling.sample_batch(key, graph, prior, S, num)
    f_NxS = jax.vmap(lambda x_T: bayes.edge_posterior(x_T, graph, alpha, S))(
      batch.x_T
    )
    posterior_N = -jax_special.xlogy(batch.y_S, f_NxS).sum(1)
    return bayes.entropy(batch.y_S), posterior_N

  for loss_N, reference in zip(
    losses(jax.random.key(0)), (entropy, edge_posterior), strict=True
  ):
    error = np.hypot(loss_N.std() / np.sqrt(num), 0.004)
    assert abs(loss_N.mean() - reference) < 3 * error


@pytest.mark.parametrize("S", [3, 10])
def test_entropy_of_the_query_is_that_of_a_dirichlet_row(S):
  """The query does not depend on the kernel: E H = psi(S a + 1) - psi(a + 1).

  Not so where the target's parents were drawn from the kernel themselves.
  """
  alpha, num = 0.1, 2**15
  prior = priors.dirichlet(alpha, "uniform")
  batch = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))(
    jax.random.key(0), graphs.chain(4), prior, S, num
  )
  exact = special.digamma(S * alpha + 1) - special.digamma(alpha + 1)
  entropy_N = bayes.entropy(batch.y_S)
  error = entropy_N.std() / np.sqrt(num)
  assert abs(entropy_N.mean() - exact) < 4 * error
