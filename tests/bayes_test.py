import functools

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
  # Positions 0 and 3 are roots; 0 is the parent of 1 and 2, 3 of 4.
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
  # The target's parents have the tokens (1, 0), as the parents of position 3.
  # Position 4 has one parent and those of position 2 have (0, 1): no match.
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


FOREST = graphs.from_parents([-1, -1, 0, -1, 1, 0, -1, -1])


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_exact_posterior_integrates_over_kernels_and_roots(alpha):
  """As above, with roots, whose law is (pi(0|1), pi(1|0)) / their sum.

  Quadrature by the midpoint rule over the quantiles of each row.
  """
  num, repeats = 256, 16
  u_N = (np.arange(1000) + 0.5) / 1000
  p_N = special.betaincinv(alpha, alpha, u_N)
  row0_NxN, row1_NxN = np.meshgrid(p_N, p_N, indexing="ij")
  pi = np.array([[row0_NxN, 1 - row0_NxN], [row1_NxN, 1 - row1_NxN]])
  mu = np.array([pi[1, 0], pi[0, 1]]) / (pi[1, 0] + pi[0, 1])
  posterior = jax.jit(
    jax.vmap(
      lambda key, x_T: bayes.exact_posterior(key, x_T, FOREST, alpha, 2, num),
      in_axes=(0, None),
    )
  )
  rng, differences = np.random.default_rng(1), []
  for case in range(12):
    x_T = rng.integers(0, 2, 8)
    likelihood = np.ones_like(row0_NxN)
    for child, parent in graphs.edges(FOREST):
      likelihood = likelihood * pi[x_T[parent], x_T[child]]
    edges_only = (likelihood * pi[x_T[-1], 0]).sum() / likelihood.sum()
    for root in (0, 1, 3, 6):
      likelihood = likelihood * mu[x_T[root]]
    expected = (likelihood * pi[x_T[-1], 0]).sum() / likelihood.sum()
    keys = jax.random.split(jax.random.key(case), repeats)
    f_RxS, ess_R = posterior(keys, jnp.asarray(x_T))
    np.testing.assert_allclose(f_RxS.sum(axis=1), 1, atol=1e-5)
    assert (ess_R > 20).all()
    assert (ess_R <= num).all()
    error = f_RxS[:, 0].std(ddof=1) / np.sqrt(repeats)
    assert abs(f_RxS[:, 0].mean() - expected) < 4 * error + 5e-4
    differences.append(abs(expected - edges_only) / error)
  assert np.median(differences) > 4  # the edge posterior would not pass


def test_exact_posterior_agrees_with_importance_sampling_from_the_prior():
  """Three states: kernels from the prior, weighted by the law of all tokens."""
  x_T, alpha, num = np.array([2, 0, 1, 0, 0, 2, 1, 2]), 0.3, 2**19
  rng = np.random.default_rng(0)
  pi = rng.dirichlet([alpha] * 3, size=(num, 3))
  mu = np.linalg.matrix_power(0.5 * np.eye(3) + 0.5 * pi, 4096)[:, 0]
  weight = np.ones(num)
  for child, parent in graphs.edges(FOREST):
    weight *= pi[:, x_T[parent], x_T[child]]
  for root in (0, 1, 3, 6):
    weight *= mu[:, x_T[root]]
  expected = weight @ pi[:, x_T[-1]] / weight.sum()
  around = pi[:, x_T[-1]] - expected
  error = np.sqrt((weight**2) @ (around**2)) / weight.sum()
  keys = jax.random.split(jax.random.key(0), 16)
  f_RxS, ess_R = jax.jit(
    jax.vmap(
      lambda key: bayes.exact_posterior(
        key, jnp.asarray(x_T), FOREST, alpha, 3, 512
      )
    )
  )(keys)
  error = np.hypot(error, f_RxS.std(axis=0, ddof=1) / 4)
  assert (error < 0.01).all()
  assert (np.abs(f_RxS.mean(axis=0) - expected) < 4 * error).all()
  edges_only = bayes.edge_posterior(jnp.asarray(x_T), FOREST, alpha, 3)
  assert (np.abs(edges_only - expected) > 8 * error).any()
  # At most twice the variance of a mean of ess draws from the posterior.
  variance = weight @ around**2 / weight.sum()
  assert 50 < ess_R.mean() < 512
  assert (f_RxS.var(axis=0, ddof=1) < 2 * variance / ess_R.mean()).all()


