"""Baselines of a latent graph, by enumeration of all prompts and graphs."""

import itertools

import jax
from jax import numpy as jnp
import numpy as np
import pytest
from scipy import special

from icl_causal import bayes
from icl_causal import graphs
from icl_causal import latent
from icl_causal import priors
from icl_causal import running
from tests.support import enumeration
from tests.support import polya

S, T, ALPHA = 2, 5, 0.3
X_NxT = np.array([*itertools.product(range(S), repeat=T)], np.int32)
GRAPHS = {
  "lags": graphs.lags(T, (1, 2, 3)),
  "trees": graphs.tree_examples(1, 3),
  "with a query": graphs.stack(
    graphs.from_parents(parents)
    for parents in ([-1, 0, 1, -1, -1], [-1, -1, 0, 2, -1])
  ),
  "two parents": graphs.stack(
    graphs.from_parents([-1, -1, *rows], target)
    for rows, target in (
      ([(0, 1), (1, 2), (2, 3)], (3, 4)),
      ([(0, 1), 0, (1, 3)], (2, 4)),
    )
  ),
}
# The arguments of a call that every function has in common.
LAWS = {
  "kernel": (None, "uniform"),
  "uniform": (ALPHA, "uniform"),
  "dirichlet": (ALPHA, "dirichlet"),
}
CASES = [*itertools.product(GRAPHS, LAWS)]


def _each(graphs_M):
  return [
    jax.tree.map(lambda a, m=m: a[m], graphs_M)
    for m in range(len(graphs_M.target_K))
  ]


def _kernel(graphs_M):
  K = graphs_M.target_K.shape[1]
  return np.asarray(enumeration.random_kernel(3, S, K), np.float32)


def _case(graph_name, law_name):
  """(graphs, law, root law, log P(x | graph) N x M, laws of targets N x M x S)

  By multiplying the entries of the kernel, or by Dirichlet-multinomials.
  """
  graphs_M = GRAPHS[graph_name]
  law, root_law = LAWS[law_name]
  log_NxM, f_NxMxS = [], []
  kernel = _kernel(graphs_M)
  for graph in _each(graphs_M):
    if law is None:
      p_N = [p for _, p in enumeration.sequences(graph, kernel)]
      log_NxM.append(np.log(p_N))
      f_NxMxS.append(
        [enumeration.row(kernel, x_T, graph.target_K) for x_T in X_NxT]
      )
    else:
      log_NxM.append(
        [polya.log_probability(x, graph, law, S, root_law) for x in X_NxT]
      )
      f_NxMxS.append(
        [polya.conditional_laws(x, graph, law, S, root_law)[-1] for x in X_NxT]
      )
  law = kernel if law is None else law
  return (
    *(graphs_M, law, root_law),
    np.stack(log_NxM, axis=1),
    np.stack(f_NxMxS, axis=1),
  )


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
  return _case(*request.param)


def _of_all(function, graphs_M, law, root_law, every=False):
  law = jnp.asarray(law)

  @jax.jit
  @jax.vmap
  def of(x_T):
    return function(x_T, graphs_M, law, S, root_law, every)

  return np.asarray(of(X_NxT))


def test_the_posterior_is_that_of_bayes_rule(case):
  graphs_M, law, root_law, log_NxM, _ = case
  w_NxM = _of_all(latent.graph_posterior, graphs_M, law, root_law)
  np.testing.assert_allclose(w_NxM, special.softmax(log_NxM, 1), atol=1e-5)


def test_the_average_is_weighted_by_the_posterior(case):
  graphs_M, law, root_law, log_NxM, f_NxMxS = case
  expected = np.einsum("nm,nms->ns", special.softmax(log_NxM, 1), f_NxMxS)
  found = _of_all(latent.model_average, graphs_M, law, root_law)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  even = _of_all(latent.even_mixture, graphs_M, law, root_law)
  np.testing.assert_allclose(even, f_NxMxS.mean(axis=1), atol=1e-5)


