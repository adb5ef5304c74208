"""The steps at which edges are learned in stage 1: measured and predicted.

What the checks `times` and `order` share.
"""

import functools
from typing import NamedTuple

import jax
from jax import numpy as jnp
import numpy as np
import optax
from scipy import stats

from icl_causal import graphs
from icl_causal import models
from icl_causal import parallel
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import dynamics
from icl_causal.analysis import gradient
from icl_causal.analysis import information
from icl_causal.config import build
from icl_causal.graphs import Graph

# The predictions of `analysis.dynamics`, the most exact first.
PREDICTIONS = ("score", "information", "closed form")
_AT_ONCE = 2  # graphs per device
_GAP_KERNELS = 2**14


class Task(NamedTuple):
  """Graphs of one kind, and the strength of their edges.

  Attributes:
    graphs: G of them, with single parents.
    slot_GxT: the parent slot of each position.
    weights_K: the strength of an edge in each slot.
    steps: of training.
  """

  graphs: list[Graph]
  slot_GxT: np.ndarray
  weights_K: tuple[float, ...]
  steps: int


class Edges(NamedTuple):
  """The edges of one graph, without those into positions 1 and 2.

  Attributes:
    i_E: the position of the child, counted from 1.
    strength_E: of the edge.
    gap_E: of E R, at the parent over an independent token.
    measured_NxE: the step at which the edge is learned, by seed; infinite
      if it is not.
    predicted: the same by prediction, of shape E.
    curves: the attention on the parent, measured and predicted by `score`, 2 x
      steps x E, of the first seed.
  """

  i_E: np.ndarray
  strength_E: np.ndarray
  gap_E: np.ndarray
  measured_NxE: np.ndarray
  predicted: dict[str, np.ndarray]
  curves: np.ndarray


def forests(config: build.Config, steps: int) -> Task:
  """Random forests, all edges of strength 1."""
  num, p = config.num_graphs, config.root_probability
  keys = jax.random.split(jax.random.key(config.seed), num)
  drawn = [graphs.random_forest(key, config.T, p) for key in keys]
  slot_GxT = np.zeros((num, config.T), np.int32)
  return Task(drawn, slot_GxT, (1.0,), steps)


def strengths(config: build.Config, steps: int) -> Task:
  """Roots, then their children in random order, with edges in random slots."""
  T, num = config.T, config.num_graphs
  rng = np.random.default_rng(config.seed)
  half = (T - 1) // 2
  drawn = []
  for _ in range(num):
    parents = [-1] * half + rng.permutation(half).tolist()
    drawn.append(graphs.from_parents(parents + [-1] * (T - 2 * half)))
  slot_GxT = rng.integers(len(config.strengths), size=(num, T), dtype=np.int32)
  return Task(drawn, slot_GxT, config.strengths, steps)


class Outputs(NamedTuple):
  """The attention of layer 1 before each of M steps, for one graph.

  Attributes:
    measured: by seed, N x M x T x T.
    score: predicted from the score at finite T, M x T x T.
    information: predicted from E R.
    gap: of E R for an edge of strength 1.
  """

  measured: jax.Array
  score: jax.Array
  information: jax.Array
  gap: jax.Array


def edges_of(
  config: build.Config, task: Task, cases
) -> dict[tuple, list[Edges]]:
  """The edges of every graph of a task, by case (alpha, gamma, rate)."""
  mesh = parallel.runs_mesh()
  function = functools.partial(run, config, task.weights_K, task.steps)
  mapped = jax.jit(parallel.over_runs(function, mesh, _AT_ONCE))
  found = {}
  for case in cases:
    runs = [
      (graph, slot_T, np.int32(g), np.array(case, np.float32))
      for g, (graph, slot_T) in enumerate(
        zip(task.graphs, task.slot_GxT, strict=True)
      )
    ]
    outputs = jax.device_get(mapped(*parallel.stack(runs, mesh, _AT_ONCE)))
    found[case] = [
      edges(config, task, g, case, Outputs(*of_graph))
      for g, of_graph in zip(
        range(len(runs)), zip(*outputs, strict=True), strict=False
      )
    ]
  return found


