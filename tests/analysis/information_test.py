import functools

import jax
from jax import numpy as jnp
import numpy as np
import pytest
from scipy import stats

from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import gradient
from icl_causal.analysis import information
from tests.support import enumeration

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
MEASURES = [information.shannon, information.chi2]
pair_laws = jax.jit(information.pair_laws)


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("S", [2, 3])
def test_pair_laws_equal_the_enumerated_ones(name, S):
  graph = GRAPHS[name]
  kernel = enumeration.random_kernel(0, S, graph.parents_TxK.shape[1])
  P = pair_laws(graph, jnp.asarray(kernel))
  np.testing.assert_allclose(
    P, enumeration.pair_laws(graph, kernel), atol=1e-12
  )


def test_pair_laws_vmap_over_graphs_and_kernels():
  trees = [graphs.random_tree(jax.random.key(i), 6) for i in range(8)]
  tables = np.stack([enumeration.random_kernel(i, 2, 1) for i in range(8)])
  stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *trees)
  laws = jax.jit(jax.vmap(information.pair_laws))(stacked, jnp.asarray(tables))
  for P, graph, kernel in zip(laws, trees, tables, strict=True):
    np.testing.assert_allclose(
      P, enumeration.pair_laws(graph, kernel), atol=1e-12
    )


def test_refuses_too_many_sequences():
  graph = graphs.half_and_previous(32)
  with pytest.raises(ValueError, match=r"at most 2\*\*20, got 5\*\*32"):
    information.pair_laws(graph, jnp.ones((6, 6, 5)) / 5)


def test_measures_match_their_definitions():
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
  """State 1 has probability 1e-30; its transition to itself has 1/2."""
  rare = 1e-30
  pi = jnp.array([[1 - rare, rare], [0.5, 0.5]], jnp.float32)
  with jax.enable_x64(False):
    kernel = jnp.concatenate([pi, jnp.array([[1, 2 * rare]], jnp.float32)])
    P = pair_laws(graphs.from_parents([-1, 0, -1]), kernel)
    # P(1|1)^2 in the limit; the Shannon information vanishes.
    np.testing.assert_allclose(information.chi2(P)[1, 0], 0.25, rtol=1e-5)
    np.testing.assert_allclose(information.shannon(P)[1, 0], 0, atol=1e-6)


@pytest.mark.parametrize(
  ("measure", "of_pair_laws"),
  [
    (information.shannon_of, information.shannon),
    (information.chi2_of, information.chi2),
    (gradient.gradient_score, None),
  ],
)
def test_expected_is_the_mean_over_kernels(measure, of_pair_laws):
  graph, prior = graphs.random_tree(jax.random.key(3), 6), priors.dirichlet(0.3)
  key, num = jax.random.key(4), 70

  @jax.jit
  def one(key):
    kernel = prior(key, 3, 1)
    if of_pair_laws is None:
      return measure(graph, kernel)
    return of_pair_laws(pair_laws(graph, kernel))

  each = [one(key) for key in jax.random.split(key, num)]
  mean, error = jax.jit(
    lambda key: information.expected(key, graph, prior, 3, measure, num)
  )(key)
  np.testing.assert_allclose(mean, np.mean(each, 0), atol=1e-10)
  np.testing.assert_allclose(error, stats.sem(each), atol=1e-10)


def test_expected_needs_two_kernels():
  arguments = jax.random.key(0), graphs.chain(4), priors.dirichlet(1.0), 3
  with pytest.raises(ValueError, match="at least 2 samples, got 1"):
    information.expected(*arguments, information.chi2_of, 1)


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
  violations = information.data_processing_violations(I_TxT, graph, 0.01)
  assert [v.pair for v in violations] == [(3, 2), (4, 0)]
  np.testing.assert_allclose(violations[0][1:], [0.3, 0.2])
  np.testing.assert_allclose(violations[1][1:], [0.05, 0])


def test_bottleneck_needs_single_parents():
  with pytest.raises(ValueError, match="single parents, got K = 2"):
    information.bottleneck(np.zeros((5, 5)), graphs.half_and_previous(5))


