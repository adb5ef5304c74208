"""Theorems 4.4 and 4.5 numerically: how the errors of Algorithm 1 fall with T.

The paper bounds these errors for a prior with all entries at least gamma / S.
This check measures them and fits the slope of log error against log T.

Attention on the parent, excess loss and supremum error are measured on the
prior of the training and on other priors. Seven minutes.
"""

import functools
from typing import Any

import jax
from jax import numpy as jnp
import numpy as np
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import optimizers
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import recovery
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.plotting import curves

FIELDS = {
  "T": fields.tuple_of(fields.at_least(2)),
  "S": fields.at_least(2),
  "alpha": fields.ALPHA,
  "gamma": fields.SHARE,
  "beta0": fields.POSITIVE,
  "steps": fields.at_least(1),
  "first_steps": fields.at_least(1),
  "batch_size": fields.at_least(1),
  "learning_rate": fields.POSITIVE,
  "second_learning_rate": fields.POSITIVE,
  "num_runs": fields.at_least(1),
  "test_size": fields.at_least(1),
}

_GRAPHS = {
  "chain": lambda key, T: graphs.chain(T),
  "pairs": lambda key, T: graphs.pairs(T),
  "forest": lambda key, T: graphs.random_forest(key, T, 0.5),
}


def check(config: build.Config) -> Outcome:
  """Attention, excess loss and supremum error of Algorithm 1, by T."""
  families = kernel_families(config.alpha, config.gamma)
  counts = ("edges missed", "false parents")
  rows, errors = [], {}
  for name, make in _GRAPHS.items():
    by_T = {T: _measure(config, make, T, families) for T in config.T}
    for quantity in by_T[config.T[0]]:
      values = [by_T[T][quantity] for T in config.T]
      means = [float(np.mean(v)) for v in values]
      row = [name, quantity, *means]
      if quantity in counts or len(means) < 3 or min(means) <= 0:
        row += ["-", "-"]  # no slope, or no standard error of it
      else:
        fit: Any = stats.linregress(np.log(config.T), np.log(means))
        row += [float(fit.slope), float(fit.stderr)]
      rows.append(row)
      drawn = ("L - L*", "1 - least attention")
      if quantity in drawn or (name == "forest" and "sup" in quantity):
        errors[f"{name}: {quantity}"] = means
  header = ["graph", "quantity", *(f"T = {T}" for T in config.T)]
  header += ["slope", "std. error"]
  return Outcome(header, rows, curves.decay(config.T, errors, "T", "error"))


def kernel_families(alpha, gamma) -> dict:
  """The test priors by name; all but the last have the floor gamma / S."""

  def floored(draw):
    def prior(key, S, K):
      pi_SxS = (1 - gamma) * draw(key, S) + gamma / S
      return priors.fixed(pi_SxS)(key, S, K)

    return prior

  def permutation(key, S):
    return jnp.eye(S)[jax.random.permutation(key, S)]

  def doubly_stochastic(key, S):
    weights_key, key = jax.random.split(key)
    weights = jax.random.dirichlet(weights_key, jnp.ones(S))
    many = jax.vmap(permutation, (0, None))(jax.random.split(key, S), S)
    return jnp.einsum("p,pst->st", weights, many)

  def deterministic(key, S, K):
    pi_SxS = jnp.eye(S)[jax.random.randint(key, (S,), 0, S)]
    return priors.fixed(pi_SxS)(key, S, K)

  return {
    "the prior": priors.floored_dirichlet(alpha, gamma),
    "alpha / 10": priors.floored_dirichlet(alpha / 10, gamma),
    "alpha * 10": priors.floored_dirichlet(alpha * 10, gamma),
    "permutations": floored(permutation),
    "doubly stochastic": floored(doubly_stochastic),
    "deterministic, no floor": deterministic,
  }


def _measure(config: build.Config, make, T: int, families: dict) -> dict:
  """Each quantity over the runs of one graph and one T."""
  run = jax.jit(functools.partial(_run, config, make, T, families))
  by_run = []
  for r in range(config.num_runs):
    key = jax.random.fold_in(jax.random.key(config.seed), r)
    graph, attention, errors = run(key)
    edges = recovery.compare(attention, graph, include_self=True)
    by_run.append(
      {
        "edges missed": edges.edges - edges.recovered,
        "1 - mean attention": 1 - float(np.mean(edges.edge_scores)),
        "1 - least attention": 1 - min(edges.edge_scores),
        "false parents": edges.false_parents,
        **{name: float(value) for name, value in errors.items()},
      }
    )
  return {name: [values[name] for values in by_run] for name in by_run[0]}


def _run(config: build.Config, make, T: int, families: dict, key):
  """Trains by Algorithm 1 on one graph and tests on every prior."""
  graph_key, init_key, data_key, test_key = jax.random.split(key, 4)
  S, epsilon, graph = config.S, 1 / T, make(graph_key, T)
  model = models.Reduced(S, T, config.beta0)
  # The plain gradient of A1 for a fixed number of steps, as in the paper. The
  # rate grows as T^2 because the gradient falls as 1 / T, the attention of
  # layer 2 to one position, times 1 / i, that of row i in layer 1.
  optimizer = optimizers.algorithm_1(
    config.learning_rate * T**2,
    config.second_learning_rate,
    config.first_steps,
  )

  def draw(key, family="the prior", num=config.batch_size):
    return sampling.sample_batch(key, graph, families[family], S, num)

  state = training.init(init_key, model, optimizer)
  state, _ = training.train(
    state,
    data_key,
    num_steps=config.steps,
    model=model,
    optimizer=optimizer,
    draw=draw,
    epsilon=epsilon,
  )

  params: Any = state.params

  def errors(x_T, y_S):
    f_S, _ = model.apply({"params": params}, x_T)
    smooth_S = (f_S + epsilon) / (1 + S * epsilon)
    excess = metrics.loss(smooth_S, y_S) - bayes.entropy(y_S)
    return excess, jnp.abs(f_S - y_S).max()

  values = {}
  for name in families:
    test = draw(test_key, name, config.test_size)
    excess_N, supremum_N = jax.vmap(errors)(test.x_T, test.y_S)
    if name == "the prior":
      values["L - L*"] = excess_N.mean()
    values[f"sup error, {name}"] = supremum_N.mean()
  _, out = model.apply({"params": params}, test.x_T[0])
  return graph, out["attention_1"], values