@pytest.mark.parametrize(
  "roots",
  [
    [0, 0, 0, 1],  # edges from the query's token 0: the other row is uncertain
    [1, 1, 1, 0],  # edges from the other token: the target's row is uncertain
  ],
)
def test_effective_sample_size_is_the_smaller_of_two(roots):
  """(E w)^2 / E w^2 of the weights of each row's draws, by quadrature.

  Two states, so the other rows are one row. A draw of a row has the mean weight
  over the draws of the other.
  """
  alpha, num = 0.2, 4096
  graph = graphs.from_parents([-1] * 4 + [0] * 8 + [-1])
  x_T = np.array([*roots, *([0, 1] * 4), 0])
  counts = np.full((2, 2), alpha)
  for child, parent in graphs.edges(graph):
    counts[x_T[parent], x_T[child]] += 1
  u_N = (np.arange(1000) + 0.5) / 1000
  to_1, to_0 = np.meshgrid(  # pi(1|0), of the query's token, and pi(0|1)
    special.betaincinv(*counts[0, ::-1], u_N),
    special.betaincinv(*counts[1], u_N),
    indexing="ij",
  )
  mu = np.array([to_0, to_1]) / (to_0 + to_1)
  weight = mu[x_T[:4]].prod(axis=0)
  shares = [
    w_N.mean() ** 2 / (w_N**2).mean()
    for w_N in (weight.mean(axis=0), weight.mean(axis=1))
  ]
  assert max(shares) > 1.6 * min(shares)
  _, effective, *_ = jax.jit(
    lambda key: bayes.exact_posterior(
      key, jnp.asarray(x_T), graph, alpha, 2, num
    )
  )(jax.random.key(0))
  assert abs(effective / (num * min(shares)) - 1) < 0.15


def test_a_control_variate_reduces_the_noise_of_the_exact_posterior():
  """Without it the variance is at least that of a mean of num_samples draws.

  On a chain the only root says little, so the draws have nearly equal weights.
  The target's row is Dirichlet(counts), with the variance of the textbook.
  """
  graph, alpha, S, num = graphs.chain(12), 0.5, 3, 64
  x_T = jnp.array([0, 1, 0, 2, 0, 1, 1, 2, 2, 1, 0, 0])
  f_RxS = jax.jit(
    jax.vmap(
      lambda key: bayes.exact_posterior(key, x_T, graph, alpha, S, num)[0]
    )
  )(jax.random.split(jax.random.key(0), 256))
  mean_S = bayes.edge_posterior(x_T, graph, alpha, S)
  count = S * alpha + 4  # four tokens follow a 0
  variance_S = mean_S * (1 - mean_S) / (count + 1)
  assert (f_RxS.var(axis=0, ddof=1) < variance_S / num / 3).all()


def test_exact_posterior_is_the_edge_posterior_unless_roots_are_stationary():
  two = graphs.from_parents([-1, -1, (0, 1), (1, 2), 1, -1], (1, 2))
  x_T = jnp.array([0, 1, 0, 2, 2, 1])
  for graph, law in (
    (two, None),
    (two, "dirichlet"),
    (graphs.chain(6), "uniform"),
  ):
    f_S, ess = bayes.exact_posterior(
      jax.random.key(0), x_T, graph, 0.5, 3, 7, law
    )
    np.testing.assert_array_equal(f_S, bayes.edge_posterior(x_T, graph, 0.5, 3))
    assert ess == 7
  with pytest.raises(ValueError, match="single parents, got K = 2"):
    bayes.exact_posterior(jax.random.key(0), x_T, two, 0.5, 3, 7, "stationary")


def _law_by_enumeration(x_T, graph, kernels, weights):
  """sum_k w_k P(x | kernel k) pi_k(. | parents), normalised, in numpy."""
  S = kernels[0].shape[-1]
  total = np.zeros(S)
  T = len(x_T)
  for kernel, weight in zip(kernels, weights, strict=True):
    for i, parents_K in enumerate(np.asarray(graph.parents_TxK)):
      if i < T - 1 or (parents_K >= 0).any():
        row = tuple(S if j < 0 else x_T[j] for j in parents_K)
        weight = weight * kernel[row][x_T[i]]
    total += weight * kernel[tuple(x_T[j] for j in graph.target_K)]
  return total / total.sum()


