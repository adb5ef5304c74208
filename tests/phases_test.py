"""The decided graph by hand, and the phase of models that are predictors."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import bayes
from icl_causal import constructions
from icl_causal import graphs
from icl_causal import latent
from icl_causal import metrics
from icl_causal import phases
from icl_causal import priors
from icl_causal import running
from icl_causal import sampling
from icl_causal.analysis import recovery

ALPHA, S, N = 0.3, 3, 256
_decided = jax.jit(phases.decided_graph)


def _maps(*heads):
  """H x T x T; a head lists its target and share by row."""
  T = len(heads[0])
  maps_HxTxT = np.zeros((len(heads), T, T), np.float32)
  for h, rows in enumerate(heads):
    for i, (j, share) in enumerate(rows):
      maps_HxTxT[h, i, : i + 1] = (1 - share) / (i + 1)
      maps_HxTxT[h, i, j] += share
  return jnp.asarray(maps_HxTxT)


def _parents(decided):
  return np.asarray(decided.parents_TxK).tolist()


def test_a_row_has_a_parent_with_more_than_half_of_its_attention():
  """Not itself, and not for the query."""
  graph = graphs.chain(6)
  maps = _maps([(0, 1), (0, 0.2), (0, 0.9), (3, 0.9), (3, 0.3), (2, 0.9)])
  decided = _decided(maps, graph)
  assert _parents(decided) == [[-1], [0], [0], [-1], [-1], [-1]]
  assert decided.target_K.tolist() == [5]
  # Row 1 has .2 + .8 / 2 = .6 on position 0.
  assert _parents(_decided(maps, graph, 0.6))[1] == [-1]
  exactly_half = jnp.asarray(np.tri(2)[None] / [[1], [2]], jnp.float32)
  graph = graphs.from_parents([-1, 0], [1])
  assert _parents(_decided(exactly_half, graph)) == [[-1], [-1]]


def test_a_root_may_have_a_false_parent():
  graph = graphs.pairs(6)
  maps = _maps([(0, 1), (0, 1), (1, 0.9), (2, 1), (4, 1), (4, 1)])
  expected = [[-1], [0], [1], [2], [-1], [-1]]
  assert _parents(_decided(maps, graph)) == expected


@pytest.mark.parametrize("T", [2, 3])
def test_short_prompts(T):
  graph = graphs.chain(T)
  decided = _decided(_maps([(max(i - 1, 0), 1) for i in range(T)]), graph)
  np.testing.assert_array_equal(decided.parents_TxK, graph.parents_TxK)
  np.testing.assert_array_equal(decided.target_K, graph.target_K)


@pytest.mark.parametrize(
  "graph",
  [
    graphs.chain(7),
    graphs.pairs(8),
    graphs.from_parents([-1, -1, -1, -1]),
    graphs.random_forest(jax.random.key(1), 9, 0.5),
    graphs.kgram(7, 2),
    graphs.half_and_previous(9),
    graphs.from_parents([(), 0, (), (0, 1), ()], (2, 3)),
    graphs.from_parents([(), (), (0, 1), (1, 2), (0, 2)], (1, 3)),
    graphs.from_parents([-1, 0, 1, -1, -1], (2,)),
  ],
)
def test_a_model_that_implements_a_graph_has_decided_on_it(graph):
  """But for the parents of the last row, if it copies those of the target."""
  _, params = constructions.reduced(graph, S)
  T, K = graph.parents_TxK.shape
  scores = params["A1"].reshape(-1, T, T)
  maps = jax.nn.softmax(jnp.where(np.tri(T, dtype=bool), scores, -jnp.inf))
  decided = _decided(maps[::-1], graph)  # with the heads in another order
  np.testing.assert_array_equal(decided.target_K, graph.target_K)
  num_rows = T if K == 1 and graph.target_K[0] == T - 1 else T - 1
  np.testing.assert_array_equal(
    decided.parents_TxK[:num_rows], graph.parents_TxK[:num_rows]
  )


def test_heads_that_are_not_needed_decide_nothing():
  """Three heads and two slots; the first head attends to what is no parent."""
  graph = graphs.from_parents([(), (), (0, 1), (1, 2), (0, 3)], (1, 4))
  maps = _maps(
    [(0, 1), (0, 1), (2, 1), (0, 1), (4, 1)],
    [(0, 1), (1, 1), (1, 0.9), (2, 0.9), (3, 0.9)],
    [(0, 1), (1, 1), (0, 0.9), (1, 0.2), (1, 0.9)],
  )
  decided = _decided(maps, graph)
  assert _parents(decided) == [[-1, -1]] * 2 + [[0, 1], [-1, 2], [1, 3]]
  # Slot 0 of the target is what the last row copies, slot 1 its own token.
  assert decided.target_K.tolist() == [1, 4]
  heads = recovery.compare(maps, graph, include_self=True).head_of_slot
  assert heads == (2, 1)


def test_an_undecided_slot_of_the_target_is_absent():
  graph = graphs.from_parents([(), (), (0, 1), ()], (1, 2))
  one = [(0, 1), (1, 1), (0, 0.9), (1, 0.9)]
  other = [(0, 1), (1, 1), (1, 0.9), (2, 0.2)]
  decided = _decided(_maps(one, other), graph)
  assert decided.target_K.tolist() == [1, -1]
  assert _parents(decided)[-1] == [-1, -1]
  graph = graphs.from_parents([(), (), (0, 1), ()], (3,))
  assert _decided(_maps(one, other), graph).target_K.tolist() == [3, -1]


def test_fewer_heads_than_slots_are_refused():
  with pytest.raises(ValueError, match="2 parent slots need as many heads"):
    phases.decided_graph(jnp.ones((1, 5, 5)), graphs.kgram(5, 2))


def _prompts(graph, root_law=None):
  prior = priors.dirichlet(ALPHA, root_law)
  return sampling.sample_batch(jax.random.key(0), graph, prior, S, N)


@pytest.fixture(scope="module")
def chain():
  """A chain, prompts, a wrong graph and the predictors."""
  graph, wrong = graphs.chain(8), graphs.pairs(8)
  batch = _prompts(graph)

  @jax.jit
  @jax.vmap
  def exact(key, x_T):
    return bayes.dirichlet_posterior(key, x_T, graph, ALPHA, S, 64).f_S

  exact_NxS = exact(jax.random.split(jax.random.key(1), N), batch.x_T)
  of = jax.jit(phases.baselines)(
    batch.x_T, batch.y_S, graph, wrong, ALPHA, exact_NxS
  )
  return graph, wrong, of


NAMES = list(phases.PREDICTORS[:-1])


def test_the_laws_are_those_of_single_prompts(chain):
  graph, wrong, of = chain
  assert set(of.laws) == set(phases.PREDICTORS)
  for n in (0, 7):
    x_T = of.x_NxT[n]
    for name, law_S in (
      ("uniform", np.full(3, 1 / 3)),
      ("unigram", bayes.unigram(x_T, S)),
      ("wrong_graph", bayes.edge_posterior(x_T, wrong, ALPHA, S)),
      ("edge_posterior", bayes.edge_posterior(x_T, graph, ALPHA, S)),
    ):
      np.testing.assert_allclose(of.laws[name][n], law_S, atol=1e-6)


def _phase(f_NxS, maps, of, graph):
  found = jax.jit(phases.phase)(f_NxS, maps, of, graph, ALPHA)
  return jax.tree.map(float, found)


def test_the_phase_of_a_mixture(chain):
  """Layer 1 has decided on the wrong graph: that is what it lacks."""
  graph, wrong, of = chain
  true = dict(zip(phases.PREDICTORS, (0.1, 0.2, 0.05, 0.4, 0.25), strict=True))
  f_NxS = sum(weight * of.laws[name] for name, weight in true.items())
  maps = _maps([(max(int(j), 0), 0.9) for (j,) in wrong.parents_TxK])
  found = _phase(f_NxS, maps, of, graph)
  assert found.weights == pytest.approx(true, abs=2e-3)
  assert 0 <= found.left < 1e-6
  # The map has no root: rows of roots attend to position 0.
  decided = _decided(maps, graph)
  for value, by in ((found.decided_loss, decided), (found.edge_loss, graph)):
    laws = metrics.predictor_losses(of.x_NxT, of.y_NxS, by, ALPHA)
    mean = float(laws["edge_posterior"].mean())
    assert value == pytest.approx(mean, rel=1e-5)
  assert found.decided_loss > found.edge_loss + 0.01


def test_the_parts_of_a_perfect_layer_1_are_zero(chain):
  graph, _, of = chain
  maps = _maps([(max(i - 1, 0), 1) for i in range(8)])
  found = _phase(of.laws["edge_posterior"], maps, of, graph)
  assert found.decided_loss == pytest.approx(found.edge_loss, abs=1e-6)
  assert found.weights["edge_posterior"] == pytest.approx(1, abs=1e-3)


def test_predictors_that_are_equal_are_left_out():
  """The wrong graph, the exact posterior, or the edge posterior."""
  graph = graphs.chain(3)  # there is one graph with an edge from 0 to 1
  batch = _prompts(graph)
  edge = metrics.predictor_laws(batch.x_T, graph, ALPHA, S)["edge_posterior"]
  of = phases.baselines(
    batch.x_T,
    batch.y_S,
    graph,
    graphs.rewire(jax.random.key(0), graph),
    ALPHA,
    edge,
  )
  present = {name for name in of.laws if of.laws[name].any()}
  assert present == {"uniform", "unigram", "edge_posterior"}
  found = _phase(edge, jnp.zeros((1, 3, 3)), of, graph)
  assert found.weights["edge_posterior"] == pytest.approx(1, abs=1e-3)
  for name in ("wrong_graph", "exact_posterior"):
    assert np.isnan(found.weights[name])
  empty = graphs.from_parents([-1, -1, -1, -1])
  batch = _prompts(empty)
  of = phases.baselines(batch.x_T, batch.y_S, empty, empty, ALPHA)
  assert set(of.laws) == set(NAMES)
  assert {name for name in of.laws if of.laws[name].any()} == set(NAMES[:2])


def test_an_exact_posterior_that_is_not_reliable_is_left_out(chain):
  graph, wrong, of = chain
  of = phases.baselines(
    of.x_NxT, of.y_NxS, graph, wrong, ALPHA, jnp.zeros((N, S))
  )
  found = _phase(of.laws["edge_posterior"], jnp.zeros((1, 8, 8)), of, graph)
  assert np.isnan(found.weights["exact_posterior"])
  total = sum(found.weights[name] for name in NAMES)
  assert total == pytest.approx(1, abs=1e-5)


def test_before_layer_1_decides_the_decided_graph_predicts_uniformly(chain):
  graph, _, of = chain
  uniform_TxT = np.tri(8, dtype=np.float32) / np.arange(1, 9)[:, None]
  found = _phase(of.laws["uniform"], jnp.asarray(uniform_TxT)[None], of, graph)
  assert found.decided_loss == pytest.approx(np.log(3), rel=1e-5)


def test_it_maps_over_graphs(chain):
  """The graph is traced, as in a batch of runs."""
  graph, wrong, of = chain
  stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), graph, wrong)
  maps = _maps([(max(i - 1, 0), 1) for i in range(8)])

  @jax.jit
  @jax.vmap
  def phases_of(graph):
    every = phases.baselines(of.x_NxT, of.y_NxS, graph, wrong, ALPHA)
    return phases.phase(of.laws["unigram"], maps, every, graph, ALPHA)

  found = phases_of(stacked)
  for r, one in enumerate((graph, wrong)):
    every = phases.baselines(of.x_NxT, of.y_NxS, one, wrong, ALPHA)
    alone = _phase(of.laws["unigram"], maps, every, one)
    for value_R, value in zip(found[1:], alone[1:], strict=True):
      assert float(value_R[r]) == pytest.approx(value, rel=1e-4, abs=1e-6)
  assert np.isnan(found.weights["wrong_graph"]).tolist() == [False, True]


@pytest.fixture(scope="module")
def latent_graph():
  """Graphs, prompts at every position, and their Bayes predictor."""
  graphs_M = graphs.lags(7, (1, 2))
  prior = priors.dirichlet(ALPHA, "uniform")
  batch = jax.jit(
    lambda key: sampling.sample_latent_batch(key, graphs_M, prior, S, N, True)
  )(jax.random.key(0))

  @jax.jit
  @jax.vmap
  def exact(x_T):
    return latent.model_average(x_T, graphs_M, ALPHA, S)

  return graphs_M, batch, exact(batch.x_T)


def test_the_baselines_of_a_latent_graph(latent_graph):
  """No edge posterior and no wrong graph; its loss is over all positions."""
  graphs_M, batch, exact_NxS = latent_graph
  of_N = jax.tree.map(lambda a: a[batch.graph_index], graphs_M)
  of = jax.jit(phases.baselines)(
    batch.x_T, batch.y_S, of_N, None, ALPHA, exact_NxS
  )
  assert set(of.laws) == {"uniform", "unigram", "exact_posterior"}
  np.testing.assert_array_equal(of.laws["exact_posterior"], exact_NxS)
  assert all(law.shape == (N, S) for law in of.laws.values())
  f_NxTxS = jax.jit(
    jax.vmap(lambda x_T, graph: running.edge_posterior(x_T, graph, ALPHA, S))
  )(batch.x_T, of_N)
  loss = -(batch.y_S * np.log(f_NxTxS)).sum(axis=2).mean()
  assert float(of.edge_loss) == pytest.approx(float(loss), rel=1e-5)

  uniform_TxT = jnp.asarray(np.tri(7) / np.arange(1, 8)[:, None], jnp.float32)
  found = jax.jit(phases.phase)(
    0.25 * of.laws["unigram"] + 0.75 * exact_NxS,
    uniform_TxT[None],
    of,
    graphs_M,
    ALPHA,
  )
  weights = {name: float(w) for name, w in found.weights.items()}
  expected = {"uniform": 0, "unigram": 0.25, "exact_posterior": 0.75}
  assert weights == pytest.approx(expected, abs=2e-3)
  # Nothing is decided: every token is predicted as a root.
  assert float(found.decided_loss) == pytest.approx(np.log(3), rel=1e-5)
  assert float(found.edge_loss) == float(of.edge_loss)


def test_layer_1_may_decide_on_one_of_the_graphs(latent_graph):
  """Also at the last position, which is no query."""
  graphs_M, _, _ = latent_graph
  maps = _maps([(max(i - 1, 0), 1) for i in range(7)])
  decided = _decided(maps, graphs_M)
  assert _parents(decided) == [[-1], [0], [1], [2], [3], [4], [5]]
  with_query = graphs.stack([graphs.chain(7), graphs.pairs(7)])
  assert _parents(_decided(maps, with_query))[-1] == [-1]
