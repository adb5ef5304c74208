"""Models trained on a pool of kernels: which predictors they are like.

A line has one run on prompts of its pool, or on prompts with fresh kernels,
which the prior of the pool draws. `weights` are those of the mixture of all
`PREDICTORS` that is closest to the model, `four` of the mixture of `FOUR`.
Losses are those of (f + `FLOOR`) / (1 + S `FLOOR`), since retrieval may give a
probability of 0 to what a fresh kernel does.
"""

from collections.abc import Mapping
import functools
from typing import Any

from flax import linen as nn
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import bayes
from icl_causal import metrics
from icl_causal import mixtures
from icl_causal import pools
from icl_causal import priors
from icl_causal import runs
from icl_causal import sampling
from icl_causal.config import build
from icl_causal.config import streams
from icl_causal.graphs import Graph

# In the order of what they use. The exact posterior is that of fresh kernels.
PREDICTORS = (
  "uniform",
  "unigram",
  "unigram retrieval",
  "edge posterior",
  "retrieval",
  "exact posterior",
)
FOUR = ("uniform", "unigram", "edge posterior", "retrieval")
POOL, FRESH = "pool", "fresh"
FLOOR = 1e-6
# Of a line that is recorded under results/.
FIELDS: dict[str, Any] = {
  "run": str,
  "model": str,
  "M": int,
  "seed": int,
  "prompts": str,
  "steps": list,
  "loss": list,
  "weights": dict,
  "four": dict,
  "left": list,
  "losses": dict,
  "same": float,
  "edges": int,
  "recovered": list,
  "attention": list,
}
_ROUNDING = 5
_AT_ONCE = 16  # prompts


def lines(
  trained: Mapping[str, runs.Run], num_prompts: int, num_samples: int
) -> list[dict]:
  """The lines of models that were trained on one pool.

  Args:
    trained: finished runs by the names of their models, with one graph, prior
      and test seed.
    num_prompts: of the pool and of fresh kernels.
    num_samples: of the exact posterior, for each prompt.
  """
  run = next(iter(trained.values()))
  config, graph, prior = run.config, run.graph, run.config.prior
  kernels = build.pool(config, 1)
  assert kernels is not None
  key = streams.key(config.eval.seed, "fresh")
  prompts = {
    POOL: run.prompts(num_prompts),
    FRESH: _fresh(
      key, graph, prior.alpha, prior.root_law, prior.S, num_prompts
    ),
  }
  found = []
  for kind, batch in prompts.items():
    law_KxNxS, losses_K, same = _laws(
      key, kernels, batch, graph, prior.alpha, prior.root_law, num_samples
    )
    shared = {
      "M": len(kernels),
      "seed": config.seed,
      "prompts": kind,
      "losses": dict(zip(PREDICTORS, _rounded(losses_K), strict=True))
      | {"entropy": _rounded(bayes.entropy(batch.y_S).mean())},
      "same": _rounded(same),
    }
    for name, run in trained.items():
      of_model = _line(run, batch, law_KxNxS)
      found.append({"model": name, **shared, **of_model})
  return found


def _line(run: runs.Run, batch, law_KxNxS) -> dict:
  """What a line has of one model, at the steps of its checkpoints."""
  rows = {row["step"]: row for row in run.history}
  by_step = [
    jax.tree.map(np.asarray, _of_model(params, batch, law_KxNxS, run.model))
    for params in run.params.values()
  ]
  loss, weights_K, left, four_K = map(np.stack, zip(*by_step, strict=True))
  return {
    "run": run.path.name,
    "steps": list(run.params),
    "edges": rows[max(rows)]["edges"],
    "recovered": [rows[step]["edges_recovered"] for step in run.params],
    "attention": _rounded(
      [rows[step]["parent_attention_mean"] for step in run.params]
    ),
    "loss": _rounded(loss),
    "weights": dict(zip(PREDICTORS, _rounded(weights_K.T), strict=True)),
    "four": dict(zip(FOUR, _rounded(four_K.T), strict=True)),
    "left": _rounded(left),
  }


@functools.partial(jax.jit, static_argnames=("root_law", "S", "num"))
def _fresh(key, graph: Graph, alpha, root_law, S: int, num: int):
  """Prompts with fresh kernels."""
  law = priors.dirichlet(alpha, root_law)
  return sampling.sample_batch(key, graph, law, S, num)


@functools.partial(jax.jit, static_argnames=("root_law", "num_samples"))
def _laws(key, kernels, batch, graph: Graph, alpha, root_law, num_samples: int):
  """The laws and losses of `PREDICTORS`, and how near the last two are.

  Returns:
    (law_KxNxS, losses_K, same), with the mean divergence of retrieval from the
    exact posterior, in nats.
  """
  S = kernels.shape[-1]
  keys_N = jax.random.split(key, len(batch.x_T))

  def one(prompt):
    key, x_T = prompt
    exact = bayes.dirichlet_posterior(
      key, x_T, graph, alpha, S, num_samples, root_law
    )
    return jnp.stack(
      [
        bayes.uniform(S),
        bayes.unigram(x_T, S),
        pools.unigram_retrieval(x_T, graph, kernels)[0],
        bayes.edge_posterior(x_T, graph, alpha, S),
        bayes.retrieval(x_T, graph, kernels)[0],
        exact.f_S,
      ]
    )

  law_NxKxS = jax.lax.map(one, (keys_N, batch.x_T), batch_size=_AT_ONCE)
  law_KxNxS = law_NxKxS.swapaxes(0, 1)
  losses_K = jax.vmap(lambda law_NxS: _loss(law_NxS, batch.y_S))(law_KxNxS)
  retrieval_NxS, exact_NxS = law_KxNxS[4], law_KxNxS[5]
  same = _loss(exact_NxS, retrieval_NxS) - bayes.entropy(retrieval_NxS).mean()
  return law_KxNxS, losses_K, same


@functools.partial(jax.jit, static_argnames="model")
def _of_model(params, batch, law_KxNxS, model: nn.Module):
  """Loss, weights of `PREDICTORS`, what is left, and weights of `FOUR`."""
  f_NxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
    batch.x_T
  )
  four = jnp.array([PREDICTORS.index(name) for name in FOUR])
  weights_K, left = mixtures.mixture_weights(f_NxS, law_KxNxS)
  four_K, _ = mixtures.mixture_weights(f_NxS, law_KxNxS[four])
  return _loss(f_NxS, batch.y_S), weights_K, left, four_K


def _loss(f_NxS, y_NxS) -> jax.Array:
  S = f_NxS.shape[1]
  law_NxS = (f_NxS + FLOOR) / (1 + S * FLOOR)
  return jax.vmap(metrics.loss)(law_NxS, y_NxS).mean()


def _rounded(values) -> Any:
  """Numbers with five decimals, as lists."""
  return np.round(np.asarray(values, float), _ROUNDING).tolist()
