"""Prompts whose rows are drawn where they are visited."""

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
  "roots only": graphs.from_parents([-1, -1, -1]),
  "mixed arities": graphs.from_parents([-1, 0, (0, 1), -1], (1, 3)),
  "three parents": graphs.kgram(5, 3),
}
ALPHA, S, NUM = 0.4, 2, 100_000


@pytest.fixture
def always_visits(monkeypatch):
  monkeypatch.setattr(sampling, "_MANY_ROWS", 0)


def _codes(x_NxT):
  T = x_NxT.shape[1]
  return np.asarray(x_NxT) @ S ** np.arange(T)[::-1]


def _assert_means(draws_NxM, mean_M):
  """Within 4.5 standard errors; of a rare event, those of its expected mean."""
  error_M = draws_NxM.std(axis=0) / NUM**0.5
  error_M = np.maximum(error_M, np.sqrt(mean_M * (1 - mean_M) / NUM) / 2)
  assert (np.abs(draws_NxM.mean(axis=0) - mean_M) < 4.5 * error_M + 1e-9).all()


def _counts(x_T, graph, root_law):
  """How often each row of the table gives each token of a prompt."""
  T, K = graph.parents_TxK.shape
  counts = np.zeros((S + 1,) * K + (S,))
  for i, parents_K in enumerate(np.asarray(graph.parents_TxK)):
    is_root = max(parents_K) < 0
    if not (is_root and (i == T - 1 or root_law == "uniform")):
      enumeration.row(counts, x_T, parents_K)[x_T[i]] += 1
  return counts


@pytest.mark.parametrize("root_law", ["uniform", "dirichlet"])
@pytest.mark.parametrize("name", GRAPHS)
def test_prompt_target_and_kernel_have_the_enumerated_law(
  name, root_law, always_visits
):
  """E 1{x_T} y_S and E 1{x_T} kernel, by the posterior of each row.

  A row is Dirichlet given the tokens. It has the prior's mean if the prompt
  doesn't visit it.
  """
  graph = GRAPHS[name]
  T, K = graph.parents_TxK.shape
  prior = priors.dirichlet(ALPHA, root_law)
  batch = jax.jit(lambda key: sampling.sample_batch(key, graph, prior, S, NUM))(
    jax.random.key(0)
  )
  codes, y_NxS = _codes(batch.x_T), np.asarray(batch.y_S)
  kernel_NxM = np.asarray(batch.kernel).reshape(NUM, -1)
  total = 0.0
  for code, x_T in enumerate(enumeration.prompts(S, T)):
    p = enumeration.marginal(x_T, graph, ALPHA, S, root_law)
    total += p
    is_x_N = codes == code
    _assert_means(is_x_N[:, None], np.array([p]))
    _assert_means(
      is_x_N[:, None] * y_NxS,
      np.array(
        [
          enumeration.marginal([*x_T, s], graph, ALPHA, S, root_law)
          for s in range(S)
        ]
      ),
    )
    posterior = _counts(x_T, graph, root_law) + ALPHA
    posterior /= posterior.sum(axis=-1, keepdims=True)
    if root_law == "uniform":
      posterior[(S,) * K] = 1 / S
    _assert_means(is_x_N[:, None] * kernel_NxM, p * posterior.ravel())
  assert abs(total - 1) < 1e-9


@pytest.mark.parametrize("name", ["chain", "mixed arities", "three parents"])
def test_targets_are_rows_of_the_kernel(name, always_visits):
  """At every position and at the last, of the same prompt."""
  graph, prior = GRAPHS[name], priors.dirichlet(ALPHA, "dirichlet")
  every, last = (
    jax.jit(
      lambda key, is_every=is_every: sampling.sample_batch(
        key, graph, prior, 3, 200, is_every
      )
    )(jax.random.key(1))
    for is_every in (True, False)
  )
  for field in ("x_T", "kernel"):
    np.testing.assert_array_equal(getattr(every, field), getattr(last, field))
  laws = jax.jit(jax.vmap(sampling.next_laws, (0, None, 0)))(
    every.x_T, graph, every.kernel
  )
  np.testing.assert_allclose(every.y_S, laws, atol=1e-7)
  np.testing.assert_allclose(last.y_S, laws[:, -1], atol=1e-7)


def test_set_tokens_visit_no_row(always_visits):
  """With uniform roots, setting a token is the same as cutting its edges."""
  graph = graphs.kgram(5, 2)
  cut = graphs.from_parents([(-1, -1), (-1, 0), (0, 1), -1, (2, 3)], (3, 4))
  prior, share_T = priors.dirichlet(ALPHA, "uniform"), jnp.eye(5)[3]
  batch = jax.jit(
    lambda key: sampling.sample_interventional_batch(
      key, graph, prior, S, NUM, share_T
    )
  )(jax.random.key(2))
  assert (np.asarray(batch.is_set_T) == (np.arange(5) == 3)).all()
  is_x_NxM = _codes(batch.x_T)[:, None] == np.arange(S**5)
  law_M = [
    enumeration.marginal(x_T, cut, ALPHA, S, "uniform")
    for x_T in enumeration.prompts(S, 5)
  ]
  _assert_means(is_x_NxM, np.array(law_M))


def test_rows_that_are_not_visited_are_not_drawn():
  """Unless the kernel is used: it has 1,331 rows."""
  graph, prior = graphs.kgram(20, 3), priors.dirichlet(ALPHA)

  def bytes_of(fields):
    def draw(key):
      prompt = sampling.sample_prompt(key, graph, prior, 10)
      return [getattr(prompt, field) for field in fields]

    needs = jax.jit(draw).lower(jax.random.key(0)).compile().memory_analysis()
    return needs.temp_size_in_bytes + needs.output_size_in_bytes

  table = 11**3 * 10 * 4
  assert bytes_of(["x_T", "y_S"]) < table / 2
  assert bytes_of(["x_T", "y_S", "kernel"]) > table


def test_a_table_with_few_rows_is_drawn_whole():
  """So are those of priors that have no independent rows."""
  graph, key = graphs.kgram(20, 2), jax.random.key(3)
  law = priors.dirichlet(ALPHA)
  for num_states, is_whole in ((3, True), (10, False)):
    independent, other = (
      jax.jit(
        lambda key, prior=prior, num=num_states: sampling.sample_prompt(
          key, graph, prior, num
        )
      )(key)
      for prior in (law, lambda *arguments: law(*arguments))
    )
    is_same = jax.tree.map(
      lambda a, b: bool((a == b).all()), independent, other
    )
    assert all(is_same) == is_whole
