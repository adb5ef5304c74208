"""Theorems 4.4 and 4.5 by number: how fast Algorithm 1's errors fall with T.

The paper bounds them for a prior with all entries at least gamma / S. What is
fitted here is the slope in log T of what was measured.
"""

import functools
from typing import Any

import jax
from jax import numpy as jnp
import numpy as np
from scipy import stats

from experiments import build
from experiments.checks import Check
from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import plotting
from icl_causal import priors
from icl_causal import recovery
from icl_causal import sampling
from icl_causal import training

_GRAPHS = {
  "chain": lambda key, T: graphs.chain(T),
  "pairs": lambda key, T: graphs.pairs(T),
  "forest": lambda key, T: graphs.random_forest(key, T, 0.5),
}


def theorems(config: build.Config) -> Check:
  """Attention, excess loss and supremum error of Algorithm 1, by T."""
  families = kernel_families(config.alpha, config.gamma)
  counts = ("edges missed", "false parents")
  rows, curves = [], {}
  for name, make in _GRAPHS.items():
    by_T = {T: _measure(config, make, T, families) for T in config.T}
    for quantity in by_T[config.T[0]]:
      values = [by_T[T][quantity] for T in config.T]
      means = [float(np.mean(v)) for v in values]
      row = [name, quantity, *means]
      if quantity in counts or len(means) < 3 or min(means) <= 0:
        row += ["-", "-"]  # no line, or no error of a line
      else:
        fit: Any = stats.linregress(np.log(config.T), np.log(means))
        row += [float(fit.slope), float(fit.stderr)]
      rows.append(row)
      drawn = ("L - L*", "1 - least attention")
      if quantity in drawn or (name == "forest" and "sup" in quantity):
        curves[f"{name}: {quantity}"] = means
  header = ["graph", "quantity", *(f"T = {T}" for T in config.T)]
  header += ["slope", "std. error"]
  return Check(header, rows, plotting.decay(config.T, curves, "T", "error"))


def kernel_families(alpha, gamma) -> dict:
  """Priors to test on, by name; all but the last have the floor gamma / S."""

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
  found = []
  for r in range(config.num_runs):
    key = jax.random.fold_in(jax.random.key(config.seed), r)
    graph, attention, errors = run(key)
    edges = recovery.compare(attention, graph, include_self=True)
    found.append(
      {
        "edges missed": edges.edges - edges.recovered,
        "1 - mean attention": 1 - float(np.mean(edges.edge_scores)),
        "1 - least attention": 1 - min(edges.edge_scores),
        "false parents": edges.false_parents,
        **{name: float(value) for name, value in errors.items()},
      }
    )
  return {name: [run[name] for run in found] for name in found[0]}


def _run(config: build.Config, make, T: int, families: dict, key):
  """Trains by Algorithm 1 on one graph and tests on every family."""
  graph_key, init_key, data_key, test_key = jax.random.split(key, 4)
  S, epsilon, graph = config.S, 1 / T, make(graph_key, T)
  model = models.Reduced(S, T, config.matching)
  # The plain gradient of A1 for a fixed time, as in the paper. It falls as
  # 1 / T with the share of one position in layer 2, and once more as 1 / i with
  # that in row i, whence the rate.
  optimizer = training.algorithm_1(
    config.learning_rate * T**2,
    config.second_learning_rate,
    config.first_steps,
  )

  def draw(key, family="the prior", num=config.batch_size):
    return sampling.sample_batch(key, graph, families[family], S, num)

  state = training.init(init_key, model, optimizer)
  state, _ = training.train(
    state, data_key, config.steps, model, optimizer, draw, epsilon
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
