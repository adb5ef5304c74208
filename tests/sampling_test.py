import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from tests.support import enumeration

GRAPHS = {
  "chain": graphs.chain(5),
  "several roots": graphs.from_parents([-1, -1, 0, -1, -1]),
  "roots only": graphs.from_parents([-1, -1, -1]),
  "tree": graphs.from_parents([-1, 0, 0, 1, -1]),
  "no query": graphs.kgram(4, 1),
  "two parents": graphs.half_and_previous(5),
  "mixed arities": graphs.from_parents([-1, 0, (0, 1), -1, (0, 3)], (1, 4)),
  "three parents": graphs.kgram(5, 3),
}


_sample_batch = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("S", [2, 3])
def test_law_of_prompts_equals_the_enumerated_law(name, S):
  graph = GRAPHS[name]
  T, K = graph.parents_TxK.shape
  num = 100_000
  kernel = enumeration.random_kernel(0, S, K)
  prior = priors.fixed(jnp.asarray(kernel, jnp.float32))
  batch = _sample_batch(jax.random.key(1), graph, prior, S, num)
  codes = np.asarray(batch.x_T) @ S ** np.arange(T)[::-1]
  frequency = np.bincount(codes, minlength=S**T) / num
  law = np.array([p for _, p in enumeration.sequences(graph, kernel)])
  assert abs(law.sum() - 1) < 1e-12
  error = np.sqrt(law * (1 - law) / num)
  np.testing.assert_array_less(np.abs(frequency - law), 4.5 * error + 1e-9)
  for x_T, y_S in zip(batch.x_T[:50], batch.y_S[:50], strict=True):
    expected = enumeration.row(kernel, np.asarray(x_T), graph.target_K)
    np.testing.assert_allclose(y_S, expected, atol=1e-6)


def test_tokens_of_probability_zero_are_never_drawn():
  pi = jnp.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], jnp.float32)
  x_NxT = _sample_batch(
    jax.random.key(0), graphs.chain(6), priors.fixed(pi), 3, 4096
  ).x_T
  assert ((x_NxT[:, 1:-1] - x_NxT[:, :-2]) % 3 == 1).all()
  assert set(np.unique(x_NxT[:, -1])) == {0, 1, 2}


def test_kernels_differ_between_prompts_and_keys():
  graph, prior = graphs.chain(8), priors.dirichlet(1.0)
  one, same, other = (
    _sample_batch(jax.random.key(seed), graph, prior, 3, 16)
    for seed in (0, 0, 1)
  )
  assert (one.kernel == same.kernel).all()
  assert (one.x_T == same.x_T).all()
  assert (one.kernel != other.kernel).any()
  assert (one.x_T != other.x_T).any()
  assert len(np.unique(one.kernel[:, 0, 0])) == 16


def test_vmap_over_graphs_of_one_size():
  stacked = jax.tree.map(
    lambda *rows: jnp.stack(rows), graphs.chain(7), graphs.pairs(7)
  )
  prior, key = priors.dirichlet(0.5), jax.random.key(2)

  @jax.jit
  def draw(graph):
    return sampling.sample_prompt(key, graph, prior, 4)

  both, alone = jax.vmap(draw)(stacked), draw(graphs.pairs(7))
  np.testing.assert_array_equal(both.x_T[1], alone.x_T)


def test_refuses_fewer_than_two_states():
  with pytest.raises(ValueError, match="S must be at least 2, got 1"):
    sampling.sample_prompt(
      jax.random.key(0), graphs.chain(4), priors.dirichlet(1.0), 1
    )


def test_resample_draws_whole_prompts_with_replacement():
  graph, prior = graphs.chain(5), priors.dirichlet(1.0)
  prompts = sampling.sample_batch(jax.random.key(0), graph, prior, 3, 8)
  drawn = sampling.resample(jax.random.key(1), prompts, 4000)
  # All targets are different.
  targets = [y_S.tobytes() for y_S in np.asarray(prompts.y_S)]
  index = np.array([targets.index(y.tobytes()) for y in np.asarray(drawn.y_S)])
  np.testing.assert_array_equal(drawn.x_T, prompts.x_T[index])
  np.testing.assert_array_equal(drawn.kernel, prompts.kernel[index])
  counts = np.bincount(index, minlength=8)
  assert np.abs(counts - 500).max() < 5 * (4000 / 8 * 7 / 8) ** 0.5


def test_resample_of_the_first_prompts():
  """The number of prompts may be traced, and two keys give two batches."""
  graph, prior = graphs.chain(5), priors.dirichlet(1.0)
  prompts = sampling.sample_batch(jax.random.key(0), graph, prior, 3, 8)
  draw = jax.jit(sampling.resample, static_argnums=2)
  drawn = draw(jax.random.key(1), prompts, 100, 3)
  assert {y.tobytes() for y in np.asarray(drawn.y_S)} == {
    y.tobytes() for y in np.asarray(prompts.y_S[:3])
  }
  other = draw(jax.random.key(2), prompts, 100, 3)
  assert (other.y_S != drawn.y_S).any()
  alone = draw(jax.random.key(1), prompts, 100, 1)
  assert (alone.x_T == prompts.x_T[:1]).all()


LATENT = {
  "lags": graphs.lags(4, (1, 2)),
  "trees": graphs.tree_examples(1, 3),
  "with a query": graphs.stack(
    graphs.from_parents(parents)
    for parents in ([-1, 0, 1, -1], [-1, 0, 0, -1], [-1, -1, 1, -1])
  ),
}
_latent_batch = jax.jit(sampling.sample_latent_batch, static_argnums=(2, 3, 4))


