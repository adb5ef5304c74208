"""Models trained on a pool of kernels: which predictors they are like.

A line has one run on prompts of its pool, or on prompts with fresh kernels,
which the prior of the pool draws. `weights` are those of the mixture of all
`PREDICTORS` that is closest to the model, `four` of the mixture of `FOUR`.
Losses are those of (f + `FLOOR`) / (1 + S `FLOOR`), since retrieval may give a
probability of 0 to what a fresh kernel does.
"""

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


def lines(run: runs.Run, num_prompts: int, num_samples: int) -> list[dict]:
  """The lines of a finished run, at the steps of its checkpoints.

  Args:
    run: trained on a pool.
    num_prompts: of its pool and of fresh kernels.
    num_samples: of the exact posterior, for each prompt.
  """
  config, prior = run.config, run.config.prior
  kernels = build.pool(config, 1)
  assert kernels is not None
  rows = {row["step"]: row for row in run.history}
  shared = {
    "run": run.path.name,
    "M": len(kernels),
    "seed": config.seed,
    "steps": list(run.params),
    "edges": rows[max(rows)]["edges"],
    "recovered": [rows[step]["edges_recovered"] for step in run.params],
    "attention": [
      round(rows[step]["parent_attention_mean"], _ROUNDING)
      for step in run.params
    ],
  }
  key = streams.key(config.eval.seed, "fresh")
  prompts = {
    POOL: run.prompts(num_prompts),
    FRESH: _fresh(
      key, run.graph, prior.alpha, prior.root_law, prior.S, num_prompts
    ),
  }
  found = []
  for name, batch in prompts.items():
    law_KxNxS, losses_K, same = _laws(
      key, kernels, batch, run.graph, prior.alpha, prior.root_law, num_samples
    )
    by_step = [
      jax.tree.map(np.asarray, _of_model(params, batch, law_KxNxS, run.model))
      for params in run.params.values()
    ]
    loss, weights_K, left, four_K = map(np.stack, zip(*by_step, strict=True))
    found.append(
      {
        **shared,
        "prompts": name,
        "loss": _rounded(loss),
        "weights": dict(zip(PREDICTORS, _rounded(weights_K.T), strict=True)),
        "four": dict(zip(FOUR, _rounded(four_K.T), strict=True)),
        "left": _rounded(left),
        "losses": dict(zip(PREDICTORS, _rounded(losses_K), strict=True))
        | {"entropy": _rounded(bayes.entropy(batch.y_S).mean())},
        "same": _rounded(same),
      }
    )
  return found


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
