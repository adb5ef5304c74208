"""Likelihood scores by loops and by enumeration, and the ascent by hand."""

import itertools
import math

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import information
from icl_causal.analysis import likelihood
from icl_causal.analysis import recovery
from icl_causal.analysis import samples
from tests.support import enumeration

_known = jax.jit(likelihood.likelihood_score)
_query_row = jax.jit(likelihood.query_row_score)
_left_out = jax.jit(likelihood.left_out_score, static_argnames="soft")
_ascend = jax.jit(likelihood.likelihood_ascent, static_argnames="soft")
_label = jax.jit(information.label_score)
_hits = jax.jit(samples.hits)
GRAPH = graphs.from_parents([-1, 0, -1, 1, 1, -1, 4, -1])


@pytest.fixture(autouse=True)
def _x64():
  with jax.enable_x64(True):
    yield


def _prompts(seed, graph, S, alpha, N):
  batch = sampling.sample_batch(
    jax.random.key(seed), graph, priors.dirichlet(alpha), S, N
  )
  return jax.tree.map(np.asarray, batch)


def test_recovery_has_the_same_functions():
  for name in ("likelihood_score", "left_out_score", "likelihood_ascent"):
    assert getattr(recovery, name) is getattr(likelihood, name)


def test_likelihood_score_by_loops():
  batch = _prompts(0, GRAPH, 3, 0.1, 20)
  for x_T, kernel in zip(batch.x_T, batch.kernel, strict=True):
    score_TxT = _known(x_T, kernel)
    expected = np.zeros((8, 8))
    for i in range(8):
      for j in range(i):
        probability = float(kernel[x_T[j], x_T[i]])
        expected[i, j] = math.log(max(probability, 1e-30))
    np.testing.assert_allclose(score_TxT, expected, rtol=1e-6)


def test_a_transition_of_probability_0_has_a_finite_score():
  kernel = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
  score_TxT = _known(jnp.array([0, 0, 1, 0]), kernel)
  assert score_TxT[2, 0] == 0
  np.testing.assert_allclose(score_TxT[1, 0], math.log(1e-30))


@pytest.mark.parametrize("S", [2, 3])
def test_the_most_likely_parent_is_the_best_possible_at_one_prompt(S):
  """By enumeration of all prompts, for T = 4 and one edge in doubt.

  Given x, the method that guesses the parent p of position 2 with the largest
  P(x | p) has the success mean_p sum_x P(x | p) 1{right}, and no other rule has
  more. With two states the query's row says the other one.
  """
  kernel = enumeration.random_kernel(3, S, 1)
  laws, shares = {}, {}
  scores = {
    "best": lambda x: _known(x, kernel),
    "query": lambda x: _query_row(x, kernel),
    "gradient": lambda x: _label(x, kernel[x[-1]]),
  }
  for p in (0, 1):
    graph = graphs.from_parents([-1, 0, p, -1])
    for x_T, probability in enumeration.sequences(graph, kernel):
      laws.setdefault(tuple(x_T), []).append(probability)
      for name, score in scores.items():
        hit = _hits(score(jnp.asarray(x_T)), graph)[2]
        shares[name] = shares.get(name, 0) + probability * float(hit) / 2
  most = sum(max(pair) for pair in laws.values()) / 2
  assert len(laws) == S**4
  np.testing.assert_allclose(shares["best"], most, rtol=1e-9)
  if S == 2:
    np.testing.assert_allclose(shares["query"], most, rtol=1e-9)
  else:
    assert 0.5 < shares["query"] < most - 1e-3
  assert 0.5 < shares["gradient"] < most + 1e-9


