"""The gradient of the reduced model at the start against its closed form.

For growing T. Five minutes.
"""

import functools

import jax
from jax import numpy as jnp
import numpy as np

from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import gradient
from icl_causal.analysis import information
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph
from icl_causal.plotting import curves

FIELDS = {
  "T": fields.tuple_of(fields.at_least(2)),
  "cases": fields.tuple_of(
    (fields.at_least(2), fields.ALPHA, fields.NOT_NEGATIVE)
  ),
  "beta0": fields.POSITIVE,
  "root_probability": fields.SHARE,
  "num_prompts": fields.at_least(2),
  "batch_size": fields.at_least(1),
  "num_kernels": fields.at_least(1),
}


def _whole_batches(config: build.Config) -> str | None:
  if config.num_prompts % config.batch_size:
    return (
      f"num_prompts = {config.num_prompts}: must be a multiple of "
      f"batch_size = {config.batch_size}"
    )
  return None


def _two_batches(config: build.Config) -> str | None:
  if config.num_prompts == config.batch_size:
    return (
      f"num_prompts = {config.num_prompts}: must be at least twice "
      f"batch_size = {config.batch_size}, for a standard error"
    )
  return None


NEEDS = (_whole_batches, _two_batches)


def check(config: build.Config) -> Outcome:
  """Correlation and slope of measured on predicted gradients, by T."""
  fits = {}
  for T in config.T:
    graph_key, key = jax.random.split(jax.random.key(config.seed))
    both = {
      "chain": graphs.chain(T),
      "forest": graphs.random_forest(graph_key, T, config.root_probability),
    }
    for S in sorted({case[0] for case in config.cases}):
      measure = jax.jit(functools.partial(_start, config, S))
      for case in config.cases:
        for name, graph in both.items():
          if case[0] == S:
            measured, error, predicted = map(
              np.asarray, measure(graph, case[1], case[2], key)
            )
            fits[case, name, T] = gradient.fit(
              measured, error, predicted, graph
            )
  rows, gaps = [], {}
  for case in config.cases:
    for name in ("chain", "forest"):
      by_T = [fits[case, name, T] for T in config.T]
      rows += [
        [*case, name, T, f"{fit.recovered} of {fit.edges}", *fit[:3]]
        for T, fit in zip(config.T, by_T, strict=True)
      ]
      label = "{}: S = {}, alpha = {}, eps = {}".format(name, *case)
      gaps[label] = [1 - fit.correlation for fit in by_T]
  header = ["S", "alpha", "epsilon", "graph", "T", "argmax"]
  header += ["correlation", "slope", "noise"]
  figure = curves.decay(
    config.T, gaps, "T", "1 - correlation with the closed form"
  )
  return Outcome(header, rows, figure)


def _start(config: build.Config, S: int, graph: Graph, alpha, epsilon, key):
  """Measured -dL/dA1, its standard error, and the closed form."""
  T, prior = graph.parents_TxK.shape[0], priors.dirichlet(alpha)
  model = models.Reduced(S, T, config.beta0)
  kernel_key, data_key = jax.random.split(key)

  def draw(key):
    return sampling.sample_batch(key, graph, prior, S, config.batch_size)

  R_TxT, _ = information.expected(
    kernel_key,
    graph,
    prior,
    S,
    functools.partial(gradient.gradient_score, epsilon=epsilon),
    config.num_kernels,
  )
  mean, error = training.mean_gradient(
    model.init(data_key, jnp.zeros(T, jnp.int32))["params"],
    data_key,
    config.num_prompts // config.batch_size,
    model,
    draw,
    epsilon,
  )
  predicted = gradient.start_gradient(R_TxT, model.start_scale, S)
  return jnp.tril(-mean["A1"]), error["A1"], predicted
