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