def test_query_row_score_is_the_law_given_the_match():
  """By enumeration: P(s_3 | 1{s_j = s_T}) for the parent j = 1, roots ~ mu."""
  S = 3
  pi_SxS = enumeration.random_kernel(1, S, 1)[:S]
  kernel = np.asarray(priors.fixed(pi_SxS)(None, S, 1))
  graph = graphs.from_parents([-1, 0, -1, 1, -1])
  joint = np.zeros((S, 2, S))  # query, match, child
  for x_T, probability in enumeration.sequences(graph, kernel):
    joint[x_T[-1], int(x_T[1] == x_T[-1]), x_T[3]] += probability
  law = joint / joint.sum(axis=2, keepdims=True)
  for x_T in itertools.product(range(S), repeat=5):
    score_TxT = _query_row(jnp.array(x_T), kernel)
    expected = math.log(law[x_T[-1], int(x_T[1] == x_T[-1]), x_T[3]])
    np.testing.assert_allclose(score_TxT[3, 1], expected, rtol=1e-6)
    assert not np.triu(score_TxT).any()


def test_with_two_states_the_match_says_the_token():
  """S = 2: not the query's token is the other one, so nothing is lost."""
  batch = _prompts(1, GRAPH, 2, 0.5, 50)
  for x_T, kernel in zip(batch.x_T, batch.kernel, strict=True):
    np.testing.assert_allclose(
      _query_row(x_T, kernel),
      _known(x_T, kernel),
      atol=1e-5,
    )


def _log_evidence(x_T, parents, S, alpha, y_S=None, label=None):
  """log P(tokens with a parent | parents), rows ~ Dirichlet, integrated out.

  With a soft label y, the row of the last token is y.
  """
  counts = np.zeros((S, S))
  for i, p in enumerate(parents):
    if p >= 0:
      counts[x_T[p], x_T[i]] += 1
  if label is not None:
    counts[x_T[-1], label] += 1
  total = 0.0
  for s in range(S):
    if y_S is not None and s == x_T[-1]:
      used = counts[s] > 0
      total += counts[s][used] @ np.log(np.maximum(y_S[used], 1e-30))
      continue
    total += math.lgamma(S * alpha) - math.lgamma(S * alpha + counts[s].sum())
    for c in counts[s]:
      total += math.lgamma(alpha + c) - math.lgamma(alpha)
  return total


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize(("S", "alpha"), [(2, 1.0), (3, 0.1), (5, 0.7)])
def test_left_out_score_is_a_ratio_of_evidences(S, alpha, soft):
  """Differences over j are those of log P(prompt | parents with p(i) = j)."""
  batch = _prompts(S, GRAPH, S, alpha, 6)
  parents = [int(p) for p in GRAPH.parents_TxK[:, 0]]
  for n, (x_T, y_S, _) in enumerate(zip(*batch, strict=True)):
    label = n % S
    target = y_S if soft else np.eye(S)[label]
    known = {"y_S": y_S} if soft else {"label": label}
    score_TxT = np.asarray(_left_out(x_T, target, GRAPH, alpha, soft=soft))
    assert not np.triu(score_TxT).any()
    for i in range(1, 8):
      with_parent = [
        _log_evidence(
          x_T, [*parents[:i], j, *parents[i + 1 :]], S, alpha, **known
        )
        for j in range(i)
      ]
      without = _log_evidence(
        x_T, [*parents[:i], -1, *parents[i + 1 :]], S, alpha, **known
      )
      np.testing.assert_allclose(
        score_TxT[i, :i], np.array(with_parent) - without, rtol=1e-5, atol=1e-6
      )


def test_averaged_hard_labels_approach_the_soft_label():
  """Many draws of s_{T+1} as counts are the row itself, in the limit."""
  x_T, y_S = jnp.array([0, 1, 0, 0, 1, 0]), jnp.array([0.3, 0.7])
  graph = graphs.from_parents([-1, 0, 1, 1, 2, -1])
  soft_TxT = _left_out(x_T, y_S, graph, 0.5)
  errors = []
  for num in (10, 1000, 100000):
    hard_TxT = _left_out(x_T, num * y_S, graph, 0.5, soft=False)
    errors.append(np.abs(hard_TxT - soft_TxT).max())
  assert errors[0] > 10 * errors[1] > 100 * errors[2]
  assert errors[2] < 1e-4


