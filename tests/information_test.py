import functools

import enumeration
import jax
from jax import numpy as jnp
import numpy as np
import pytest
from scipy import stats

from icl_causal import graphs
from icl_causal import information
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling

GRAPHS = {
  "chain": graphs.chain(5),
  "one edge": graphs.from_parents([-1, -1, 0, -1]),
  "roots only": graphs.from_parents([-1, -1, -1]),
  "forest": graphs.from_parents([-1, 0, 0, -1, 3, 1, -1]),
  "no query": graphs.kgram(4, 1),
  "two parents": graphs.half_and_previous(5),
  "mixed arities": graphs.from_parents([-1, 0, (0, 1), -1, (0, 3)], (1, 4)),
  "three parents": graphs.kgram(5, 3),
  "several parents, query": graphs.from_parents([-1, -1, (0, 1), -1], [3]),
}
MATRICES = {"shannon": information.shannon, "chi2": information.chi2}
FORESTS = [n for n, g in GRAPHS.items() if g.parents_TxK.shape[1] == 1]
pair_laws = jax.jit(information.pair_laws)
estimate = jax.jit(information.estimate, static_argnums=(1, 2))


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


def enumerated_pair_laws(graph, kernel):
  T, S = len(graph.parents_TxK), kernel.shape[-1]
  P = np.zeros((T, T, S, S))
  positions = np.arange(T)
  for tokens, probability in enumeration.sequences(graph, kernel):
    P[positions[:, None], positions[None], tokens[:, None], tokens[None]] += (
      probability
    )
  return P


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("S", [2, 3])
def test_pair_laws_are_the_enumerated_ones(name, S):
  graph = GRAPHS[name]
  kernel = enumeration.random_kernel(0, S, graph.parents_TxK.shape[1])
  P = pair_laws(graph, jnp.asarray(kernel))
  np.testing.assert_allclose(P, enumerated_pair_laws(graph, kernel), atol=1e-12)


def test_pair_laws_vmap_over_graphs_and_kernels():
  trees = [graphs.random_tree(jax.random.key(i), 6) for i in range(8)]
  tables = np.stack([enumeration.random_kernel(i, 2, 1) for i in range(8)])
  stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *trees)
  laws = jax.jit(jax.vmap(information.pair_laws))(stacked, jnp.asarray(tables))
  for P, graph, kernel in zip(laws, trees, tables, strict=True):
    np.testing.assert_allclose(
      P, enumerated_pair_laws(graph, kernel), atol=1e-12
    )


def test_too_many_sequences_are_refused():
  graph = graphs.half_and_previous(32)
  with pytest.raises(ValueError, match=r"at most 2\*\*20, got 5\*\*32"):
    information.pair_laws(graph, jnp.ones((6, 6, 5)) / 5)


def test_matrices_by_their_definitions():
  kernel = enumeration.random_kernel(1, 3, 1)
  P = np.asarray(pair_laws(GRAPHS["forest"], jnp.asarray(kernel)))
  shannon, chi2 = information.shannon(P), information.chi2(P)
  for i in range(len(P)):
    for j in range(len(P)):
      p, q = P[i, i].diagonal(), P[j, j].diagonal()
      entropies = [stats.entropy(law) for law in (p, q, P[i, j].ravel())]
      assert abs(shannon[i, j] - (entropies @ np.array([1, 1, -1]))) < 1e-12
      # Pearson's statistic of the table over its total.
      assert abs(chi2[i, j] - ((P[i, j] / np.outer(p, q) - 1) ** 2 @ q) @ p) < (
        1e-12
      )


def test_deterministic_and_independent_pairs():
  copy = jnp.roll(jnp.eye(4), 1, axis=1)
  kernel = priors.fixed(copy)(jax.random.key(0), 4, 1)
  P = pair_laws(graphs.from_parents([-1, 0, -1, 2, -1]), kernel)
  np.testing.assert_allclose(information.shannon(P)[1, 0], np.log(4))
  np.testing.assert_allclose(information.chi2(P)[1, 0], 3)
  for I_TxT in (information.shannon(P), information.chi2(P)):
    np.testing.assert_allclose(I_TxT[2:4, :2], 0, atol=1e-12)