@pytest.mark.parametrize("K", [1, 2])
def test_sampled_posterior_of_a_prior_on_three_kernels(K):
  """A prior on three kernels, the first twice as likely, by enumeration."""
  S = 3
  graph = FOREST
  if K == 2:
    graph = graphs.from_parents([-1, -1, (0, 1), (1, 2), 1, -1], (1, 2))
  rng = np.random.default_rng(K)
  kernels_3 = rng.dirichlet([1.0] * S, size=(3, *[S + 1] * K))
  weights_3 = np.array([0.5, 0.25, 0.25])

  def prior(key, S, K):
    del S, K
    return jnp.asarray(kernels_3)[jax.random.choice(key, 3, p=weights_3)]

  x_T = rng.integers(0, S, len(graph.parents_TxK))
  estimate = jax.jit(
    lambda key: bayes.sampled_posterior(
      key, jnp.asarray(x_T), graph, prior, S, 2**14
    )
  )(jax.random.key(0))
  expected = _law_by_enumeration(x_T, graph, kernels_3, weights_3)
  np.testing.assert_allclose(estimate.f_S, expected, atol=0.02)
  assert np.abs(expected - kernels_3.mean(axis=0)[0, 0]).max() > 0.05
  np.testing.assert_allclose(
    estimate.halves_2xS.mean(axis=0), expected, atol=0.02
  )
  assert 2**10 < estimate.effective < 2**14


def test_sampled_posterior_agrees_with_the_dirichlet_posterior():
  x_T, alpha = jnp.array([2, 2, 0, 2, 0, 1, 2, 1]), 0.3
  sampled, dirichlet = jax.jit(
    lambda key: (
      bayes.sampled_posterior(
        key, x_T, FOREST, priors.dirichlet(alpha), 3, 2**16
      ),
      bayes.dirichlet_posterior(key, x_T, FOREST, alpha, 3, 512),
    )
  )(jax.random.key(0))
  assert sampled.effective > 1000
  np.testing.assert_allclose(sampled.f_S, dirichlet.f_S, atol=0.02)
  edges_only = bayes.edge_posterior(x_T, FOREST, alpha, 3)
  assert np.abs(edges_only - dirichlet.f_S).max() > 0.06


def test_halves_estimate_the_bias_of_the_loss():
  """The mean loss of few samples is too large by the estimated bias."""
  graph, alpha, num = graphs.pairs(12), 0.1, 64
  batch = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))(
    jax.random.key(0), graph, priors.dirichlet(alpha), 3, num
  )

  @functools.partial(jax.jit, static_argnums=(1, 2))
  def losses(key, num_samples, repeats):
    """Of all samples and of both halves, for each prompt and draw."""

    def one(key):
      prompt_key, draw_key = jax.random.split(key)
      n = jax.random.randint(prompt_key, (), 0, num)
      found = bayes.dirichlet_posterior(
        draw_key, batch.x_T[n], graph, alpha, 3, num_samples
      )
      f_3xS = jnp.concatenate([found.f_S[None], found.halves_2xS])
      return n, -jax_special.xlogy(batch.y_S[n][None], f_3xS).sum(axis=1)

    return jax.lax.map(one, jax.random.split(key, repeats))

  def by_prompt(n_R, values_R):
    return np.bincount(n_R, values_R, num) / np.bincount(n_R, minlength=num)

  n_R, few_Rx3 = map(np.asarray, losses(jax.random.key(1), 32, 4096))
  n_M, many_Mx3 = map(np.asarray, losses(jax.random.key(2), 256, 512))
  bias_R = few_Rx3[:, 1:].mean(axis=1) - few_Rx3[:, 0]
  true_N = by_prompt(n_R, few_Rx3[:, 0]) - by_prompt(n_M, many_Mx3[:, 0])
  bias_N = by_prompt(n_R, bias_R)
  error = np.std(bias_N - true_N) / num**0.5
  assert true_N.mean() > 3 * error  # an estimate of 0 would not pass
  assert abs(bias_N.mean() - true_N.mean()) < 3 * error


