"""The methods of theory:two_parents: scores, heads and staged heads."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
import numpy as np
import optax

from experiments.theory import sample_curves
from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import optimizers
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import guided
from icl_causal.config import build
from icl_causal.graphs import Graph
from icl_causal.sampling import Prompt

K = 2
BEST = "best possible"
PAIRS = "likelihood of pairs"
STAGED = "staged heads"
PHASES = "staged heads, after their phases"
ATTENTION = "attention at the parents"
EXCESS = "excess on fresh prompts"
# The information and rho of each kernel-guided method.
KINDS: dict[str, tuple[guided.Kind, guided.Law]] = {
  "KL": ("shannon", "tokens"),
  "chi-squared": ("chi2", "tokens"),
  "KL, root law": ("shannon", "root"),
  "chi-squared, root law": ("chi2", "root"),
}

_EVALUATED = 256  # prompts at once


class Hits(NamedTuple):
  """Edges found on one graph, or on many.

  Attributes:
    right: number of parents that are found in their slot.
    anywhere: number of parents that are found in any slot.
  """

  right: Any
  anywhere: Any


def score(kind: str) -> str:
  """The name of the row argmax of a score."""
  return f"KG-MI, {kind}"


def heads(kind: str) -> str:
  """The name of the attention heads that maximise the same score."""
  return f"KG-MI heads, {kind}"


SCORES = (BEST, PAIRS, *map(score, KINDS))


def drawn_graphs(config: build.Config) -> list[Graph]:
  """Graphs with two parents, uniform on the pairs of earlier positions."""
  keys = jax.random.split(jax.random.key(config.seed), config.num_graphs)
  full = graphs.kgram(config.T, K)
  return [jax.jit(graphs.rewire)(key, full) for key in keys]


def prompts(config: build.Config, graph: Graph, number, num: int) -> Prompt:
  """The first prompts of a graph, on which all methods are compared."""
  key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
  prior = priors.dirichlet(config.alpha, "dirichlet")
  most = max(*config.num_prompts, *config.staged_prompts)
  batch = sampling.sample_batch(key, graph, prior, config.S, most)
  return jax.tree.map(lambda a: a[:num], batch)


def slot_hits(score_KxTxT, graph: Graph) -> Hits:
  """Hits of the top entry j < i of each row, slot by slot.

  With ties, one of the top entries is chosen at random, in each slot.
  """
  T = score_KxTxT.shape[1]
  earlier_TxT = jnp.tri(T, k=-1, dtype=bool)
  masked_KxTxT = jnp.where(earlier_TxT[None], score_KxTxT, -jnp.inf)
  is_top = masked_KxTxT == masked_KxTxT.max(axis=2, keepdims=True)
  chosen_KxTxT = is_top / is_top.sum(axis=2, keepdims=True)
  parents_KxTxT = _one_hot(graph)
  right = (chosen_KxTxT * parents_KxTxT).sum()
  is_found_TxT = 1 - (1 - chosen_KxTxT).prod(axis=0)
  return Hits(right, (is_found_TxT * parents_KxTxT.sum(axis=0)).sum())


def pair_hits(score_TxTxT, graph: Graph) -> Hits:
  """The same of the top pair of each position, for two slots."""
  top = score_TxTxT.max(axis=(1, 2), keepdims=True)
  is_top = (score_TxTxT == top) & jnp.isfinite(top)
  num = jnp.maximum(is_top.sum(axis=(1, 2), keepdims=True), 1)
  chosen = is_top / num
  # The probability of a position in each slot of the chosen pair.
  chosen_KxTxT = jnp.stack([chosen.sum(axis=2), chosen.sum(axis=1)])
  parents_KxTxT = _one_hot(graph)
  right = (chosen_KxTxT * parents_KxTxT).sum()
  # The positions of a pair differ, so these probabilities add up.
  found_TxT = chosen_KxTxT.sum(axis=0) * parents_KxTxT.sum(axis=0)
  return Hits(right, found_TxT.sum())


def measure(config: build.Config, graphs_G: list[Graph]) -> dict[str, Hits]:
  """All scores on the same prompts, a G x N of each number by method."""
  last = jnp.array(config.num_prompts) - 1

  def one(graph: Graph, number):
    batch = prompts(config, graph, number, max(config.num_prompts))
    zeros = jax.tree.map(
      lambda a: jnp.zeros(a.shape, a.dtype),
      jax.eval_shape(
        functools.partial(_scores, epsilon=config.epsilon),
        batch.x_T[0],
        batch.kernel[0],
      ),
    )

    def add(sums, prompt):
      new = _scores(*prompt, epsilon=config.epsilon)
      sums = jax.tree.map(jnp.add, sums, new)
      return sums, _hits(sums, graph)

    _, by_name = jax.lax.scan(add, zeros, (batch.x_T, batch.kernel))
    return jax.tree.map(lambda a_N: a_N[last], by_name)

  return sample_curves.over_runs(one, _numbered(graphs_G), 1)


def attention(config: build.Config, graphs_G: list[Graph]):
  """Heads that ascend the same information on the first N prompts.

  Returns:
    By kind, (hits, attention), G x N each: Hits, and the mean attention of each
    slot's head at the parent.
  """
  sizes = config.attention_prompts

  def one(graph: Graph, number):
    batch = prompts(config, graph, number, max(sizes))
    parents_KxTxT = _one_hot(graph)

    def trained(kind, law, N):
      att_KxTxT = guided.guided_attention(
        batch.x_T[:N],
        batch.kernel[:N],
        config.attention_steps,
        config.attention_rate,
        kind,
        config.epsilon,
        law,
      )
      at_parents = (att_KxTxT * parents_KxTxT).sum() / parents_KxTxT.sum()
      return slot_hits(att_KxTxT, graph), at_parents

    return {
      name: jax.tree.map(
        lambda *a: jnp.stack(a), *(trained(*how, N) for N in sizes)
      )
      for name, how in KINDS.items()
    }

  return sample_curves.over_runs(one, _numbered(graphs_G), 1)


def staged(config: build.Config, graphs_G: list[Graph]):
  """The disentangled transformer with staged heads, on N prompts over and over.

  Returns:
    For `PHASES` and `STAGED`, (hits, excess), G x N each: Hits of the layer-1
    attention, averaged over fresh prompts, with heads matched to slots, and the
    loss on fresh prompts minus that of the edge posterior, in nats.
  """
  sizes = config.staged_prompts
  model = models.Disentangled(
    config.S, config.T, (K, 1), beta0=config.staged_start
  )
  phases = optimizers.num_phases(K) * config.phase_steps
  in_phases = phases + (optimizers.num_phases(K) - 1) * config.joint_steps
  rate = optax.cosine_decay_schedule(
    config.learning_rate, config.staged_steps - phases
  )
  optimizer = optimizers.staged_heads(
    optax.adam(rate, b2=config.b2),
    config.phase_steps,
    config.joint_steps,
    config.max_step,
  )

  def one(graph: Graph, number, num):
    batch = prompts(config, graph, number, max(sizes))
    key = jax.random.fold_in(jax.random.key(config.seed + 2), number)
    init_key, data_key, test_key = jax.random.split(key, 3)
    prior = priors.dirichlet(config.alpha, "dirichlet")
    test = sampling.sample_batch(
      test_key, graph, prior, config.S, config.test_size
    )
    train = functools.partial(
      training.train,
      key=data_key,
      model=model,
      optimizer=optimizer,
      draw=functools.partial(
        sampling.resample,
        prompts=batch,
        batch_size=config.batch_size,
        num_prompts=num,
      ),
    )
    state, _ = train(
      training.init(init_key, model, optimizer), num_steps=in_phases
    )
    result = {PHASES: _of_model(config, model, state, test, graph)}
    state, _ = train(state, num_steps=config.staged_steps - in_phases)
    return result | {STAGED: _of_model(config, model, state, test, graph)}

  runs = [(*run, np.int32(N)) for run in _numbered(graphs_G) for N in sizes]
  result = sample_curves.over_runs(one, runs, 1)
  return jax.tree.map(lambda a_R: a_R.reshape(-1, len(sizes)), result)


def guess(graphs_G: list[Graph], num_sizes: int) -> Hits:
  """A pair drawn uniformly from j < k < i; expected numbers."""

  def right(i, parents_K):
    # Of the pairs of i, so many have the left parent, and the right one.
    return (i - 1 - parents_K[0] + parents_K[1]) / (i * (i - 1) / 2)

  rights, anywheres = [], []
  for graph in graphs_G:
    parents_TxK = np.asarray(graph.parents_TxK)
    children = np.flatnonzero(parents_TxK[:, 0] >= 0)
    rights.append(sum(right(i, parents_TxK[i]) for i in children))
    anywheres.append(sum(2 * K / i for i in children))
  return Hits(
    *(np.tile(np.array(a)[:, None], num_sizes) for a in (rights, anywheres))
  )


def _numbered(graphs_G: list[Graph]) -> list[tuple]:
  return [(graph, np.int32(g)) for g, graph in enumerate(graphs_G)]


def _one_hot(graph: Graph):
  """K x T x T: 1 at the parent of each slot."""
  T = len(graph.parents_TxK)
  return jax.nn.one_hot(graph.parents_TxK.T, T)


def _scores(x_T, kernel, epsilon) -> dict[str, jax.Array]:
  """All scores of one prompt."""
  of_slots = {
    score(name): jnp.stack(
      [
        guided.guided(x_T, kernel, slot, kind, epsilon, law)
        for slot in range(K)
      ]
    )
    for name, (kind, law) in KINDS.items()
  }
  return {PAIRS: guided.pair_likelihood(x_T, kernel), **of_slots}


def _hits(sums: dict[str, jax.Array], graph: Graph) -> dict[str, Hits]:
  """The hits of summed scores, with those of the posterior's marginals."""
  pairs_TxTxT = sums[PAIRS]
  marginals_KxTxT = jnp.stack(
    [jax.nn.logsumexp(pairs_TxTxT, axis=axis) for axis in (2, 1)]
  )
  of_slots = {name: sums[score(name)] for name in KINDS}
  return {
    BEST: slot_hits(marginals_KxTxT, graph),
    PAIRS: pair_hits(pairs_TxTxT, graph),
    **{score(name): slot_hits(s, graph) for name, s in of_slots.items()},
  }


def _of_model(config: build.Config, model, state, test: Prompt, graph: Graph):
  """Hits of layer 1, with heads matched to slots, and the excess."""
  size = min(_EVALUATED, config.test_size)
  on_test = training.evaluate(state.params, model, test.x_T, test.y_S, size)
  att_KxTxT = on_test.attention["attention_1"]
  by_order = [
    slot_hits(att_KxTxT[jnp.array(order)], graph)
    for order in itertools.permutations(range(K))
  ]
  best = Hits(*map(jnp.maximum, *by_order))
  counts = jax.vmap(bayes.edge_posterior, (0, None, None, None))(
    test.x_T, graph, config.alpha, config.S
  )
  baseline = jax.vmap(metrics.loss)(counts, test.y_S).mean()
  return best, on_test.loss_N.mean() - baseline