def test_the_logit_average_is_a_normalized_geometric_mean(case):
  graphs_M, law, root_law, log_NxM, f_NxMxS = case
  powers = f_NxMxS ** special.softmax(log_NxM, 1)[..., None]
  product_NxS = powers.prod(axis=1)
  expected = product_NxS / product_NxS.sum(axis=1, keepdims=True)
  found = _of_all(latent.logit_average, graphs_M, law, root_law)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_most_likely_graph_has_the_largest_posterior(case):
  graphs_M, law, root_law, log_NxM, f_NxMxS = case
  found = _of_all(latent.most_likely_graph, graphs_M, law, root_law)
  ordered_NxM = np.sort(log_NxM, axis=1)
  is_clear_N = ordered_NxM[:, -1] > ordered_NxM[:, -2] + 1e-4
  assert is_clear_N.sum() >= 4
  expected = f_NxMxS[np.arange(len(X_NxT)), log_NxM.argmax(axis=1)]
  np.testing.assert_allclose(found[is_clear_N], expected[is_clear_N], atol=1e-5)


def test_the_average_has_the_least_expected_loss(case):
  """Of all baselines, and of laws near it, over graphs and prompts exactly."""
  graphs_M, law, root_law, log_NxM, f_NxMxS = case
  joint_NxM = np.exp(log_NxM) / log_NxM.shape[1]
  assert joint_NxM.sum() == pytest.approx(1, abs=1e-6)

  def loss(f_NxS):
    loss_NxM = -np.einsum("nms,ns->nm", f_NxMxS, np.log(f_NxS))
    return (joint_NxM * loss_NxM).sum()

  average_NxS = _of_all(latent.model_average, graphs_M, law, root_law)
  least = loss(average_NxS)
  others = (
    latent.most_likely_graph,
    latent.even_mixture,
    latent.logit_average,
  )
  for other in others:
    excess = loss(_of_all(other, graphs_M, law, root_law)) - least
    # With a query and a known kernel, all graphs have the same target.
    is_same = np.ptp(f_NxMxS, axis=1).max() == 0
    assert abs(excess) < 1e-6 if is_same else excess > 1e-5
  rng = np.random.default_rng(0)
  for _ in range(20):
    near = average_NxS * np.exp(0.3 * rng.normal(size=average_NxS.shape))
    assert loss(near / near.sum(axis=1, keepdims=True)) > least


def test_the_posterior_is_calibrated(case):
  """E[w_true] = E[sum_m w_m^2], exactly, over graphs and prompts."""
  graphs_M, law, root_law, log_NxM, _ = case
  w_NxM = _of_all(latent.graph_posterior, graphs_M, law, root_law)
  joint_NxM = np.exp(log_NxM) / log_NxM.shape[1]
  on_true = (joint_NxM * w_NxM).sum()
  concentration = (joint_NxM.sum(axis=1) * (w_NxM**2).sum(axis=1)).sum()
  assert on_true == pytest.approx(concentration, abs=1e-6)
  assert on_true > 1 / w_NxM.shape[1] + 0.01


def _truncated(graphs_M, num):
  parents_MxTxK = graphs_M.parents_TxK
  return graphs.Graph(parents_MxTxK[:, :num], parents_MxTxK[:, num])


@pytest.mark.parametrize("law_name", LAWS)
@pytest.mark.parametrize(
  "function",
  [
    latent.graph_posterior,
    latent.model_average,
    latent.most_likely_graph,
    latent.even_mixture,
    latent.logit_average,
  ],
)
def test_a_row_is_the_value_of_the_truncated_prompt(function, law_name):
  graphs_M = GRAPHS["trees"]
  law, root_law = LAWS[law_name]
  law = _kernel(graphs_M) if law is None else law
  every = _of_all(function, graphs_M, law, root_law, every=True)
  last = _of_all(function, graphs_M, law, root_law)
  np.testing.assert_allclose(every[:, -1], last, atol=1e-6)
  x_T, of = jnp.asarray(X_NxT[13]), jnp.asarray(law)
  for num in (2, 4):
    row = function(x_T[:num], _truncated(graphs_M, num), of, S, root_law)
    np.testing.assert_allclose(every[13, num - 1], row, atol=1e-6)


