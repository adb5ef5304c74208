"""Where the excess over the exact posterior lies, on the forests of figure 9.

The exact posterior is the mean of the target given the prompt. The expected
excess loss of a prediction f given the prompt is therefore KL(exact || f). The
check averages this divergence. Its variance is several times smaller than that
of a difference of losses, which also depends on the target. The exact posterior
is estimated twice, and `divergence` combines both so that their bias cancels.

Predictors:
- the edge posterior;
- the model, trained by the recipe of configs/random_forests.py;
- the same model with layer 1 set to the graph: rows with a parent attend to it,
  the other rows attend uniformly. A2 and W are trained;
- the same, and the rows of A1 without a parent are trained as well.

Groups of prompts:
- by the matches, the positions whose parent has the state of the query: none,
  matches with equal tokens, matches with different tokens;
- by KL(exact || edge posterior), the information that root tokens add;
- by the number of roots of the graph.

Means are per graph first. The standard error is over graphs, and each graph has
its own test prompts. Ours. Takes eight minutes on two cores.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp
import numpy as np
import optax

from configs import random_forests
from experiments.theory.outcome import Outcome
from icl_causal import bayes
from icl_causal import constructions
from icl_causal import training
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph

FIELDS = {
  "num_graphs": fields.at_least(2),
  "first_graph": fields.SEED,
  "num_prompts": fields.at_least(2),
  "posterior_samples": fields.at_least(2),
  "steps": fields.at_least(1),
}

_EDGES = "edge posterior"
_INFORMATIVE = 0.05  # nats
_MANY_ROOTS = 10
_AT_ONCE = 8  # prompts, for the exact posterior


def check(config: build.Config) -> Outcome:
  """The excess over the exact posterior, by predictor and group of prompts."""
  settings: Any = random_forests.get_config()
  settings.train.steps = config.steps
  measure = jax.jit(
    _measurement(settings, config.num_prompts, config.posterior_samples)
  )
  key = jax.random.key(config.seed)
  by_graph = []
  for seed in range(config.first_graph, config.first_graph + config.num_graphs):
    settings.graph.seed = seed
    graph = build.graph(settings)
    A1 = set_to_graph(graph, settings.prior.S)
    x_NxT, excess = measure(jax.random.fold_in(key, seed), graph, A1)
    excess = {name: np.asarray(e_N, float) for name, e_N in excess.items()}
    by_graph.append((excess, groups(x_NxT, graph, excess[_EDGES])))
  return table(by_graph)


def table(by_graph: list[tuple[dict, dict]]) -> Outcome:
  """A row for each predictor and group.

  Args:
    by_graph: for each graph, the excess on each prompt by predictor, and the
      masks of prompts by group.
  """
  rows = []
  for predictor in by_graph[0][0]:
    for group in by_graph[0][1]:
      share_G = np.array([masks[group].mean() for _, masks in by_graph])
      part_G = np.array(
        [
          (excess[predictor] * masks[group]).mean()
          for excess, masks in by_graph
        ]
      )
      means = [float(share_G.mean()), float(part_G.mean())]
      rows.append([predictor, group, *means, *ratio(part_G, share_G)])
  header = ["predictor", "prompts", "share", "part of the mean", "excess"]
  return Outcome([*header, "std. error"], rows, None)


def divergence(estimates_2xS, f_S) -> jax.Array:
  """KL(exact || f) in nats, from two independent estimates of the exact law.

  With p + e and p + d for the estimates, the sum over s of (p + e) log(p + e)
  has the bias E e^2 / 2p to second order, and that of (p + e) log(p + d) has
  the bias -E d^2 / 2p. The mean of both has none.
  """
  log_S = jnp.log(estimates_2xS).mean(axis=0) - jnp.log(f_S)
  return estimates_2xS.mean(axis=0) @ log_S


def set_to_graph(graph: Graph, S: int) -> jax.Array:
  """A1 with attention 1 on the parents; rows without a parent are uniform."""
  reduced = constructions.reduced(graph, S)
  return constructions.embed_reduced(*reduced)[1]["A1"]


def only_rows(
  optimizer: optax.GradientTransformation, rows_D
) -> optax.GradientTransformation:
  """The optimizer, with updates of A1 only in the rows that are 1 in rows_D."""

  def only(updates: Any, params):
    del params
    return updates | {"A1": updates["A1"] * rows_D[None, :, None]}

  return optax.chain(optimizer, optax.stateless(only))


def groups(x_NxT, graph: Graph, edge_excess_N) -> dict[str, np.ndarray]:
  """Masks of prompts by the names of their groups."""
  x_NxT, parents_T = np.asarray(x_NxT), np.asarray(graph.parents_TxK)[:, 0]
  matches_NxT = (parents_T >= 0) & (x_NxT[:, parents_T] == x_NxT[:, -1:])
  tokens_N = np.array(
    [(matches_NxT & (x_NxT == s)).any(axis=1) for s in range(x_NxT.max() + 1)]
  ).sum(axis=0)
  has_many_N = np.full(len(x_NxT), (parents_T[:-1] < 0).sum() >= _MANY_ROOTS)
  return {
    "all": np.ones(len(x_NxT), bool),
    "no match": tokens_N == 0,
    "matches with equal tokens": tokens_N == 1,
    "matches with different tokens": tokens_N > 1,
    f"roots add less than {_INFORMATIVE}": edge_excess_N < _INFORMATIVE,
    f"roots add {_INFORMATIVE} or more": edge_excess_N >= _INFORMATIVE,
    f"graphs with fewer than {_MANY_ROOTS} roots": ~has_many_N,
    f"graphs with {_MANY_ROOTS} roots or more": has_many_N,
  }


def ratio(part_G, share_G) -> list[float | None]:
  """The ratio of two means, and its standard error over graphs."""
  if not share_G.any():
    return [None, None]
  mean = part_G.mean() / share_G.mean()
  error = (part_G - mean * share_G).std(ddof=1) / len(part_G) ** 0.5
  return [float(mean), float(error / share_G.mean())]


def _measurement(settings, num_prompts: int, num_samples: int) -> Callable:
  """Maps key, graph and A1 to test prompts and the excess by predictor."""
  S, alpha = settings.prior.S, settings.prior.alpha

  def measure(key, graph, A1):
    test_key, exact_key, train_key = jax.random.split(key, 3)
    x_NxT = build.sampler(settings, graph, num_prompts)(test_key).x_T

    def exact(key_and_tokens):
      key, x_T = key_and_tokens
      return bayes.exact_posterior(
        key, x_T, graph, alpha, S, num_samples, settings.prior.root_law
      )[0]

    keys_Nx2 = jax.random.split(exact_key, (num_prompts, 2))
    exact_2xNxS = jnp.stack(
      [
        jax.lax.map(exact, (keys_Nx2[:, half], x_NxT), batch_size=_AT_ONCE)
        for half in range(2)
      ]
    )
    predictors = {
      _EDGES: lambda x_T: bayes.edge_posterior(x_T, graph, alpha, S),
      **_trained(train_key, graph, A1, settings),
    }
    return x_NxT, {
      name: jax.vmap(divergence, (1, 0))(exact_2xNxS, jax.vmap(predict)(x_NxT))
      for name, predict in predictors.items()
    }

  return measure


def _trained(key, graph: Graph, A1, settings) -> dict[str, Callable]:
  """Models that are trained on a graph; each maps tokens to a law."""
  model = build.model(settings, graph)
  draw = build.sampler(settings, graph, settings.train.batch_size)
  init_key, data_key = jax.random.split(key)

  def train(optimizer, fixed: dict):
    state = training.init(init_key, model, optimizer)
    params: Any = state.params
    state, _ = training.train(
      state._replace(params=params | fixed),
      data_key,
      num_steps=settings.train.steps,
      model=model,
      optimizer=optimizer,
      draw=draw,
    )
    return lambda x_T: model.apply({"params": state.params}, x_T)[0]

  rate = optax.cosine_decay_schedule(
    settings.train.learning_rate, settings.train.steps
  )
  adam = optax.adam(rate, b2=settings.train.b2)
  others_D = jnp.append(jnp.zeros(model.S), graph.parents_TxK[:, 0] < 0)
  return {
    "model": train(build.optimizer(settings, model), {}),
    "model, layer 1 the graph": train(
      only_rows(adam, 0 * others_D), {"A1": A1}
    ),
    "model, layer 1 the graph, other rows trained": train(
      only_rows(adam, others_D), {"A1": A1}
    ),
  }
