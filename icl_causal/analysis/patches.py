"""Patches: what a model predicts if a position copies another token (ours).

Layer 1 of a two-layer model copies to each position i a token and the place
that it is from. Patch (i, j) changes what position i copies:

- `patch_token`: the token becomes that of position j, the place stays.
- `patch_row`: position i attends to j alone, so that both change.

The change of the loss has a prediction that needs no model: for a model that
counts along the edges of its layer 1, it is the loss of the edge posterior of
the graph in which j is the parent of i, minus that of the graph (`predicted`).
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal import metrics
from icl_causal import mixes
from icl_causal.graphs import Graph

# What is patched, and what predicts the change of the loss, as results name it.
MEASURED = ("token alone", "whole row")
PREDICTED = ("edge posterior", "fitted layer 2")


class Terms(NamedTuple):
  """What a part of the stream at each of T positions adds for layer 2.

  Attributes:
    score_T: to the score of the position.
    logits_TxS: to the logits that layer 2 copies from the position.
  """

  score_T: jax.Array
  logits_TxS: jax.Array


class Reading(NamedTuple):
  """What the last position reads of a prompt, term by term.

  Attributes:
    attention_TxT: of layer 1.
    direct_S: the logits that the last position adds itself.
    own: the terms of each position's own token and place.
    token: the terms of a copy of the token of each position.
    place: the terms of a copy of the place of each position.
  """

  attention_TxT: jax.Array
  direct_S: jax.Array
  own: Terms
  token: Terms
  place: Terms


def reading(params: dict, x_T: jax.Array) -> Reading:
  """The terms of a prompt, of a `models.Disentangled` with heads (1, 1)."""
  (A1_DxD,), (A2_DxD,), W_DxS = params["A1"], params["A2"], params["W"]
  T, S = len(x_T), W_DxS.shape[1]
  chex.assert_shape([A2_DxD, W_DxS], [(2 * (S + T),) * 2, (4 * (S + T), S)])
  token_TxS = jax.nn.one_hot(x_T, S, dtype=W_DxS.dtype)
  mask_TxT = jnp.where(jnp.tri(T, dtype=bool), 0, -jnp.inf)
  query = mixes.projected([None], A1_DxD, x_T, token_TxS)
  scores_TxT = mixes.scores(query, [None], token_TxS)
  att_TxT = jax.nn.softmax(scores_TxT + mask_TxT)
  places = mixes.last(None, T), att_TxT[-1]
  query_D = mixes.concatenated(places, token_TxS)
  q = mixes.split(query_D @ A2_DxD, token_TxS)
  V = jnp.split(W_DxS[len(query_D) :], [S, S + T, 2 * S + T])
  own, copied = (
    (
      Terms(token_TxS @ q[n], token_TxS @ V[n]),  # of a token
      Terms(q[n + 1], V[n + 1]),  # of a place
    )
    for n in (0, 2)
  )
  direct_S = query_D @ W_DxS[: len(query_D)]
  both = jax.tree.map(jnp.add, *own)
  return Reading(att_TxT, direct_S, both, *copied)


def logits(of: Reading) -> jax.Array:
  """The model's own logits_S, without a patch."""
  terms = _unpatched(of)
  return of.direct_S + jax.nn.softmax(terms.score_T) @ terms.logits_TxS


def patch_token(of: Reading) -> jax.Array:
  """The logits if position i copies the token of j, for each (i, j).

  Returns:
    T x T x S, with a meaning for j < i < T - 1: what the last position copies
    would also change the query.
  """
  att = of.attention_TxT
  rest = jax.tree.map(lambda o, p: o + att @ p, of.own, of.place)
  return _patched(of, _sums(rest, of.token))


def patch_row(of: Reading) -> jax.Array:
  """The logits if position i attends to j alone, as for `patch_token`."""
  return _patched(of, _sums(of.own, jax.tree.map(jnp.add, of.token, of.place)))


def loss_changes(logits_TxTxS: jax.Array, logits_S, y_S) -> jax.Array:
  """The change of the loss by each patch, T x T, in nats."""
  loss = metrics.loss(jax.nn.softmax(logits_S), y_S)
  patched_TxTxS = jax.nn.softmax(logits_TxTxS)
  over_pairs = jax.vmap(jax.vmap(metrics.loss, (0, None)), (0, None))
  return over_pairs(patched_TxTxS, y_S) - loss


def predicted(loss_of: Callable[[Graph], jax.Array], graph: Graph) -> jax.Array:
  """The loss if j is the parent of i, minus that of the graph, T x T.

  Args:
    loss_of: the loss of a predictor that knows a graph, on a prompt, in nats.
    graph: with single parents.
  """
  T = len(graph.parents_TxK)

  def of_row(i):
    parents = jnp.asarray(graph.parents_TxK)
    return jax.vmap(
      lambda j: loss_of(graph._replace(parents_TxK=parents.at[i, 0].set(j)))
    )(jnp.arange(T))

  return jax.lax.map(of_row, jnp.arange(T)) - loss_of(graph)


def pairs(graph: Graph, of_children: bool = False) -> np.ndarray:
  """The pairs (i, j) with j < i < T - 1, as T x T truth values.

  Args:
    graph: with single parents.
    of_children: only pairs where i has a parent and j is another position.
  """
  parents_T = np.asarray(graph.parents_TxK)[:, 0]
  T = len(parents_T)
  found_TxT = np.tri(T, k=-1, dtype=bool)
  found_TxT[-1] = False
  if of_children:
    found_TxT &= (parents_T != graphs.NO_PARENT)[:, None]
    found_TxT &= parents_T[:, None] != np.arange(T)
  return found_TxT


def _unpatched(of: Reading) -> Terms:
  att = of.attention_TxT
  return jax.tree.map(
    lambda o, t, p: o + att @ t + att @ p, of.own, of.token, of.place
  )


def _sums(at: Terms, copied: Terms) -> Terms:
  """The terms of position i with a copy from j: T x T and T x T x S."""
  return jax.tree.map(lambda a, c: a[:, None] + c[None], at, copied)


def _patched(of: Reading, new: Terms) -> jax.Array:
  old, T = _unpatched(of), len(of.attention_TxT)

  def of_row(row):
    i, score_J, logits_JxS = row
    score_JxT = jnp.where(
      (jnp.arange(T) == i)[None], score_J[:, None], old.score_T[None]
    )
    weight_JxT = jax.nn.softmax(score_JxT)
    change_JxS = logits_JxS - old.logits_TxS[i][None]
    return (
      of.direct_S[None]
      + weight_JxT @ old.logits_TxS
      + weight_JxT[:, i, None] * change_JxS
    )

  return jax.lax.map(of_row, (jnp.arange(T), *new))
