"""The phases of a training: which predictor a model is, and what it lacks.

A model is compared with mixtures of predictors that need no training, and its
layer 1 with the graph. With the *decided graph*, the excess over the edge
posterior splits into two parts:

    loss - L(graph) = (loss - L(decided)) + (L(decided) - L(graph))

where L is the loss of the edge posterior of a graph. The first part is what
layer 2 lacks, the second what layer 1 lacks. Both can be below 0: a model also
uses attention that decides nothing, and the tokens of roots.
"""

import itertools
from typing import Any, NamedTuple

import chex
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal import metrics
from icl_causal import priors
from icl_causal.graphs import Graph

# In the order of what they use.
PREDICTORS = (
  "uniform",
  "unigram",
  "wrong_graph",
  "edge_posterior",
  "exact_posterior",
)
# A predictor is left out if no probability of it differs by more from another.
_SAME = 1e-6


class Phase(NamedTuple):
  """What the model of one step is like, on the first prompts of a test set.

  Attributes:
    weights: by the names of predictors, those of the mixture that is closest to
      the model; NaN for a predictor that is left out.
    left: the divergence of the model from that mixture, in nats.
    decided_loss: of the edge posterior of the decided graph, in nats.
    edge_loss: of the edge posterior of the graph, in nats.
  """

  weights: dict[str, Any]
  left: Any
  decided_loss: Any
  edge_loss: Any


class Baselines(NamedTuple):
  """The predictors with which a model is compared, on N prompts.

  Attributes:
    x_NxT: the tokens.
    y_NxS: the targets; or y_NxTxS, over which losses are averaged.
    laws: of the predictors at the last position by name, N x S; zeros if one is
      left out.
    edge_loss: the mean loss of the edge posterior, in nats.
  """

  x_NxT: jax.Array
  y_NxS: jax.Array
  laws: dict[str, jax.Array]
  edge_loss: jax.Array


def baselines(
  x_NxT,
  y_NxS,
  graph: Graph,
  wrong_graph: Graph | None,
  alpha,
  exact_NxS=None,
  root_law: priors.RootLaw = "uniform",
) -> Baselines:
  """The predictors of a graph, and the edge posterior of a wrong one.

  A predictor that equals one before it is left out: the exact posterior if it
  is the edge posterior, as without stationary roots; the wrong graph if it is
  the graph, which can happen if T is small; the edge posterior if the graph has
  no edges.

  Args:
    x_NxT: the tokens of the prompts.
    y_NxS: their targets, or y_NxTxS.
    graph: of the prompts; or the graph of each prompt along a leading axis.
    wrong_graph: a control, such as `graphs.rewire` of the graph. None if the
      graph is latent: then the edge posterior is no predictor either.
    alpha: concentration of the prior.
    exact_NxS: the laws of the exact posterior at the last position; zeros if
      they are not reliable.
    root_law: of the prior.

  Returns:
    The laws under the names in `PREDICTORS`, without `exact_posterior` if there
    is no `exact_NxS`.
  """
  S = y_NxS.shape[-1]
  losses = metrics.predictor_losses(x_NxT, y_NxS, graph, alpha, root_law)
  edge_loss = losses["edge_posterior"].mean()
  laws = metrics.predictor_laws(x_NxT, graph, alpha, S)
  if wrong_graph is None:
    del laws["edge_posterior"]
  if exact_NxS is not None:
    laws |= {"exact_posterior": exact_NxS}
  if wrong_graph is not None:
    of_wrong = metrics.predictor_laws(x_NxT, wrong_graph, alpha, S)
    laws |= {"wrong_graph": of_wrong["edge_posterior"]}
  distinct = {}
  for name, law_NxS in laws.items():
    is_new = jnp.array(True)
    for other_NxS in distinct.values():
      is_new &= jnp.abs(law_NxS - other_NxS).max() > _SAME
    distinct[name] = jnp.where(is_new, law_NxS, 0)
  return Baselines(x_NxT, y_NxS, distinct, edge_loss)


