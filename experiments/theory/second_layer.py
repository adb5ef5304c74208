"""The lowest excess loss of layer 2 if layer 1 attends exactly to the parents.

Layer 1 is fixed: it copies the parent in each slot of each position. Layer 2
attends from the last position. The logit of a position is the sum of a constant
for the position and, for each slot whose copied token equals the query's, a
constant for the slot. There can be an attention sink, called silent place in
the table. It has a constant logit and no token, so attention to it adds nothing
to the output. The logits of the prediction are a multiple of the attended
tokens. All these constants are fitted.

Symmetric parameters of `models.Disentangled` have no such sink, because every
position that layer 2 attends to has a token, and W reads it. Other parameters
can have one. Ours.

Takes two minutes on two cores.
"""

import pathlib
from typing import NamedTuple

import jax
from jax import numpy as jnp
import numpy as np
import optax
from scipy import stats

from configs import paper as paper_config
from experiments.harness import grid
from experiments.harness import suite
from experiments.theory.outcome import Outcome
from icl_causal import bayes
from icl_causal import metrics
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph
from icl_causal.sampling import Prompt

FIELDS = {
  "experiments": fields.tuple_of(fields.one_of(paper_config.EXPERIMENTS)),
  "num_prompts": fields.at_least(2),
  "steps": fields.at_least(1),
  "learning_rate": fields.POSITIVE,
}


class Inputs(NamedTuple):
  """What layer 2 reads of N prompts, and their targets.

  Attributes:
    agrees_NxTxK: 1 if a slot copies the same token at a position as at the
      query, else 0; 0 for absent parents of the position.
    token_NxTxS: one-hot.
    y_NxS: the soft targets.
  """

  agrees_NxTxK: jax.Array
  token_NxTxS: jax.Array
  y_NxS: jax.Array


def check(config: build.Config) -> Outcome:
  """Excess over the edge posterior on fresh prompts, by experiment."""
  rows = []
  for name in config.experiments:
    # Nothing is trained, so the workdir is not used.
    run = suite.planned(name, "quick", 1, pathlib.Path())[0]
    train_batch, train_edge_N = draw(run, config, "fit")
    test_batch, test_edge_N = draw(run, config, "test")
    train, test = (
      inputs_of(batch.x_T, batch.y_S, run.graph)
      for batch in (train_batch, test_batch)
    )
    for is_silent in (False, True):
      params = fit(train, is_silent, config.steps, config.learning_rate)
      excess_N = losses(params, test) - test_edge_N
      fitted = float((losses(params, train) - train_edge_N).mean())
      rows.append(
        [
          name,
          "yes" if is_silent else "no",
          fitted,
          float(excess_N.mean()),
          float(stats.sem(np.asarray(excess_N))),
          float(test_edge_N.mean()),
        ]
      )
  header = ["experiment", "silent place", "fitted excess", "excess"]
  return Outcome([*header, "std. error", "edge posterior"], rows, None)


def fit(inputs: Inputs, is_silent: bool, steps: int, rate: float) -> dict:
  """Fits the constants by Adam, with a cosine schedule from `rate` to 0."""
  _, T, K = inputs.agrees_NxTxK.shape
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
    gradient = jax.grad(lambda p: losses(p, inputs).mean())(params)
    updates, moments = optimizer.update(gradient, moments)
    return (optax.apply_updates(params, updates), moments), None

  @jax.jit
  def fitted(params):
    start = params, optimizer.init(params)
    return jax.lax.scan(step, start, length=steps)[0][0]

  return fitted(params)


def losses(params: dict, inputs: Inputs) -> jax.Array:
  """The loss on each prompt, in nats."""
  slots_NxT = inputs.agrees_NxTxK @ params["slot_K"]
  logits_NxT = slots_NxT + params["position_T"][None]
  if "silent" in params:
    silent_Nx1 = jnp.full((len(logits_NxT), 1), params["silent"])
    logits_NxT = jnp.append(logits_NxT, silent_Nx1, axis=1)
  T = inputs.token_NxTxS.shape[1]
  attention_NxT = jax.nn.softmax(logits_NxT)[:, :T]
  read_NxS = jnp.einsum("nt,nts->ns", attention_NxT, inputs.token_NxTxS)
  f_NxS = jax.nn.softmax(params["scale"] * read_NxS)
  return jax.vmap(metrics.loss)(f_NxS, inputs.y_NxS)


def inputs_of(x_NxT, y_NxS, graph: Graph, copied_TxK=None) -> Inputs:
  """What layer 2 reads of prompts.

  Args:
    x_NxT: tokens.
    y_NxS: soft targets.
    graph: over T positions.
    copied_TxK: the position that layer 1 copies to each position in each slot,
      -1 for none. The query is what the last row copies, except for slots
      whose target is the last position, and for slots in which the last
      position has no parent; these have the target's. By default layer 1 copies
      the parents, and the query is the target's parents.
  """
  query_K = graph.target_K
  if copied_TxK is None:
    copied_TxK = graph.parents_TxK
  else:
    last = len(copied_TxK) - 1
    is_direct_K = (query_K == last) | (copied_TxK[-1] < 0)
    query_K = jnp.where(is_direct_K, query_K, copied_TxK[-1])
  agrees_NxTxK = x_NxT[:, copied_TxK] == x_NxT[:, query_K][:, None]
  return Inputs(
    jnp.where(copied_TxK[None] >= 0, agrees_NxTxK, 0).astype(jnp.float32),
    jax.nn.one_hot(x_NxT, y_NxS.shape[1]),
    y_NxS,
  )


def draw(run: grid.Run, config, stream: str) -> tuple[Prompt, jax.Array]:
  """Prompts of an experiment, and the edge posterior's loss on each.

  Args:
    run: of the experiment.
    config: has `seed` and `num_prompts`.
    stream: `fit` or `test`.
  """
  prior = run.config.prior
  key = jax.random.fold_in(jax.random.key(config.seed), stream == "test")
  batch = build.sampler(run.config, run.graph, config.num_prompts)(key)

  def edge_loss(x_T, y_S):
    f_S = bayes.edge_posterior(x_T, run.graph, prior.alpha, prior.S)
    return metrics.loss(f_S, y_S)

  return batch, jax.jit(jax.vmap(edge_loss))(batch.x_T, batch.y_S)
