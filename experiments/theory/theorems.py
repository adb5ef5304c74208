"""Theorems 4.4 and 4.5 numerically: how the errors of Algorithm 1 fall with T.

For a prior with all entries at least gamma / S, Theorem 4.4 bounds the
attention of layer 1 on every parent after stage 1 by 1 - O(1/T) from below, and
the final L - L* by a power of T. Theorem 4.5 has the same power for the
supremum error of a prediction, on any kernel with these entries. The bounds are
for some rates and numbers of steps, which we do not know. Ours are powers of T,
one pair of powers for each schedule.

What is measured, by T:
- the attention of layer 1 on the parents. Its slope of log error on log T must
  be -1 or less;
- L - L* and the supremum error, also with layer 1 set to the graph and with
  layer 1 untrained. A slope alone cannot refute the theorem, whose power has an
  unknown constant. The ratio to the error with layer 1 the graph can: it must
  not grow with T.

The gradient of a row that attends uniformly falls as 1 / T, the attention of
layer 2 to one position, times 1 / i, that of row i. Stage 1 therefore needs
rate times steps proportional to T^2; with a smaller power it does not converge,
and its slopes say nothing about the theorem. Once a row is on its parent, its
error falls as T / (rate times steps), so the slope of the attention depends on
the schedule: it is about 1 minus the sum of its powers. The test is that this
holds for all rows and all T, without a floor.

A run has its own graph, training data and test data, for all T. Slopes are
fitted for each run; standard errors are over runs. Ten minutes.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.typing import ArrayLike
import numpy as np
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import bayes
from icl_causal import constructions
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import optimizers
from icl_causal import parallel
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import recovery
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph
from icl_causal.plotting import curves

FIELDS = {
  "T": fields.tuple_of(fields.at_least(2)),
  "S": fields.at_least(2),
  "alpha": fields.ALPHA,
  "gamma": fields.SHARE,
  "beta0": fields.POSITIVE,
  "schedules": fields.tuple_of((fields.NOT_NEGATIVE, fields.NOT_NEGATIVE)),
  "learning_rate": fields.POSITIVE,
  "first_steps": fields.at_least(1),
  "second_learning_rate": fields.POSITIVE,
  "second_steps": fields.at_least(1),
  "batch_size": fields.at_least(1),
  "converged": fields.SHARE,
  "num_runs": fields.at_least(2),
  "test_size": fields.at_least(1),
}


def _several_lengths(config: build.Config) -> str | None:
  if len(set(config.T)) < 2 or list(config.T) != sorted(set(config.T)):
    return f"T = {config.T}: must be two or more numbers in increasing order"
  return None


NEEDS = (_several_lengths,)

GRAPH = "layer 1 the graph"
UNTRAINED = "layer 1 untrained"
ATTENTION = "1 - least attention"
EXCESS = "L - L*"
LARGEST = "sup error, largest"
NO_FLOOR = "deterministic, no floor"

GRAPHS = {
  "chain": lambda key, T: graphs.chain(T),
  "pairs": lambda key, T: graphs.pairs(T),
  "forest": lambda key, T: graphs.random_forest(key, T, 0.5),
}
_AT_ONCE = 4  # runs per device


class Run(NamedTuple):
  """One graph with its data.

  Attributes:
    graph: single parents.
    number: of the run, which determines its keys.
  """

  graph: Graph
  number: ArrayLike


class Start(NamedTuple):
  """What a run starts from, and its stage 1.

  Attributes:
    A1_TxT: layer 1.
    rate: the learning rate of stage 1.
    steps: the number of steps of stage 1.
  """

  A1_TxT: np.ndarray
  rate: ArrayLike
  steps: ArrayLike


def check(config: build.Config) -> Outcome:
  """Errors and slopes by what layer 1 is, graph and quantity."""
  by_T = [measure(config, T) for T in config.T]
  rows, drawn = [], {}
  for method, graph, quantity in by_T[0]:

    def values(method, graph=graph, quantity=quantity):
      return np.array([at[method, graph, quantity] for at in by_T])

    values_TxR = values(method)
    means = values_TxR.mean(axis=1).tolist()
    least = 1 - float(values(method, quantity=ATTENTION)[-1].max())
    row = [method, graph, quantity, *means, *slope(config.T, values_TxR)]
    for other in (GRAPH, UNTRAINED):
      row += slope(config.T, values_TxR, values(other))
    row += [config.num_runs, least]
    rows.append([*row, "yes" if least >= config.converged else "no"])
    if graph == "forest" and quantity in (ATTENTION, EXCESS) and min(means) > 0:
      drawn[f"{quantity}: {method}"] = means
  header = ["layer 1", "graph", "quantity", *(f"T = {T}" for T in config.T)]
  header += ["slope", "std. error", "slope over graph", "error over graph"]
  header += ["slope over untrained", "error over untrained"]
  header += ["runs", "least attention", "converged"]
  return Outcome(header, rows, curves.decay(config.T, drawn, "T", "error"))


def slope(T, values_TxR, over_TxR: ArrayLike = 1.0) -> list:
  """The slope of log(values / over) on log T: mean, standard error over runs.

  `-` twice if an argument is not positive.
  """
  if not (np.min(values_TxR) > 0 and np.min(over_TxR) > 0):
    return ["-", "-"]
  log_TxR = np.log(values_TxR) - np.log(over_TxR)
  slopes_R = np.polyfit(np.log(T), log_TxR, 1)[0]
  return [float(slopes_R.mean()), float(stats.sem(slopes_R))]


def measure(config: build.Config, T: int) -> dict:
  """Each quantity by run, for every (layer 1, graph, quantity)."""
  runs = [
    Run(make(_keys(config, r)[0], T), np.int32(r))
    for make in GRAPHS.values()
    for r in range(config.num_runs)
  ]
  train_and_test = _over_runs(
    lambda run, start: errors(config, run, train(config, run, start))
  )
  by_method = {}
  for method, of_runs in starts(config, T, runs).items():
    maps, errors_of = train_and_test(runs, of_runs)
    least = [_least(*pair) for pair in zip(maps, runs, strict=True)]
    by_method[method] = {ATTENTION: 1 - np.array(least), **errors_of}
  return {
    (method, graph, quantity): values[quantity].reshape(-1, config.num_runs)[g]
    for method, values in by_method.items()
    for g, graph in enumerate(GRAPHS)
    for quantity in values
  }


def train(config: build.Config, run: Run, start: Start):
  """The parameters after both stages of Algorithm 1."""
  T, (_, data_key, _) = len(start.A1_TxT), _keys(config, run.number)
  model = models.Reduced(config.S, T, config.beta0)
  optimizer = optimizers.algorithm_1(
    start.rate,
    config.second_learning_rate,
    start.steps,
    stop=2.0,  # never: the theorem has a number of steps
  )
  draw = functools.partial(
    sampling.sample_batch,
    graph=run.graph,
    prior=priors.floored_dirichlet(config.alpha, config.gamma),
    S=config.S,
    batch_size=config.batch_size,
  )
  state = training.init(data_key, model, optimizer)
  params: Any = state.params
  state = state._replace(params={"A1": start.A1_TxT, "A2": params["A2"]})

  def step(_, state):
    return training.train(
      state, data_key, 1, model, optimizer, draw, epsilon=1 / T
    )[0]

  steps = start.steps + config.second_steps
  return jax.lax.fori_loop(0, steps, step, state).params


def errors(config: build.Config, run: Run, params) -> tuple:
  """The attention of layer 1, L - L*, and the supremum error by family."""
  S, T = config.S, len(params["A1"])
  model, epsilon = models.Reduced(S, T), 1 / T
  _, _, test_key = _keys(config, run.number)

  def of_prompt(x_T, y_S):
    f_S, out = model.apply({"params": params}, x_T)
    smooth_S = (f_S + epsilon) / (1 + S * epsilon)
    excess = metrics.loss(smooth_S, y_S) - bayes.entropy(y_S)
    return excess, jnp.abs(f_S - y_S).max(), out["attention_1"]

  values, largest = {}, 0.0
  families = kernel_families(config.alpha, config.gamma)
  for i, (name, prior) in enumerate(families.items()):
    prompts = sampling.sample_batch(
      jax.random.fold_in(test_key, i), run.graph, prior, S, config.test_size
    )
    excess_N, error_N, maps = jax.vmap(of_prompt, out_axes=(0, 0, None))(
      prompts.x_T, prompts.y_S
    )
    if name == "the prior":
      values[EXCESS] = excess_N.mean()
    values[f"sup error, {name}"] = error_N.mean()
    if name != NO_FLOOR:
      largest = jnp.maximum(largest, error_N.mean())
  return maps, {**values, LARGEST: largest}


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
    NO_FLOOR: deterministic,
  }


def _keys(config: build.Config, number):
  """The keys of the graph, of the training data and of the test data."""
  key = jax.random.fold_in(jax.random.key(config.seed), number)
  return jax.random.split(key, 3)


def starts(config: build.Config, T: int, runs: list[Run]) -> dict:
  """The starts of all runs, by the name of what layer 1 is."""
  zeros, scale = np.zeros((T, T), np.float32), T / config.T[0]

  def start(A1_TxT, rate, steps):
    return Start(np.asarray(A1_TxT), np.float32(rate), np.int32(steps))

  by_name = {}
  for rate_power, steps_power in config.schedules:
    rate = config.learning_rate * scale**rate_power
    steps = round(config.first_steps * scale**steps_power)
    name = f"rate T^{rate_power:g}, steps T^{steps_power:g}"
    by_name[name] = [start(zeros, rate, steps)] * len(runs)
  exact = (constructions.reduced(run.graph, config.S)[1] for run in runs)
  by_name[GRAPH] = [start(params["A1"], 0, 0) for params in exact]
  by_name[UNTRAINED] = [start(zeros, 0, 0)] * len(runs)
  return by_name


def _over_runs(function):
  """A function of lists, an entry per run, that maps `function` over them."""
  mesh = parallel.runs_mesh()
  mapped = jax.jit(parallel.over_runs(function, mesh, _AT_ONCE))

  def call(*lists):
    by_run = list(zip(*lists, strict=True))
    results = mapped(*parallel.stack(by_run, mesh, _AT_ONCE))
    return jax.tree.map(lambda a: np.asarray(a)[: len(by_run)], results)

  return call


def _least(attention, run: Run) -> float:
  """The least attention on a parent; 1 for a graph without edges."""
  return min(recovery.compare(attention, run.graph).edge_scores, default=1.0)
