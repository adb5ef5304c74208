"""How much of the edge posterior layer 2 can say, where layer 1 is the graph.

Layer 1 attends to the parents alone and layer 2 from the last position, by one
logit for each parent slot whose copy agrees with the query's, one for each
position, and one for a place that says nothing, if there is any. The read-out
is a multiple of the attended tokens. All these are fitted. Symmetric parameters
of `models.Disentangled` have no such place, since whatever layer 2 attends to
has a token, and W reads it; others can hide it. Ours.
"""

from typing import NamedTuple

import jax
from jax import numpy as jnp
import numpy as np
import optax
from scipy import stats

from experiments import build
from experiments import paper
from experiments.checks import Check
from icl_causal import bayes
from icl_causal import metrics
from icl_causal.graphs import Graph


class Matched(NamedTuple):
  """What layer 2 sees.

  Attributes:
    agrees_NxTxK: 1 where the copies of a slot at a position and at the query
      are the same; 0 for absent parents.
    token_NxTxS: one-hot.
    y_NxS: the soft targets.
  """

  agrees_NxTxK: jax.Array
  token_NxTxS: jax.Array
  y_NxS: jax.Array


def second_layer(config: build.Config) -> Check:
  """Excess over the edge posterior on fresh prompts, by experiment."""
  rows = []
  for name in config.experiments:
    run = paper.planned(name, "quick", 1)[0]
    seen, edge_N = _draw(run, config, "fit")
    fresh, fresh_edge_N = _draw(run, config, "test")
    for is_silent in (False, True):
      params = fit(seen, is_silent, config.steps, config.learning_rate)
      excess_N = losses(params, fresh) - fresh_edge_N
      fitted = float((losses(params, seen) - edge_N).mean())
      rows.append(
        [
          name,
          "yes" if is_silent else "no",
          fitted,
          float(excess_N.mean()),
          float(stats.sem(np.asarray(excess_N))),
          float(fresh_edge_N.mean()),
        ]
      )
  header = ["experiment", "silent place", "fitted excess", "excess"]
  return Check([*header, "std. error", "edge posterior"], rows, None)


def fit(seen: Matched, is_silent: bool, steps: int, rate: float) -> dict:
  """The parameters of least loss, by Adam at `rate` to 0 by a cosine."""
  _, T, K = seen.agrees_NxTxK.shape
  params = {
    "slot_K": jnp.full(K, 4.0),
    "position_T": jnp.zeros(T),
    "scale": jnp.array(5.0),
  }
  if is_silent:
    params["silent"] = jnp.array(4.0 * K)
  optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

  def step(state, _):
    params, moments = state
    gradient = jax.grad(lambda p: losses(p, seen).mean())(params)
    updates, moments = optimizer.update(gradient, moments)
    return (optax.apply_updates(params, updates), moments), None

  @jax.jit
  def fitted(params):
    start = params, optimizer.init(params)
    return jax.lax.scan(step, start, length=steps)[0][0]

  return fitted(params)


def losses(params: dict, seen: Matched) -> jax.Array:
  """The loss on each prompt, in nats."""
  logits_NxT = seen.agrees_NxTxK @ params["slot_K"] + params["position_T"][None]
  if "silent" in params:
    silent_Nx1 = jnp.full((len(logits_NxT), 1), params["silent"])
    logits_NxT = jnp.append(logits_NxT, silent_Nx1, axis=1)
  T = seen.token_NxTxS.shape[1]
  attention_NxT = jax.nn.softmax(logits_NxT)[:, :T]
  read_NxS = jnp.einsum("nt,nts->ns", attention_NxT, seen.token_NxTxS)
  f_NxS = jax.nn.softmax(params["scale"] * read_NxS)
  return jax.vmap(metrics.loss)(f_NxS, seen.y_NxS)


def matched(x_NxT, y_NxS, graph: Graph) -> Matched:
  """What layer 2 sees of prompts."""
  is_there_TxK = graph.parents_TxK >= 0
  copies_NxTxK = x_NxT[:, graph.parents_TxK]
  query_NxK = x_NxT[:, graph.target_K]
  agrees_NxTxK = copies_NxTxK == query_NxK[:, None]
  return Matched(
    jnp.where(is_there_TxK[None], agrees_NxTxK, 0).astype(jnp.float32),
    jax.nn.one_hot(x_NxT, y_NxS.shape[1]),
    y_NxS,
  )


def _draw(run, config: build.Config, stream: str):
  """Prompts as layer 2 sees them, and the edge posterior's losses on them."""
  own = run.config.prior
  key = jax.random.fold_in(jax.random.key(config.seed), stream == "test")
  batch = build.sampler(run.config, run.graph, config.num_prompts)(key)

  def of_edges(x_T, y_S):
    f_S = bayes.edge_posterior(x_T, run.graph, own.alpha, own.S)
    return metrics.loss(f_S, y_S)

  edge_N = jax.jit(jax.vmap(of_edges))(batch.x_T, batch.y_S)
  return matched(batch.x_T, batch.y_S, run.graph), edge_N