def test_with_a_large_alpha_no_parent_is_preferred():
  """Kernels are then uniform and known."""
  x_T = jnp.array([0, 1, 2, 0, 1, 0])
  graph = graphs.from_parents([-1, 0, 1, 1, 2, -1])
  y_S = jnp.ones(3) / 3
  score_TxT = _left_out(x_T, y_S, graph, 1e6)
  expected = np.tril(np.full((6, 6), -math.log(3)), -1)
  np.testing.assert_allclose(score_TxT, expected, atol=1e-5)


def _objective(x_NxT, y_NxS, parents, alpha):
  """What `likelihood_ascent` raises, from its definition."""
  S, total = y_NxS.shape[1], 0.0
  for x_T, y_S in zip(x_NxT, y_NxS, strict=True):
    total += _log_evidence(x_T, parents, S, alpha, y_S)
    tokens = list(x_T[:-1])
    for i, p in enumerate(parents[:-1]):
      if p < 0:
        same = tokens.count(tokens[i]) - 1
        c = S * alpha + 1 - 1 / S
        total += math.log((same + c) / (len(tokens) - 1 + S * c))
  return total


@pytest.mark.parametrize(("S", "alpha"), [(3, 0.5), (10, 2.0)])
def test_the_pseudo_count_of_roots_has_the_variance_of_a_mean(S, alpha):
  """A mean of S Dirichlet(alpha) rows and a Dirichlet(c) law, by sampling."""
  rng = np.random.default_rng(0)
  means = rng.dirichlet([alpha] * S, (20_000, S)).mean(axis=1)
  c = S * alpha + 1 - 1 / S
  laws = rng.dirichlet([c] * S, 20_000)
  # The error of a variance of 20000 values is about 1 %; entries are alike.
  assert means.var(axis=0).mean() == pytest.approx(
    laws.var(axis=0).mean(), rel=0.04
  )


@pytest.mark.parametrize("seed", [0, 1])
def test_likelihood_ascent_ends_in_a_maximum_over_single_changes(seed):
  """No other parent of one position is better, by an objective of loops."""
  alpha = 0.5
  batch = _prompts(seed, GRAPH, 3, alpha, 12)
  found = _ascend(batch.x_T, batch.y_S, alpha)
  parents = [int(p) for p in found.parents_TxK[:, 0]]
  assert parents[0] == parents[-1] == -1
  assert found.target_K.tolist() == [7]
  reached = _objective(batch.x_T, batch.y_S, parents, alpha)
  for i in range(1, 7):
    for j in range(-1, i):
      other = [*parents[:i], j, *parents[i + 1 :]]
      value = _objective(batch.x_T, batch.y_S, other, alpha)
      assert value <= reached + 1e-6


def test_more_rounds_never_lower_the_likelihood():
  alpha = 0.5
  batch = _prompts(5, GRAPH, 3, alpha, 4)
  values = []
  for num_rounds in range(4):
    found = _ascend(batch.x_T, batch.y_S, alpha, num_rounds=num_rounds)
    parents = [int(p) for p in found.parents_TxK[:, 0]]
    values.append(_objective(batch.x_T, batch.y_S, parents, alpha))
  assert values == sorted(values)
  assert values[1] > values[0]


@pytest.mark.parametrize("soft", [True, False])
def test_likelihood_ascent_finds_a_graph_from_prompts_alone(soft):
  batch = _prompts(2, GRAPH, 3, 0.1, 200)
  y_NxS = batch.y_S
  if not soft:
    rng = np.random.default_rng(0)
    y_NxS = np.stack([rng.multinomial(1, y / y.sum()) for y in y_NxS]) * 1.0
  found = _ascend(batch.x_T, y_NxS, 0.1, soft=soft)
  np.testing.assert_array_equal(found.parents_TxK, GRAPH.parents_TxK)