def test_one_graph_gives_its_own_predictor():
  graph = graphs.from_parents([-1, 0, -1, 1, 2], [3])
  graphs_1 = graphs.stack([graph])
  for root_law in ("uniform", "dirichlet"):
    found = _of_all(latent.model_average, graphs_1, ALPHA, root_law, True)
    expected = jax.vmap(
      lambda x_T: running.edge_posterior(x_T, graph, ALPHA, S, root_law)  # noqa: B023
    )(X_NxT)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    w_NxTx1 = _of_all(latent.graph_posterior, graphs_1, ALPHA, root_law, True)
    np.testing.assert_array_equal(w_NxTx1, 1)


def test_equal_graphs_have_equal_weights():
  graphs_3 = graphs.stack([graphs.chain(T)] * 2 + [graphs.pairs(T)])
  for law in (ALPHA, _kernel(graphs_3)):
    w_NxTxM = _of_all(latent.graph_posterior, graphs_3, law, "uniform", True)
    np.testing.assert_array_equal(w_NxTxM[..., 0], w_NxTxM[..., 1])
    assert np.abs(w_NxTxM[:, -1, 0] - w_NxTxM[:, -1, 2]).max() > 0.1
    # Before a graph shows a difference, the weights are those of the prior.
    np.testing.assert_allclose(w_NxTxM[:, :2], 1 / 3, atol=1e-6)


def test_of_two_equally_likely_graphs_the_first_is_taken():
  """Both have the same edges but for the target's parent."""
  graphs_2 = graphs.stack(
    graphs.from_parents([-1, 0, -1, 1, 2], [target]) for target in (4, 0)
  )
  found = _of_all(latent.most_likely_graph, graphs_2, ALPHA, "uniform")
  first = _each(graphs_2)[0]
  expected = jax.vmap(lambda x_T: bayes.edge_posterior(x_T, first, ALPHA, S))(
    X_NxT
  )
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_graph_that_cannot_produce_the_tokens_has_weight_zero():
  """A kernel that copies; the tokens are repeated at lag 2 alone."""
  kernel = jnp.array([[1.0, 0], [0, 1], [0.5, 0.5]])
  x_T, graphs_M = jnp.array([0, 1, 0, 1, 0]), graphs.lags(5, (1, 2))
  w_TxM = latent.graph_posterior(x_T, graphs_M, kernel, 2, every=True)
  np.testing.assert_allclose(
    w_TxM, [[0.5, 0.5], [0.5, 0.5], [0, 1], [0, 1], [0, 1]], atol=1e-6
  )
  f_TxS = latent.model_average(x_T, graphs_M, kernel, 2, every=True)
  # At position 1, lag 1 predicts a 1 and lag 2 a 0.
  np.testing.assert_allclose(
    f_TxS[1:], [[0.5, 0.5], [0, 1], [1, 0], [0, 1]], atol=1e-6
  )


def test_a_stationary_root_law_is_refused_in_one_line():
  x_T = jnp.asarray(X_NxT[0])
  with pytest.raises(ValueError, match="not 'stationary'") as caught:
    latent.model_average(x_T, GRAPHS["lags"], 0.3, S, "stationary")
  assert "\n" not in str(caught.value)
  # The law of the roots of a known kernel is known.
  kernel = priors.dirichlet(1.0)(jax.random.key(0), S, 1)
  latent.model_average(x_T, GRAPHS["lags"], kernel, S, "stationary")


def test_one_graph_is_no_list():
  with pytest.raises(AssertionError):
    latent.model_average(X_NxT[0], graphs.chain(T), 0.3, S)


def test_bayes_has_the_predictors_of_a_latent_graph():
  for name in ("graph_posterior", "model_average", "most_likely_graph"):
    assert getattr(bayes, name) is getattr(latent, name)
