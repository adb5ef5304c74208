"""Prompts with set tokens, against the enumerated truncated factorisation."""

import itertools

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from tests.support import enumeration

GRAPHS = {
  "chain": graphs.chain(4),
  "several roots": graphs.from_parents([-1, -1, 0, -1]),
  "no query": graphs.kgram(4, 1),
  "two parents": graphs.half_and_previous(4),
}
_batch = jax.jit(sampling.sample_interventional_batch, static_argnums=(2, 3, 4))


def _fixed(kernel):
  return priors.fixed(jnp.asarray(kernel, jnp.float32))


def _law(graph, kernel, share_T):
  """P(set positions, tokens) by (positions, tokens), from the definition."""
  T, S = len(graph.parents_TxK), kernel.shape[-1]
  has_query = (np.asarray(graph.parents_TxK[-1]) < 0).all()
  law = {}
  for is_set_T in itertools.product((0, 1), repeat=T):
    for tokens in itertools.product(range(S), repeat=T):
      probability = 1.0
      for i, parents in enumerate(np.asarray(graph.parents_TxK)):
        is_query = has_query and i == T - 1
        if is_query:
          probability *= (1 - is_set_T[i]) / S
        elif is_set_T[i]:
          probability *= share_T[i] / S
        else:
          law_S = enumeration.row(kernel, tokens, parents)
          probability *= (1 - share_T[i]) * law_S[tokens[i]]
      law[is_set_T, tokens] = probability
  return law


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
  "share", [0.0, 0.3, 1.0, (0.0, 1.0, 0.0, 0.0), (0.9, 0.0, 0.5, 1.0)]
)
def test_law_of_set_positions_and_tokens(name, share):
  graph, S, num = GRAPHS[name], 2, 100_000
  T, K = graph.parents_TxK.shape
  kernel = enumeration.random_kernel(0, S, K)
  batch = _batch(
    jax.random.key(1), graph, _fixed(kernel), S, num, jnp.array(share)
  )
  law = _law(graph, kernel, np.broadcast_to(share, T))
  assert sum(law.values()) == pytest.approx(1)
  weights = S ** np.arange(T)[::-1]
  codes = np.asarray(batch.is_set_T) @ weights * S**T
  codes += np.asarray(batch.x_T) @ weights
  frequency = np.bincount(codes, minlength=S ** (2 * T)) / num
  expected = np.array(list(law.values()))
  error = np.sqrt(expected * (1 - expected) / num)
  np.testing.assert_array_less(np.abs(frequency - expected), 4.5 * error + 1e-9)


def test_without_set_tokens_the_law_is_that_of_a_prompt():
  graph, S = graphs.chain(4), 2
  kernel = enumeration.random_kernel(3, S, 1)
  law = _law(graph, kernel, np.zeros(4))
  for tokens, probability in enumeration.sequences(graph, kernel):
    key = (0,) * 4, tuple(tokens.tolist())
    assert law[key] == pytest.approx(probability)


def test_the_target_is_the_row_of_the_last_token():
  """Whether or not its parent is set."""
  for name in ("chain", "no query"):
    graph = GRAPHS[name]
    batch = _batch(jax.random.key(0), graph, priors.dirichlet(0.5), 3, 64, 0.5)
    rows = np.asarray(batch.kernel)[np.arange(64), batch.x_T[:, -1]]
    np.testing.assert_array_equal(batch.y_S, rows)
    is_set = bool(batch.is_set_T[:, -1].any())
    assert is_set == (name == "no query")


def test_shares_of_one_key_have_common_random_numbers():
  """The same kernel; a larger share sets the same tokens and more."""
  graph, prior = graphs.chain(8), priors.dirichlet(0.5)
  few, more, other = (
    _batch(jax.random.key(seed), graph, prior, 3, 64, share)
    for seed, share in ((0, 0.2), (0, 0.7), (1, 0.2))
  )
  np.testing.assert_array_equal(few.kernel, more.kernel)
  assert (few.is_set_T <= more.is_set_T).all()
  assert (few.is_set_T != more.is_set_T).any()
  assert (few.kernel != other.kernel).any()
  assert (few.is_set_T != other.is_set_T).any()
  assert few.is_set_T.dtype == bool


@pytest.mark.parametrize("share", [-0.1, 1.5, (0.5, 0.5, 2.0, 0.0)])
def test_refuses_what_is_no_probability(share):
  with pytest.raises(ValueError, match=r"^share must be from 0 to 1, got"):
    sampling.sample_interventional(
      jax.random.key(0), graphs.chain(4), priors.dirichlet(1.0), 2, share
    )