def run(
  config: build.Config, weights_K, steps: int, graph, slot_T, number, case
) -> Outputs:
  """Trains from every seed and predicts the attention of one graph."""
  K, S, T = len(weights_K), config.S, len(slot_T)
  alpha, gamma, learning_rate = case
  base = priors.floored_dirichlet(alpha, gamma)
  prior = priors.mixture_transition(base, weights_K) if K > 1 else base
  in_slots = graphs.in_slots(graph, slot_T, K)
  key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
  data_key, score_key, kernel_key = jax.random.split(key, 3)
  measured = jax.vmap(
    lambda key: train(config, in_slots, prior, learning_rate, steps, key)
  )(jax.random.split(data_key, config.num_seeds))
  g_TxT, _ = dynamics.finite_score(
    score_key, in_slots, prior, S, config.num_prompts, config.epsilon
  )
  R_TxT, _ = information.expected(
    kernel_key,
    graph,
    base,
    S,
    functools.partial(gradient.gradient_score, epsilon=config.epsilon),
    config.num_kernels,
  )
  gap = expected_gap(config, base)
  # A weaker edge changes no other entry of its row: in the task with edges of
  # different strength, the child has no sibling and no grandparent.
  is_edge_TxT = jax.nn.one_hot(graph.parents_TxK[:, 0], T)
  R_TxT -= (1 - jnp.array(weights_K)[slot_T])[:, None] * gap * is_edge_TxT
  rate = learning_rate * config.beta0
  return Outputs(
    measured,
    dynamics.predicted_attention(g_TxT, rate, steps),
    dynamics.predicted_attention(R_TxT / S, rate, steps),
    gap,
  )


def expected_gap(config: build.Config, prior: priors.Prior) -> jax.Array:
  """`dynamics.edge_gap` for edges of strength 1, averaged over the prior."""
  keys = jax.random.split(jax.random.key(config.seed + 2), _GAP_KERNELS)
  gap_N = jax.vmap(
    lambda key: dynamics.edge_gap(prior(key, config.S, 1), config.epsilon)
  )(keys)
  return gap_N.mean()


def train(config: build.Config, graph: Graph, prior, rate, steps: int, key):
  """The attention of the reduced model before each step, by descent on A1."""
  T = len(graph.parents_TxK)
  model = models.Reduced(config.S, T, config.beta0)
  optimizer = optax.multi_transform(
    {"A1": optax.sgd(rate), "A2": optax.set_to_zero()},
    {"A1": "A1", "A2": "A2"},
  )

  def draw(key):
    return sampling.sample_batch(key, graph, prior, config.S, config.batch_size)

  def step(state, _):
    mask_TxT = jnp.tri(T, dtype=bool)
    A1_TxT = jnp.where(mask_TxT, state.params["A1"], -jnp.inf)
    state, _ = training.train(
      state,
      key,
      num_steps=1,
      model=model,
      optimizer=optimizer,
      draw=draw,
      epsilon=config.epsilon,
    )
    return state, jax.nn.softmax(A1_TxT)

  start = training.init(key, model, optimizer)
  return jax.lax.scan(step, start, None, steps)[1]


def edges(
  config: build.Config, task: Task, g: int, case, outputs: Outputs
) -> Edges:
  """The steps at which the edges of a graph are learned, from its outputs."""
  graph = task.graphs[g]
  child, parent = np.array(graphs.edges(graph)).T
  kept = child >= 2
  child, parent = child[kept], parent[kept]
  i_E, T = child + 1, len(graph.parents_TxK)
  strength_E = np.array(task.weights_K)[task.slot_GxT[g][child]]
  gap_E = strength_E * outputs.gap

  def steps(att_MxTxT):
    return dynamics.crossing(att_MxTxT, graph)[kept]

  half_E = dynamics.half_time(i_E, gap_E, T, config.S, config.beta0 * case[2])
  predicted = {
    "score": steps(outputs.score),
    "information": steps(outputs.information),
    "closed form": np.asarray(half_E),
  }
  curves = np.stack([outputs.measured[0], outputs.score])[:, :, child, parent]
  measured_NxE = np.stack([steps(a) for a in outputs.measured])
  return Edges(i_E, strength_E, gap_E, measured_NxE, predicted, curves)


def rank_correlation(x, y) -> float:
  """Spearman's correlation."""
  return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def partial_rank(x, y, given) -> float:
  """The partial correlation of the ranks of x and y, given those of another."""
  ranks = [stats.rankdata(a) for a in (x, y, given)]
  (_, xy, xz), (_, _, yz), _ = np.corrcoef(ranks)
  return float((xy - xz * yz) / ((1 - xz**2) * (1 - yz**2)) ** 0.5)
