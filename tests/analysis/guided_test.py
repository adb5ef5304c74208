"""Kernel-guided information by loops, by enumeration and against one parent."""

import itertools
import math

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import estimators
from icl_causal.analysis import guided
from icl_causal.analysis import information
from icl_causal.analysis import likelihood
from icl_causal.analysis import samples
from tests.support import enumeration

_guided = jax.jit(guided.guided, static_argnames=("slot", "kind", "law"))
_pairs = jax.jit(guided.pair_likelihood)
_attention = jax.jit(
  guided.guided_attention, static_argnames=("num_steps", "kind", "law")
)
_hits = jax.jit(samples.hits)


@pytest.fixture(autouse=True)
def _x64():
  with jax.enable_x64(True):
    yield


def _prompts(seed, graph, S, alpha, N, root_law: priors.RootLaw = "dirichlet"):
  return jax.jit(
    lambda key: sampling.sample_batch(
      key, graph, priors.dirichlet(alpha, root_law), S, N
    )
  )(jax.random.key(seed))


def test_information_has_the_same_functions():
  assert information.guided is guided.guided
  assert information.pair_likelihood is guided.pair_likelihood
  assert guided._FLOOR == likelihood.FLOOR


def _rho(x_T, kernel, law):
  S, K = kernel.shape[-1], kernel.ndim - 1
  if law == "root":
    return kernel[(S,) * K]
  return np.array([np.mean(x_T == s) for s in range(S)])


def _by_loops(x_T, kernel, slot, kind, epsilon, law):
  """The definition: a sum over the states of all other parents."""
  S, K, T = kernel.shape[-1], kernel.ndim - 1, len(x_T)
  rho_S, score = _rho(x_T, kernel, law), np.zeros((T, T))
  for i, j in itertools.combinations(range(T), 2):
    child, parent, total = x_T[j], x_T[i], 0.0
    for states in itertools.product(range(S), repeat=K):
      if states[slot] == parent:
        others = [rho_S[s] for k, s in enumerate(states) if k != slot]
        total += math.prod(others) * kernel[states][child]
    if kind == "shannon":
      score[j, i] = math.log(max(total, 1e-30) / max(rho_S[child], 1e-30))
    else:
      score[j, i] = total / (rho_S[child] + epsilon) - 1
  return score


@pytest.mark.parametrize("law", ["tokens", "root"])
@pytest.mark.parametrize("kind", ["shannon", "chi2"])
@pytest.mark.parametrize(("S", "K"), [(2, 1), (2, 2), (3, 2), (2, 3), (3, 3)])
def test_guided_by_loops(S, K, kind, law):
  kernel = enumeration.random_kernel(S + K, S, K)
  x_T = np.random.default_rng(K).integers(0, S, 6)
  for slot in range(K):
    score_TxT = _guided(x_T, kernel, slot, kind, 0.1, law)
    expected = _by_loops(x_T, kernel, slot, kind, 0.1, law)
    np.testing.assert_allclose(score_TxT, expected, atol=1e-12)


def test_a_transition_of_probability_0_has_a_finite_score():
  kernel = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
  score_TxT = _guided(jnp.array([0, 0, 1]), kernel, 0, law="root")
  np.testing.assert_allclose(score_TxT[1, 0], math.log(1e-30 / 0.5))
  assert score_TxT[2, 0] == math.log(2)
  never = kernel.at[2].set(jnp.array([1.0, 0.0]))
  moment_TxT = _guided(jnp.array([0, 0, 1]), never, 0, "chi2", law="root")
  assert moment_TxT[2, 0] == -1


@pytest.mark.parametrize("root_law", ["stationary", "uniform", "dirichlet"])
def test_one_parent_gives_the_scores_of_single_parents(root_law):
  graph = graphs.from_parents([-1, 0, -1, 1, 1, -1, 4, -1])
  batch = _prompts(0, graph, 3, 0.5, 40, root_law)
  moments = []
  for x_T, kernel in zip(batch.x_T, batch.kernel, strict=True):
    log_mu_T = np.log(np.asarray(kernel)[3, x_T])
    known_TxT = np.asarray(jax.jit(likelihood.likelihood_score)(x_T, kernel))
    expected = np.tril(known_TxT - log_mu_T[:, None], -1)
    score_TxT = _guided(x_T, kernel, 0, law="root")
    np.testing.assert_allclose(score_TxT, expected, atol=1e-12)
    # Another mu moves a whole row: the same row argmax.
    moved = np.asarray(_guided(x_T, kernel, 0)) - known_TxT
    for i in range(1, 8):
      np.testing.assert_allclose(moved[i, :i], moved[i, 0], atol=1e-12)
    moments.append(_guided(x_T, kernel, 0, "chi2", 0.1, "root"))
  R_TxT, _ = estimators.gradient_score(batch.x_T, batch.kernel, 0.1)
  np.testing.assert_allclose(
    np.mean(moments, axis=0)[:-1], np.tril(R_TxT, -1)[:-1], atol=1e-12
  )