@pytest.mark.parametrize("name", LATENT)
def test_law_of_graphs_and_prompts_equals_the_enumerated_law(name):
  graphs_M, S, num = LATENT[name], 2, 100_000
  M, T = graphs_M.parents_TxK.shape[:2]
  kernel = enumeration.random_kernel(0, S, 1)
  prior = priors.fixed(jnp.asarray(kernel, jnp.float32))
  batch = _latent_batch(jax.random.key(1), graphs_M, prior, S, num)
  codes = np.asarray(batch.x_T) @ S ** np.arange(T)[::-1]
  codes += S**T * np.asarray(batch.graph_index)
  frequency = np.bincount(codes, minlength=M * S**T) / num
  of_each = [jax.tree.map(lambda a, m=m: a[m], graphs_M) for m in range(M)]
  law = np.array(
    [p / M for g in of_each for _, p in enumeration.sequences(g, kernel)]
  )
  assert abs(law.sum() - 1) < 1e-12
  error = np.sqrt(law * (1 - law) / num)
  np.testing.assert_array_less(np.abs(frequency - law), 4.5 * error + 1e-9)
  for x_T, y_S, index in zip(
    batch.x_T[:20], batch.y_S[:20], batch.graph_index[:20], strict=True
  ):
    target_K = graphs_M.target_K[index]
    expected = enumeration.row(kernel, np.asarray(x_T), target_K)
    np.testing.assert_allclose(y_S, expected, atol=1e-6)


_next_laws = jax.jit(jax.vmap(sampling.next_laws, (0, None, 0)))


@pytest.mark.parametrize(
  "name", ["chain", "several roots", "no query", "mixed arities"]
)
def test_targets_at_every_position_are_rows_of_the_kernel(name):
  """But for the query; and the last row is the target of the same key."""
  graph, S = GRAPHS[name], 3
  T = len(graph.parents_TxK)
  prior = priors.dirichlet(0.7, "dirichlet")
  draw = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4, 5))
  every, last = (
    draw(jax.random.key(2), graph, prior, S, 30, is_every)
    for is_every in (True, False)
  )
  assert every.y_S.shape == (30, T, S)
  for field in ("x_T", "kernel"):
    np.testing.assert_array_equal(getattr(every, field), getattr(last, field))
  np.testing.assert_allclose(every.y_S[:, -1], last.y_S, atol=1e-7)
  parents = [*np.asarray(graph.parents_TxK), np.asarray(graph.target_K)]
  for x_T, y_TxS, kernel in zip(*map(np.asarray, every), strict=True):
    for t in range(T):
      is_query = t + 1 == T - 1 and parents[T - 1].max() < 0
      row = enumeration.row(kernel, x_T, parents[t + 1])
      np.testing.assert_allclose(
        y_TxS[t], 1 / S if is_query else row, atol=1e-6
      )
  again = _next_laws(every.x_T, graph, every.kernel)
  np.testing.assert_allclose(again, every.y_S, atol=1e-7)


def test_a_latent_prompt_is_a_prompt_on_its_graph():
  graphs_M, prior = LATENT["trees"], priors.dirichlet(0.5, "uniform")
  draw = jax.jit(sampling.sample_latent_batch, static_argnums=(2, 3, 4, 5))
  every, last, other = (
    draw(jax.random.key(seed), graphs_M, prior, 3, 40, is_every)
    for seed, is_every in ((0, True), (0, False), (1, True))
  )
  np.testing.assert_array_equal(every.x_T, last.x_T)
  np.testing.assert_array_equal(every.graph_index, last.graph_index)
  np.testing.assert_allclose(every.y_S[:, -1], last.y_S, atol=1e-7)
  assert set(np.unique(every.graph_index)) == {0, 1}
  assert (every.x_T != other.x_T).any()
  assert (every.graph_index != other.graph_index).any()
  for m in range(2):
    graph = jax.tree.map(lambda a, m=m: a[m], graphs_M)
    expected = _next_laws(every.x_T, graph, every.kernel)
    is_own = np.asarray(every.graph_index) == m
    np.testing.assert_allclose(every.y_S[is_own], expected[is_own], atol=1e-7)
    assert np.abs(every.y_S[~is_own] - expected[~is_own]).max() > 0.1


def test_a_latent_prompt_needs_a_list_of_graphs():
  prior = priors.dirichlet(1.0)
  with pytest.raises(AssertionError):
    sampling.sample_latent(jax.random.key(0), graphs.chain(4), prior, 3)
  with pytest.raises(AssertionError):
    sampling.sample_prompt(jax.random.key(0), LATENT["lags"], prior, 3)


def test_resample_of_latent_prompts():
  graphs_M, prior = LATENT["lags"], priors.dirichlet(1.0)
  prompts = _latent_batch(jax.random.key(0), graphs_M, prior, 3, 8)
  drawn = sampling.resample(jax.random.key(1), prompts, 20)
  pairs = {
    (y_S.tobytes(), int(index))
    for y_S, index in zip(
      np.asarray(prompts.y_S), prompts.graph_index, strict=True
    )
  }
  for y_S, index in zip(np.asarray(drawn.y_S), drawn.graph_index, strict=True):
    assert (y_S.tobytes(), int(index)) in pairs