def test_rare_states_do_not_underflow():
  """State 1 has probability 1e-30 and stays put half of the time."""
  rare = 1e-30
  pi = jnp.array([[1 - rare, rare], [0.5, 0.5]], jnp.float32)
  with jax.enable_x64(False):
    kernel = jnp.concatenate([pi, jnp.array([[1, 2 * rare]], jnp.float32)])
    P = pair_laws(graphs.from_parents([-1, 0, -1]), kernel)
    # P(1|1)^2 in the limit; the Shannon information vanishes.
    np.testing.assert_allclose(information.chi2(P)[1, 0], 0.25, rtol=1e-5)
    np.testing.assert_allclose(information.shannon(P)[1, 0], 0, atol=1e-6)


@pytest.mark.parametrize("name", FORESTS)
@pytest.mark.parametrize("epsilon", [0.0, 0.3, None])
def test_gradient_score_by_enumeration(name, epsilon):
  """Also, without epsilon, for a softmax, where no state is weighed."""
  graph = GRAPHS[name]
  T, S = len(graph.parents_TxK), 3
  kernel = enumeration.random_kernel(2, S, 1)
  laws_TxS = np.einsum("iiss->is", enumerated_pair_laws(graph, kernel))
  softmax = epsilon is None
  mu_S = np.ones(S) if softmax else laws_TxS[:-1].mean(0) + epsilon
  R = np.full((T, T), 0.0 if softmax else -1.0)
  for tokens, probability in enumeration.sequences(graph, kernel):
    for i in range(T):
      for j in range(T):
        R[i, j] += probability * kernel[tokens[j], tokens[i]] / mu_S[tokens[i]]
  R = np.tril(R)
  R[-1] = 0
  found = information.gradient_score(
    graph, jnp.asarray(kernel), epsilon or 0, "softmax" if softmax else "linear"
  )
  np.testing.assert_allclose(found, R, atol=1e-12)


def test_gradient_score_at_the_parent_is_the_chi2_information():
  graph = GRAPHS["forest"]
  kernel = priors.dirichlet(0.5)(jax.random.key(0), 4, 1)
  R = information.gradient_score(graph, kernel)
  chi2 = information.chi2(pair_laws(graph, kernel))
  for edge in graphs.edges(graph):
    np.testing.assert_allclose(R[edge], chi2[edge], atol=1e-12)


def test_start_gradient_is_that_of_the_reduced_model():
  """Against the exact gradient over all prompts of one kernel.

  The closed form is of first order in 1/T: from T = 6 to 12 its gap halves, and
  the law of all prompts can be enumerated that far.
  """
  S, scale, epsilon = 2, 1e-3, 0.5
  pi = jnp.array([[0.6, 0.4], [0.4, 0.6]])
  kernel = priors.fixed(pi)(None, S, 1)
  gaps = []
  for T in (6, 12):
    graph = graphs.chain(T)
    prompts = list(enumeration.sequences(graph, kernel))
    x_NxT = jnp.array([tokens for tokens, _ in prompts])
    weight_N = jnp.array([probability for _, probability in prompts])
    model = models.Reduced(S, T, matching=scale)

    @jax.jit
    def loss(A1, model=model, x_NxT=x_NxT, weight_N=weight_N):
      params = {"A1": A1, "A2": scale * jnp.eye(S)}
      f_NxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
        x_NxT
      )
      return weight_N @ jax.vmap(metrics.loss, (0, 0, None))(
        f_NxS, pi[x_NxT[:, -1]], epsilon
      )

    exact = -np.asarray(jax.grad(loss)(jnp.zeros((T, T))))
    R_TxT = information.gradient_score(graph, kernel, epsilon)
    told = np.asarray(information.start_gradient(R_TxT, scale, S))
    assert (told[np.triu_indices(T, 1)] == 0).all()
    exact, told = exact[1:-1], told[1:-1]  # root and query apart
    assert (exact.argmax(1) == told.argmax(1)).all()
    assert np.corrcoef(exact.ravel(), told.ravel())[0, 1] > 0.99
    gaps.append(1 - (exact * told).sum() / (told**2).sum())
  assert 0 < gaps[1] < 0.6 * gaps[0] < 0.3