def test_exact_posterior_refuses_what_it_cannot_estimate():
  x_T, key = jnp.zeros(8, jnp.int32), jax.random.key(0)
  with pytest.raises(ValueError, match=r"needs alpha >= 0\.01, got 0\.001"):
    bayes.exact_posterior(key, x_T, FOREST, 0.001, 3, 64)
  for estimate in (
    lambda: bayes.exact_posterior(key, x_T, FOREST, 0.1, 3, 1),
    lambda: bayes.sampled_posterior(
      key, x_T, FOREST, priors.dirichlet(0.1), 3, 1
    ),
  ):
    with pytest.raises(ValueError, match="at least 2, got 1"):
      estimate()


def test_exact_posterior_is_finite_at_the_smallest_alpha():
  alpha, num = bayes.MIN_ALPHA, 512
  batch = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))(
    jax.random.key(0), FOREST, priors.dirichlet(alpha), 3, num
  )
  f_NxS, _ = jax.jit(
    lambda keys: jax.lax.map(
      lambda a: bayes.exact_posterior(*a, FOREST, alpha, 3, 16),
      (keys, batch.x_T),
    )
  )(jax.random.split(jax.random.key(1), num))
  np.testing.assert_allclose(f_NxS.sum(axis=1), 1, atol=1e-5)


def test_exact_posterior_is_the_best_predictor():
  """Its loss is below the edge posterior's on prompts with many roots."""
  graph, num, alpha = graphs.pairs(20), 512, 0.1
  batch = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))(
    jax.random.key(0), graph, priors.dirichlet(alpha), 3, num
  )
  f_NxS, _ = jax.jit(
    lambda keys, x_NxT: jax.lax.map(
      lambda a: bayes.exact_posterior(*a, graph, alpha, 3, 128),
      (keys, x_NxT),
      batch_size=32,
    )
  )(jax.random.split(jax.random.key(1), num), batch.x_T)
  edges_NxS = jax.vmap(lambda x_T: bayes.edge_posterior(x_T, graph, alpha, 3))(
    batch.x_T
  )
  gain_N = (batch.y_S * np.log(f_NxS / edges_NxS)).sum(axis=1)
  assert gain_N.mean() > 3 * gain_N.std() / np.sqrt(num)


@pytest.mark.parametrize(
  ("x_T", "message"),
  [
    (jnp.array([0, 1, 2, 3]), r"tokens must be from 0 to S - 1 = 2, got 3"),
    (jnp.array([0, 1, -1, 0]), r"tokens must be from 0 to S - 1 = 2, got -1"),
    (jnp.zeros(5, int), r"expected 4 tokens, got shape \(5,\)"),
    (jnp.zeros(4), "tokens must be integers, got float"),
  ],
)
def test_predictors_refuse_tokens_that_do_not_fit(x_T, message):
  graph, key = graphs.chain(4), jax.random.key(0)
  with pytest.raises(ValueError, match=f"^{message}"):
    bayes.edge_posterior(x_T, graph, 0.5, 3)
  with pytest.raises(ValueError, match=f"^{message}"):
    bayes.exact_posterior(key, x_T, graph, 0.5, 3, 8)
  with pytest.raises(ValueError, match=f"^{message}"):
    bayes.sampled_posterior(key, x_T, graph, priors.dirichlet(0.5), 3, 8)
  if x_T.size == 4:
    with pytest.raises(ValueError, match=f"^{message}"):
      bayes.unigram(x_T, 3)


def test_the_exact_posterior_needs_samples():
  with pytest.raises(ValueError, match="num_samples must be at least"):
    bayes.exact_posterior(
      jax.random.key(0), jnp.zeros(4, int), graphs.chain(4), 0.5, 3, 0
    )


def test_unigram_and_uniform_by_hand():
  x_T = jnp.array([0, 0, 2, 0])
  np.testing.assert_allclose(bayes.unigram(x_T, 3), [4 / 7, 1 / 7, 2 / 7])
  np.testing.assert_allclose(bayes.uniform(4), [0.25] * 4)


def test_entropy_by_hand():
  np.testing.assert_allclose(bayes.entropy(jnp.array([0.5, 0.5, 0])), np.log(2))
  np.testing.assert_allclose(bayes.entropy(jnp.array([1.0, 0, 0])), 0)


# Entropy and edge posterior loss in nats, from another implementation, with a
# Monte-Carlo standard error of about .004.
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
def test_entropy_after_the_query_is_that_of_a_dirichlet_row(S):
  """The query does not depend on the kernel: E H = psi(S a + 1) - psi(a + 1).

  This does not hold if the target's parents are drawn from the kernel.
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