@pytest.mark.parametrize("law", ["tokens", "root"])
@pytest.mark.parametrize("kind", ["shannon", "chi2"])
def test_a_slot_without_influence_has_no_score(kind, law):
  """A kernel that ignores its second parent: K = 1 in slot 0, none in 1."""
  S, rng = 3, np.random.default_rng(0)
  single = enumeration.random_kernel(2, S, 1)
  kernel = np.tile(single[:, None], (1, S + 1, 1))
  x_T = rng.integers(0, S, 8)
  first, second = (
    np.asarray(_guided(x_T, kernel, slot, kind, 0.1, law)) for slot in (0, 1)
  )
  alone = _guided(x_T, single, 0, kind, 0.1, law)
  np.testing.assert_allclose(first, alone, atol=1e-12)
  for i in range(1, 8):
    np.testing.assert_allclose(second[i, :i], second[i, 0], atol=1e-12)
  assert np.abs(first - second).max() > 0.1


def _stationary(kernel):
  """The kernel with a root law that its own children have, too."""
  S, K = kernel.shape[-1], kernel.ndim - 1
  mu = np.full(S, 1 / S)
  for _ in range(500):
    table = kernel[(slice(S),) * K]
    for _ in range(K):
      table = np.tensordot(mu, table, 1)
    mu = table / table.sum()
  kernel = kernel.copy()
  kernel[(S,) * K] = mu
  return kernel


@pytest.mark.parametrize(
  ("S", "parents"),
  [
    (3, [-1, -1, (0, 1), -1, (1, 3)]),
    (2, [-1, -1, -1, (0, 1, 2), -1, (0, 2, 4)]),
  ],
)
def test_the_mean_is_the_information_of_the_parents(S, parents):
  """By enumeration: equal at the parents, at most the information elsewhere.

  Parents are independent and of the law of a root, and so are their children.
  Information is computed from the laws of pairs.
  """
  graph = graphs.from_parents(parents, [0])
  T, K = graph.parents_TxK.shape
  kernel = _stationary(enumeration.random_kernel(7, S, K))
  mean = np.zeros((K, T, T))
  for x_T, probability in enumeration.sequences(graph, kernel):
    for slot in range(K):
      score_TxT = _guided(x_T, kernel, slot, law="root")
      mean[slot] += probability * np.asarray(score_TxT)
  P = enumeration.pair_laws(graph, kernel)
  P_i, P_j = P.sum(3, keepdims=True), P.sum(2, keepdims=True)
  with np.errstate(divide="ignore", invalid="ignore"):
    I_TxT = np.nansum(P * np.log(P / (P_i * P_j)), axis=(2, 3))
  children = [i for i, row in enumerate(parents) if row != -1]
  assert len(children) == 2
  for i in range(1, T):
    for slot, j in itertools.product(range(K), range(i)):
      if i in children and graph.parents_TxK[i, slot] == j:
        assert I_TxT[i, j] > 1e-4
        np.testing.assert_allclose(mean[slot, i, j], I_TxT[i, j], atol=1e-9)
      else:
        assert mean[slot, i, j] <= I_TxT[i, j] + 1e-12
        assert i not in children or mean[slot, i, j] < I_TxT[i, j] - 1e-6


@pytest.mark.parametrize("S", [2, 3])
def test_pair_likelihood_by_loops(S):
  kernel = enumeration.random_kernel(S, S, 2)
  x_T = np.random.default_rng(1).integers(0, S, 6)
  score = np.full((6, 6, 6), -np.inf)
  for j, k, i in itertools.combinations(range(6), 3):
    score[i, j, k] = math.log(kernel[x_T[j], x_T[k], x_T[i]])
  np.testing.assert_allclose(_pairs(x_T, kernel), score, atol=1e-12)


def test_the_most_likely_pair_is_the_best_possible_at_one_prompt():
  """By enumeration of all prompts, for T = 5 and one pair in doubt.

  No rule finds the pair more often than max_jk P(x | j, k) does, and none finds
  more edges than the marginals of the posterior.
  """
  S, kernel = 2, enumeration.random_kernel(5, 2, 2)
  pairs = [*itertools.combinations(range(4), 2)]
  laws, both, edges = {}, 0.0, 0.0
  for pair in pairs:
    graph = graphs.from_parents([-1, -1, -1, -1, pair], [3])
    for x_T, probability in enumeration.sequences(graph, kernel):
      laws.setdefault(tuple(x_T), {})[pair] = probability
  assert len(laws) == S**5
  for x_T, of_pair in laws.items():
    score = np.asarray(_pairs(jnp.array(x_T), kernel))[4]
    j, k = np.unravel_index(score.argmax(), score.shape)
    both += of_pair[j, k]
    weight = np.exp(score)
    slots = weight.sum(axis=1).argmax(), weight.sum(axis=0).argmax()
    edges += sum(
      probability * (pair[0] == slots[0]) + probability * (pair[1] == slots[1])
      for pair, probability in of_pair.items()
    )
  most = sum(max(of_pair.values()) for of_pair in laws.values())
  most_edges = sum(
    max(
      sum(p for pair, p in of_pair.items() if pair[slot] == j) for j in range(4)
    )
    for of_pair in laws.values()
    for slot in range(2)
  )
  np.testing.assert_allclose(both, most, rtol=1e-9)
  np.testing.assert_allclose(edges, most_edges, rtol=1e-9)


