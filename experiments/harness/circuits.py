"""Measures the circuit of a trained model: scores, blocks, a clamp, patches."""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
import numpy as np

from experiments.harness import app
from experiments.theory import second_layer
from icl_causal import bayes
from icl_causal import constructions
from icl_causal import metrics
from icl_causal import models
from icl_causal.analysis import agreement
from icl_causal.analysis import circuits
from icl_causal.analysis import patches
from icl_causal.config import build
from icl_causal.graphs import Graph

GROUPS = 64  # of prompts, between which errors are estimated
_AT_ONCE = 2**20  # numbers of an array of all patches of some prompts
_FIT = (512, 0.1)  # steps and rate of the fitted layer 2


class Equivalent(NamedTuple):
  """The disentangled transformer with the outputs of a model, or a reason.

  Attributes:
    model: None if there is none.
    params: of it.
    reason: why there is none.
  """

  model: models.Disentangled | None
  params: Any
  reason: str | None


def equivalent(model, params) -> Equivalent:
  """The disentangled transformer equivalent to a model."""
  if isinstance(model, models.Disentangled):
    return Equivalent(model, params, None)
  try:
    return Equivalent(*constructions.disentangle(model, params), None)
  except ValueError:
    reason = "blocks and patches need a model of attention alone: no MLP, norm "
    return Equivalent(None, None, f"{reason}or scaling")


def check(model, graph: Graph):
  """Raises Refused for a model or graph without such a circuit."""
  is_layered = isinstance(model, models.Disentangled | models.Standard)
  if not is_layered or model.heads != (1, 1):
    raise app.Refused(
      "the circuit is that of a transformer with one head in each of two "
      f"layers, not of {model}"
    )
  T, K = graph.parents_TxK.shape
  if K > 1 or int(graph.target_K[0]) != T - 1:
    raise app.Refused(
      "the circuit is for single parents, and the last position as the parent "
      "of the target"
    )
  if not (np.asarray(graph.parents_TxK) >= 0).any():
    raise app.Refused("the graph has no edges, so there is no circuit")


def scores(model, params, x_BxT, graph: Graph) -> dict[str, circuits.Mean]:
  """The means of the scores over prompts, by name."""

  @jax.jit
  def of_prompts(params, graph):
    def one(x_T):
      out = model.apply({"params": params}, x_T)[1]
      return circuits.scores(out, x_T, graph)

    return jax.lax.map(one, x_BxT, batch_size=256)

  found = of_prompts(params, graph)._asdict()
  return {name: circuits.mean(values_B) for name, values_B in found.items()}


def clamp(model, params, batch, graph: Graph) -> circuits.Mean:
  """The change of the loss if layer 1 attends to the parents alone."""

  @jax.jit
  def of_prompts(params, clamped):
    def one(prompt):
      losses = [
        metrics.loss(model.apply({"params": p}, prompt.x_T)[0], prompt.y_S)
        for p in (params, clamped)
      ]
      return losses[1] - losses[0]

    prompts = batch._replace(kernel=None)
    return jax.lax.map(one, prompts, batch_size=256)

  return circuits.mean(of_prompts(params, circuits.clamp(params, graph)))


def fit_layer_2(config: build.Config, graph: Graph, key, num_prompts: int):
  """The second layer that predicts best if layer 1 is the graph."""
  batch = jax.jit(build.sampler(config, graph, num_prompts))(key)
  inputs = second_layer.inputs_of(batch.x_T, batch.y_S, graph)
  return second_layer.fit(inputs, False, *_FIT)


class Patches(NamedTuple):
  """The changes of the loss by patches.

  Attributes:
    means: G x T x T by name, of `patches.MEASURED` and `PREDICTED`, in nats.
    moments: G x T x T, by (measured, predicted).
  """

  means: Mapping[str, np.ndarray]
  moments: Mapping[tuple[str, str], agreement.Moments]


def patch(params, batch, graph: Graph, alpha, fitted) -> Patches:
  """All patches on the same prompts, in `GROUPS` groups.

  Args:
    params: of a `models.Disentangled` with heads (1, 1).
    batch: prompts; their number is a multiple of `GROUPS`.
    graph: of the prompts.
    alpha: concentration of the prior, for the edge posterior.
    fitted: from `fit_layer_2`.
  """
  S, T = batch.y_S.shape[1], batch.x_T.shape[1]
  size = len(batch.x_T) // GROUPS
  limit = max(1, _AT_ONCE // (T * T * S))
  chunk = max(n for n in range(1, size + 1) if size % n == 0 and n <= limit)
  shape = (GROUPS, size // chunk, chunk)
  prompts = [a.reshape(*shape, a.shape[1]) for a in (batch.x_T, batch.y_S)]
  found = _patched(params, graph, alpha, fitted, *prompts)
  means, moments = jax.tree.map(np.asarray, found)
  return Patches(
    means,
    {
      (m, p): agreement.Moments(
        means[m], means[p], moments[m, m], moments[p, p], moments[m, p]
      )
      for m in patches.MEASURED
      for p in patches.PREDICTED
    },
  )


def agreements(of: Patches, graph: Graph) -> dict[tuple[str, str], Any]:
  """`agreement.Agreement` over the pairs of children, by names.

  Empty if there are fewer than two pairs.
  """
  chosen = patches.pairs(graph, of_children=True)
  if chosen.sum() < 2:
    return {}
  return {
    names: agreement.agreement(moments.of_pairs(chosen))
    for names, moments in of.moments.items()
  }


@jax.jit
def _patched(params, graph: Graph, alpha, fitted, x_GxCxBxT, y_GxCxBxS):
  """Means of the changes and of their products, G x T x T."""

  def of_chunk(x_BxT, y_BxS):
    one = functools.partial(_changes, params, graph, alpha, fitted)
    changes = jax.vmap(one)(x_BxT, y_BxS)
    names = [(name, name) for name in changes]
    names += [(m, p) for m in patches.MEASURED for p in patches.PREDICTED]
    products = {(a, b): changes[a] * changes[b] for a, b in names}
    return jax.tree.map(lambda a: a.mean(axis=0), (changes, products))

  def of_group(group):
    x_CxBxT, y_CxBxS = group
    C = len(x_CxBxT)

    def add(total, chunk):
      found = of_chunk(*chunk)
      return jax.tree.map(lambda t, a: t + a / C, total, found), None

    like = jax.eval_shape(of_chunk, x_CxBxT[0], y_CxBxS[0])
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    return jax.lax.scan(add, zeros, group)[0]

  return jax.lax.map(of_group, (x_GxCxBxT, y_GxCxBxS))


def _changes(params, graph: Graph, alpha, fitted, x_T, y_S) -> dict:
  """The changes of the loss on a prompt, T x T by name."""
  of = patches.reading(params, x_T)

  def edge_loss(graph):
    f_S = bayes.edge_posterior(x_T, graph, alpha, len(y_S))
    return metrics.loss(f_S, y_S)

  def fitted_loss(graph):
    inputs = second_layer.inputs_of(x_T[None], y_S[None], graph)
    return second_layer.losses(fitted, inputs)[0]

  own_S = patches.logits(of)
  measured = (
    patches.loss_changes(patch(of), own_S, y_S)
    for patch in (patches.patch_token, patches.patch_row)
  )
  predicted = (
    patches.predicted(loss, graph) for loss in (edge_loss, fitted_loss)
  )
  names = (*patches.MEASURED, *patches.PREDICTED)
  return dict(zip(names, (*measured, *predicted), strict=True))