@pytest.mark.parametrize("kind", ["shannon", "chi2", "gradient_score"])
def test_expected_against_kernel_by_kernel(kind):
  graph, prior = graphs.random_tree(jax.random.key(3), 6), priors.dirichlet(0.3)
  key, num = jax.random.key(4), 70

  @jax.jit
  def one(key):
    kernel = prior(key, 3, 1)
    if kind == "gradient_score":
      return information.gradient_score(graph, kernel)
    return MATRICES[kind](pair_laws(graph, kernel))

  each = [one(key) for key in jax.random.split(key, num)]
  mean, error = jax.jit(
    lambda key: information.expected(key, graph, prior, 3, kind, num)
  )(key)
  np.testing.assert_allclose(mean, np.mean(each, 0), atol=1e-10)
  np.testing.assert_allclose(error, stats.sem(each), atol=1e-10)


def test_expected_refuses():
  arguments = jax.random.key(0), graphs.chain(4), priors.dirichlet(1.0), 3
  with pytest.raises(ValueError, match="'shannon' or 'chi2', got 'mutual'"):
    information.expected(*arguments, "mutual", 4)
  with pytest.raises(ValueError, match="at least 2 samples, got 1"):
    information.expected(*arguments, "chi2", 1)


@pytest.mark.parametrize("kind", ["shannon", "chi2"])
def test_estimate_by_hand(kind):
  """Eight sequences with the table [[3, 1], [1, 3]] of counts."""
  x_NxT = jnp.array([[0, 0]] * 3 + [[0, 1], [1, 0]] + [[1, 1]] * 3)
  plain = information.estimate(x_NxT, 2, kind, correct=False)
  corrected = information.estimate(x_NxT, 2, kind)
  if kind == "chi2":  # phi^2 = (1/2)^2; lifts 3/2, 1/2 weigh 1/16, 9/16
    expected, bias = 1 / 4, (2 * 3 / 2 / 16 + 2 / 2 * 9 / 16) / 8
  else:  # one degree of freedom
    expected, bias = np.log(2) - stats.entropy([0.75, 0.25]), 1 / 2 / 8
  np.testing.assert_allclose(plain[1, 0], expected)
  np.testing.assert_allclose(plain[1, 0] - corrected[1, 0], bias)


@pytest.mark.parametrize("kind", ["shannon", "chi2"])
def test_correction_removes_the_bias_of_first_order(kind):
  """By the mean of the estimate over all outcomes, weighed by their law.

  From 20 to 40 sequences the bias of the plug-in falls by 2, that of the
  corrected estimate by 4 or more.
  """
  law = np.array([[0.4, 0.1], [0.2, 0.3]])
  exact = MATRICES[kind](jnp.asarray(law)[None, None])[0, 0]

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
      jax.vmap(lambda x_NxT: information.estimate(x_NxT, 2, kind, correct))
    )(x_MxNxT)
    weights_M = stats.multinomial.pmf(splits, N, law.ravel())
    return weights_M @ I_MxTxT[:, 1, 0] - exact

  assert 1.7 < bias(20, False) / bias(40, False) < 2.4
  assert bias(20, True) / bias(40, True) > 3.4


@pytest.fixture(scope="module")
def sequences():
  """64 kernels of 1024 sequences each, on a forest with two trees."""
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


@pytest.mark.parametrize("kind", ["shannon", "chi2"])
def test_conditional_estimate_is_right_and_pooled_is_not(sequences, kind):
  graph, x_RxNxT, kernels = sequences
  exact_RxTxT = np.array(
    [MATRICES[kind](pair_laws(graph, kernel)) for kernel in kernels]
  )
  each = np.array([estimate(x_NxT, 3, kind) for x_NxT in x_RxNxT])
  mean, error = jax.jit(lambda x: information.estimate_conditional(x, 3, kind))(
    x_RxNxT
  )
  np.testing.assert_allclose(mean, each.mean(0), atol=1e-12)
  np.testing.assert_allclose(error, stats.sem(each), atol=1e-12)
  gap = each - exact_RxTxT
  lower = np.tril_indices(5, -1)
  z = gap.mean(0)[lower] / stats.sem(gap)[lower]
  assert np.abs(z).max() < 4
  # Of two roots, which share nothing but the kernel.
  assert abs(mean[3, 0]) < 0.002
  pooled = estimate(x_RxNxT.reshape(-1, 6), 3, kind)
  assert pooled[3, 0] > 0.005


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_estimated_gradient_score(epsilon):
  graph, prior = (
    graphs.from_parents([-1, 0, 1, -1, 3, -1]),
    priors.dirichlet(1.0),
  )
  batch = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))(
    jax.random.key(6), graph, prior, 3, 2**14
  )
  mean, error = jax.jit(information.estimate_gradient_score)(
    batch.x_T, batch.kernel, epsilon
  )
  score = functools.partial(information.gradient_score, epsilon=epsilon)
  exact, exact_error = jax.jit(
    lambda key: information.expected(key, graph, prior, 3, score, 2**12)
  )(jax.random.key(7))
  lower = np.tril_indices(5)
  z = (mean - exact)[lower] / np.hypot(error, exact_error)[lower]
  assert np.abs(z).max() < 4
  assert (np.asarray(mean)[np.triu_indices(6, 1)] == 0).all()
  assert (mean[-1] == 0).all()