def phase(
  f_NxS,
  attention_HxTxT,
  of: Baselines,
  graph: Graph,
  alpha,
  root_law: priors.RootLaw = "uniform",
) -> Phase:
  """Compares a model with predictors, and its layer 1 with the graph.

  Args:
    f_NxS: the laws that the model predicts at the last position.
    attention_HxTxT: the layer-1 maps, averaged over prompts.
    of: the same prompts, and the predictors on them.
    graph: of the prompts, for parent slots; of a latent graph, the graphs.
    alpha: concentration of the prior.
    root_law: of the prior.
  """
  laws_KxNxS = jnp.stack([*of.laws.values()])
  w_K, left = metrics.mixture_weights(f_NxS, laws_KxNxS)
  is_there_K = (laws_KxNxS > 0).any(axis=(1, 2))
  weights_K = jnp.where(is_there_K, w_K, jnp.nan)
  decided = decided_graph(attention_HxTxT, graph)
  losses = metrics.predictor_losses(
    of.x_NxT, of.y_NxS, decided, alpha, root_law
  )
  return Phase(
    dict(zip(of.laws, weights_K, strict=True)),
    left,
    losses["edge_posterior"].mean(),
    of.edge_loss,
  )


def decided_graph(attention_HxTxT, graph: Graph, threshold=0.5) -> Graph:
  """The graph that the maps of layer 1 have decided on (ours).

  A position has a parent if more than half of its attention is on one earlier
  position; otherwise it has none. With several heads, each parent slot takes
  the decisions of one head: heads are matched to slots such that the attention
  on the parents is maximal.

  The query, a last position without parents, stays without. If its own token is
  a parent of the target, the model has it in any case. The last row of layer 1
  copies the other parents of the target: a slot of the target is what that row
  has decided on, and absent if it has not.

  Args:
    attention_HxTxT: the maps, averaged over prompts; may be traced.
    graph: the true graph, for the slots; may be traced. Of a latent graph, the
      graphs: slots are those of the edges that all have.
    threshold: the share of attention that a parent must exceed.

  Raises:
    ValueError: if there are fewer heads than parent slots.
  """
  is_latent = graph.parents_TxK.ndim == 3
  each = graph if is_latent else graphs.stack([graph])
  is_query_T = jax.vmap(graphs.is_query)(each).all(axis=0)
  graph = graphs.shared(graph)
  chex.assert_rank([attention_HxTxT, *graph], [3, 2, 1])
  H, T, _ = attention_HxTxT.shape
  K = graph.target_K.size
  chex.assert_shape([attention_HxTxT, graph.parents_TxK], [(H, T, T), (T, K)])
  if H < K:
    raise ValueError(f"{K} parent slots need as many heads, got {H}")
  att_KxTxT = attention_HxTxT[_head_of_slot(attention_HxTxT, graph)]

  def decided(att, no_parent):
    is_clear = att.max(axis=-1) > threshold
    return jnp.where(is_clear & ~no_parent, att.argmax(-1), graphs.NO_PARENT)

  earlier_KxTxT = att_KxTxT * jnp.tri(T, k=-1)[None]
  parents_KxT = decided(earlier_KxTxT, is_query_T[None])
  fetched_K = decided(att_KxTxT[:, -1], graph.target_K == graphs.NO_PARENT)
  target_K = jnp.where(graph.target_K == T - 1, T - 1, fetched_K)
  return Graph(parents_KxT.T.astype(jnp.int32), target_K.astype(jnp.int32))


def _head_of_slot(attention_HxTxT, graph: Graph) -> jax.Array:
  """The head of each parent slot, by the attention on the parents."""
  H, K = len(attention_HxTxT), graph.target_K.size
  parents_HxTxK = jnp.broadcast_to(
    graph.parents_TxK, (H, *graph.parents_TxK.shape)
  )
  is_edge = parents_HxTxK != graphs.NO_PARENT
  on_parents = jnp.take_along_axis(
    attention_HxTxT, jnp.where(is_edge, parents_HxTxK, 0), axis=2
  )
  score_HxK = jnp.where(is_edge, on_parents, 0).sum(axis=1)
  orders_PxK = np.array([*itertools.permutations(range(H), K)])
  total_P = score_HxK[orders_PxK, np.arange(K)].sum(axis=1)
  return jnp.asarray(orders_PxK)[total_P.argmax()]