def _optimal_mixture(lift_NxJ):
  """The weights with the largest mean of log sum_j w_j lift_j, by EM."""
  w_J = np.full(lift_NxJ.shape[1], 1 / lift_NxJ.shape[1])
  for _ in range(5000):
    share_NxJ = w_J * lift_NxJ / (lift_NxJ @ w_J)[:, None]
    w_J = share_NxJ.mean(axis=0)
  return w_J


def _small_batch(N=60):
  graph = graphs.from_parents([-1, -1, (0, 1), (0, 2), (1, 3)], [3, 4])
  batch = _prompts(1, graph, 3, 0.3, N)
  return graph, batch, np.asarray(batch.x_T), np.asarray(batch.kernel)


def test_shannon_attention_is_the_optimal_mixture():
  """Gradient ascent against EM, which has neither a rate nor a softmax."""
  _, _, x_NxT, kernel_N = _small_batch()
  att_KxTxT = _attention(x_NxT, kernel_N, num_steps=4000, rate=0.5)
  assert not np.triu(att_KxTxT).any()
  np.testing.assert_allclose(att_KxTxT[:, 1:].sum(axis=2), 1, atol=1e-9)
  for slot, i in itertools.product(range(2), range(2, 5)):
    lift_NxJ = [
      [
        math.exp(_by_loops(x_T, kernel, slot, "shannon", 0, "tokens")[i, j])
        for j in range(i)
      ]
      for x_T, kernel in zip(x_NxT, kernel_N, strict=True)
    ]
    w_J = _optimal_mixture(np.array(lift_NxJ))
    np.testing.assert_allclose(att_KxTxT[slot, i, :i], w_J, atol=0.02)


@pytest.mark.parametrize("law", ["tokens", "root"])
def test_chi2_attention_ends_at_the_row_argmax_of_the_score(law):
  _, batch, x_NxT, kernel_N = _small_batch()
  att_KxTxT = _attention(
    x_NxT, kernel_N, 3000, 3.0, kind="chi2", epsilon=0.1, law=law
  )
  for slot in range(2):
    score_TxT = np.sum(
      [
        _guided(x_T, kernel, slot, "chi2", 0.1, law)
        for x_T, kernel in zip(batch.x_T, batch.kernel, strict=True)
      ],
      axis=0,
    )
    for i in range(1, 5):
      best = score_TxT[i, :i].argmax()
      assert att_KxTxT[slot, i, best] > 0.95


def test_one_step_is_the_gradient_of_the_mean():
  """d/dA of sum_j a_ij g_ij at A = 0 is (g_ij - mean g_i) / i, times i + 1."""
  _, batch, x_NxT, kernel_N = _small_batch(20)
  rate = 1e-4
  att_KxTxT = np.asarray(
    _attention(x_NxT, kernel_N, 1, rate, kind="chi2", epsilon=0.1)
  )
  for slot in range(2):
    g_TxT = np.mean(
      [
        _guided(x_T, kernel, slot, "chi2", 0.1)
        for x_T, kernel in zip(batch.x_T, batch.kernel, strict=True)
      ],
      axis=0,
    )
    for i in range(1, 5):
      A_J = rate * (i + 1) * (g_TxT[i, :i] - g_TxT[i, :i].mean()) / i
      expected = np.exp(A_J) / np.exp(A_J).sum()
      np.testing.assert_allclose(att_KxTxT[slot, i, :i], expected, atol=1e-10)


def test_guided_attention_finds_a_graph():
  graph, _, x_NxT, kernel_N = _small_batch(600)
  att_KxTxT = _attention(x_NxT, kernel_N, num_steps=400, rate=1.0)
  for slot in range(2):
    single = graphs.Graph(graph.parents_TxK[:, [slot]], graph.target_K[:1])
    assert float(_hits(att_KxTxT[slot], single).sum()) == 3


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"slot": 2}, "slot must be from 0 to 1, got 2"),
    ({"kind": "kl"}, r"'kl' must be one of \('shannon', 'chi2'\)"),
    ({"law": "mu"}, r"'mu' must be one of \('tokens', 'root'\)"),
  ],
)
def test_refused_arguments(change, message):
  kernel = jnp.full((3, 3, 2), 0.5)
  with pytest.raises(ValueError, match="^" + message):
    guided.guided(jnp.array([0, 1]), kernel, **{"slot": 0, **change})
