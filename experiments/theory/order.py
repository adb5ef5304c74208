"""Whether joint training learns edges in the order that stage 1 predicts.

The disentangled transformer with one head in each of two layers trains all
parameters together. Blocks of layer 2 and of the read-out start at a multiple
of the identity, so that layer 2 matches the query from the start. The
predicted order is that of `dynamics.half_time`: position divided by gap. An
edge is learned when its attention, averaged over prompts, reaches 1/2; edges
into positions 1 and 2 are left out, as in `times`.

The tasks are `chain`, one graph with several sets of training data, and
`forests` and `strengths` of `times`. `order` is the rank correlation of
measured and predicted steps in a graph; an edge that is not learned is last.
`position` is that with the position; `partial` is the rank correlation with 1 /
gap given the position. Means and standard errors are over graphs. Five minutes
on two cores.
"""

import functools

import jax
from jax import numpy as jnp
import numpy as np
import optax
from scipy import stats

from experiments.theory import learned
from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal import models
from icl_causal import parallel
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import dynamics
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


def _chains(config: build.Config, steps: int) -> learned.Task:
  """The same chain for every set of training data."""
  num, T = config.num_graphs, config.T
  slot_GxT = np.zeros((num, T), np.int32)
  return learned.Task([graphs.chain(T)] * num, slot_GxT, (1.0,), steps)


TASKS = {
  "chain": _chains,
  "forests": learned.forests,
  "strengths": learned.strengths,
}

FIELDS = {
  "T": fields.at_least(9),
  "alpha": fields.ALPHA,
  "start": fields.POSITIVE,
  "batch_size": fields.at_least(1),
  "root_probability": fields.BELOW_ONE,
  "strengths": fields.tuple_of(fields.SHARE),
  "num_graphs": fields.at_least(2),
  "num_prompts": fields.at_least(1),
  "cases": fields.tuple_of(
    (
      fields.one_of(TASKS),
      fields.at_least(2),
      fields.one_of(OPTIMIZERS),
      fields.POSITIVE,
      fields.at_least(1),
      fields.at_least(1),
    )
  ),
}

_AT_ONCE = 5  # graphs per device


def check(config: build.Config) -> Outcome:
  """Rank correlations of measured and predicted steps, by case."""
  rows = []
  for case in config.cases:
    name, *_, steps, every = case
    task = TASKS[name](config, steps)
    steps_of, correlations = [], []
    for graph, slot_T, att_MxTxT in zip(
      task.graphs, task.slot_GxT, trained(config, task, case), strict=True
    ):
      child, _ = np.array(graphs.edges(graph)).T
      child = child[kept := child >= 2]
      step_E = every * dynamics.crossing(att_MxTxT, graph)[kept]
      strength_E = np.array(task.weights_K)[slot_T[child]]
      steps_of.append(step_E)
      correlations.append(orders(step_E, child + 1, strength_E))
    step = np.concatenate(steps_of)
    counts = [len(task.graphs), step.size, int(np.isinf(step).sum())]
    row = [*case[:4], *counts]
    for of_graphs in zip(*correlations, strict=True):
      known = [value for value in of_graphs if value is not None]
      mean, error = (np.mean, stats.sem) if len(known) > 1 else (None, None)
      row += [f and float(f(known)) for f in (mean, error)]
    rows.append(row)
  header = ["task", "S", "optimizer", "rate", "graphs", "edges", "missed"]
  for name in ("order", "position", "partial"):
    header += [name, f"error of {name}"]
  return Outcome(header, rows, None)


def orders(step_E, i_E, strength_E) -> tuple[float | None, ...]:
  """The rank correlations `order`, `position` and `partial` of a graph.

  None where a correlation is not defined: `partial` for edges of one strength,
  all of them if the steps or the positions are equal.
  """
  if len(step_E) < 4 or np.ptp(stats.rankdata(step_E)) == 0:
    return None, None, None
  predicted_E = dynamics.half_time(i_E, strength_E, 1, 1, 1.0)
  order = learned.rank_correlation(step_E, predicted_E)
  position = learned.rank_correlation(step_E, i_E)
  partial = None
  if np.ptp(strength_E) > 0:
    partial = learned.partial_rank(step_E, -strength_E, i_E)
  return order, position, partial


def trained(config: build.Config, task: learned.Task, case) -> np.ndarray:
  """The attention of layer 1 in each graph, G x M x T x T.

  Measured before step 0 and after every `every` steps of joint training.
  """
  mesh = parallel.runs_mesh()
  function = functools.partial(train, config, task.weights_K, case)
  runs = [
    (graph, slot_T, np.int32(g))
    for g, (graph, slot_T) in enumerate(
      zip(task.graphs, task.slot_GxT, strict=True)
    )
  ]
  mapped = jax.jit(parallel.over_runs(function, mesh, _AT_ONCE))
  attention = mapped(*parallel.stack(runs, mesh, _AT_ONCE))
  return np.asarray(attention)[: len(runs)]


def train(config: build.Config, weights_K, case, graph: Graph, slot_T, number):
  """The attention of layer 1 in one graph, M x T x T."""
  _, S, optimizer_name, rate, steps, every = case
  T, K = len(slot_T), len(weights_K)
  base = priors.dirichlet(config.alpha)
  prior = priors.mixture_transition(base, weights_K) if K > 1 else base
  in_slots = graphs.in_slots(graph, slot_T, K)
  key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
  data_key, test_key, start_key = jax.random.split(key, 3)

  def draw(key, batch_size=config.batch_size):
    return sampling.sample_batch(key, in_slots, prior, S, batch_size)

  model = models.Disentangled(S, T, (1, 1), beta0=config.start)
  optimizer = OPTIMIZERS[optimizer_name](rate)
  x_NxT = draw(test_key, config.num_prompts).x_T

  def attention(params):
    _, out = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(x_NxT)
    return jnp.mean(jnp.asarray(out["attention_1"])[:, 0], axis=0)

  def step(state, _):
    new, _ = training.train(
      state,
      data_key,
      num_steps=every,
      model=model,
      optimizer=optimizer,
      draw=draw,
      chunk_size=parallel.chunk_size(config.batch_size, model),
    )
    return new, attention(state.params)

  start = training.init(start_key, model, optimizer)
  return jax.lax.scan(step, start, None, steps // every + 1)[1]