@pytest.mark.parametrize("measure", MEASURES)
def test_the_parent_has_the_largest_information_of_each_row(measure):
  """200 random forests, one kernel each: no violation, argmax = parent."""

  @jax.jit
  @jax.vmap
  def draw(key):
    graph_key, kernel_key = jax.random.split(key)
    graph = graphs.random_forest(graph_key, 12, 0.4)
    kernel = priors.dirichlet(0.5)(kernel_key, 4, 1)
    return graph, measure(information.pair_laws(graph, kernel))

  batch, I_GxTxT = draw(jax.random.split(jax.random.key(9), 200))
  for g, I_TxT in enumerate(np.asarray(I_GxTxT)):
    graph = jax.tree.map(lambda a, g=g: a[g], batch)
    assert not information.data_processing_violations(I_TxT, graph, 1e-12)
    for child, parent in graphs.edges(graph):
      assert I_TxT[child, :child].argmax() == parent


@pytest.mark.parametrize("S", [2, 3])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_label_score_is_the_slope_of_the_loss_in_beta0_at_any_attention(
  S, epsilon
):
  """By automatic differentiation of the model in beta0, at a random A1."""
  T = 6
  rng = np.random.default_rng(S)
  A1_TxT = jnp.asarray(rng.normal(scale=2, size=(T, T)))
  y_S = jnp.asarray(rng.dirichlet(np.ones(S)))
  model = models.Reduced(S, T)

  def loss(beta0, x_T):
    params = {"A1": A1_TxT, "A2": beta0 * jnp.eye(S)}
    f_S, _ = model.apply({"params": params}, x_T)
    return metrics.loss(f_S, y_S, epsilon)

  slope = jax.jit(jax.grad(loss))
  attention_TxT = jax.nn.softmax(
    jnp.where(jnp.tri(T, dtype=bool), A1_TxT, -jnp.inf)
  )
  for _ in range(20):
    x_T = jnp.asarray(np.append(np.arange(S), rng.integers(S, size=T - S)))
    g_TxT = information.label_score(x_T, y_S, epsilon)
    assert not np.triu(g_TxT, 1).any()
    np.testing.assert_allclose(
      slope(0.0, x_T), -(attention_TxT * g_TxT).sum() / T, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("read_out", ["linear", "softmax"])
def test_label_score_approaches_the_gradient_score(read_out):
  """E g is (E R - c_i) / S up to terms of order 1/T, given the kernel.

  Tokens that are far apart in a chain are nearly independent, so the shares of
  the states are nearly their stationary law for T = 200.
  """
  S, T, epsilon = 3, 200, 0.1
  graph = graphs.chain(T)
  kernel = jnp.asarray(enumeration.random_kernel(1, S, 1))
  prior = priors.fixed(kernel[:S])
  R_TxT = gradient.gradient_score(graph, prior(None, S, 1), epsilon, read_out)

  @jax.jit
  def mean_score(key):
    batch = sampling.sample_batch(key, graph, prior, S, 2**13)
    score = functools.partial(
      information.label_score, epsilon=epsilon, read_out=read_out
    )
    row_NxT = jax.lax.map(
      lambda pair: score(*pair)[150, :151],
      (batch.x_T, batch.y_S),
      batch_size=64,
    )
    return row_NxT.mean(0), row_NxT.std(0) / len(row_NxT) ** 0.5

  mean, error = map(np.asarray, mean_score(jax.random.key(0)))
  R_T = R_TxT[150, :151]
  difference = S * (mean - mean.mean()) - (R_T - R_T.mean())
  # Rows share the constant c_i; 5 standard errors and an allowance of 2 / T.
  assert (np.abs(difference) < 5 * S * error + 2 / T).all()
  assert R_T[149] - R_T[:149].mean() > 20 * S * error[149]


def test_label_score_refuses_an_unknown_read_out():
  with pytest.raises(ValueError, match="must be 'linear' or 'softmax'"):
    information.label_score(jnp.array([0, 1]), jnp.ones(2) / 2, read_out="max")