def test_permutation_null_tells_roots_from_children(sequences):
  x_RxNxT = sequences[1][:16]
  I_TxT, _ = information.estimate_conditional(x_RxNxT, 3, "shannon")
  null_MxT = jax.jit(
    functools.partial(
      information.permutation_null, S=3, kind="shannon", num_permutations=40
    )
  )(jax.random.key(8), x_RxNxT)
  assert np.isneginf(null_MxT[:, 0]).all()
  largest = np.where(np.tri(6, k=-1, dtype=bool), I_TxT, -np.inf).max(1)
  # A root's maximum is one more draw from the null, the largest with odds of
  # one in 41.
  above = (largest > null_MxT.max(0))[:-1]
  assert above.tolist() == [False, True, True, False, True]
  # Null maxima differ between rows with one candidate and with four.
  assert null_MxT[:, 4].mean() > null_MxT[:, 1].mean()


def test_bottleneck_by_hand():
  graph = graphs.from_parents([-1, 0, 1, 1, -1, 4, -1])
  I_TxT = np.zeros((7, 7))
  I_TxT[1, 0], I_TxT[2, 1], I_TxT[3, 1], I_TxT[5, 4] = 0.5, 0.7, 0.2, 0.9
  bound = information.bottleneck(I_TxT, graph)
  inf = np.inf
  expected = [
    [inf, 0.5, 0.5, 0.2, 0, 0, 0],
    [0.5, inf, 0.7, 0.2, 0, 0, 0],
    [0.5, 0.7, inf, 0.2, 0, 0, 0],
    [0.2, 0.2, 0.2, inf, 0, 0, 0],
    [0, 0, 0, 0, inf, 0.9, 0],
    [0, 0, 0, 0, 0.9, inf, 0],
    [0, 0, 0, 0, 0, 0, inf],
  ]
  np.testing.assert_array_equal(bound, expected)
  I_TxT[3, 2], I_TxT[4, 0], I_TxT[3, 0] = 0.3, 0.05, 0.2
  found = information.data_processing_violations(I_TxT, graph, 0.01)
  assert [v.pair for v in found] == [(3, 2), (4, 0)]
  np.testing.assert_allclose(found[0][1:], [0.3, 0.2])
  np.testing.assert_allclose(found[1][1:], [0.05, 0])


@pytest.mark.parametrize("kind", ["shannon", "chi2"])
def test_the_parent_has_the_most_information_of_every_row(kind):
  """Forests of all shapes, one kernel each: no violation, argmax = parent."""

  @jax.jit
  @jax.vmap
  def measure(key):
    graph_key, kernel_key = jax.random.split(key)
    graph = graphs.random_forest(graph_key, 12, 0.4)
    kernel = priors.dirichlet(0.5)(kernel_key, 4, 1)
    P = information.pair_laws(graph, kernel)
    return graph, MATRICES[kind](P)

  batch, I_GxTxT = measure(jax.random.split(jax.random.key(9), 200))
  for g, I_TxT in enumerate(np.asarray(I_GxTxT)):
    graph = jax.tree.map(lambda a, g=g: a[g], batch)
    assert not information.data_processing_violations(I_TxT, graph, 1e-12)
    for child, parent in graphs.edges(graph):
      assert I_TxT[child, :child].argmax() == parent
