"""Joint training on N prompts, over and over: memory against the graph.

The disentangled transformer trains on batches drawn with replacement from the
first N prompts of a training set, or on fresh prompts in every step. All N of a
graph share the training set, the test set and the start of the model. By N and
step:

- `edges`: the share of edges that are the largest entry j < i of their row of
  layer-1 attention, averaged over fresh prompts;
- `own loss`, on the N prompts, at most 512 of them, and `fresh loss`;
- the weight of each predictor in the mixture closest to the model, on fresh
  prompts (`icl_causal.phases`).

`one gradient` is the share of edges that a single gradient finds in the same N
prompts (`information.label_score`, through a softmax). `half` is the step from
which the model keeps half of the edges, on average. Losses in nats; standard
errors are over graphs. Four minutes on two cores.
"""

import functools
from typing import NamedTuple

import jax
from jax import numpy as jnp
import numpy as np
import optax
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import parallel
from icl_causal import phases
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import information
from icl_causal.analysis import samples
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph
from icl_causal.plotting import repetition as plots
from icl_causal.sampling import Prompt

FIELDS = {
  "T": fields.at_least(3),
  "S": fields.at_least(2),
  "alpha": fields.ALPHA,
  "root_probability": fields.BELOW_ONE,
  "num_graphs": fields.at_least(2),
  "num_prompts": fields.tuple_of(fields.at_least(1)),
  "measured_at": fields.tuple_of(fields.at_least(1)),
  "batch_size": fields.at_least(1),
  "learning_rate": fields.POSITIVE,
  "start": fields.POSITIVE,
  "test_size": fields.at_least(1),
}


def _ascending(config: build.Config) -> str | None:
  if list(config.measured_at) != sorted(set(config.measured_at)):
    return f"measured_at = {config.measured_at}: must ascend"
  return None


NEEDS = (_ascending,)

_OWN = 512  # prompts on which the loss of training is measured, at most
_AT_ONCE = 4  # runs per device
_FRESH = "fresh"


class Course(NamedTuple):
  """A training, before step 0 and after each of the steps of the config.

  Attributes:
    edges: share of edges.
    own_loss: on the N prompts, in nats.
    fresh_loss: on fresh prompts.
    excess: the latter minus that of the edge posterior.
    weights: of the mixture, by name of the predictor.
    one_gradient: share of edges that one gradient finds, the same at all steps.
  """

  edges: jax.Array
  own_loss: jax.Array
  fresh_loss: jax.Array
  excess: jax.Array
  weights: dict[str, jax.Array]
  one_gradient: jax.Array


def check(config: build.Config) -> Outcome:
  """The end and milestones of training by N, and heat maps over steps."""
  keys = jax.random.split(jax.random.key(config.seed), config.num_graphs)
  p = config.root_probability
  forests = [graphs.random_forest(key, config.T, p) for key in keys]
  courses = courses_of(config, forests)
  steps = np.array([0, *config.measured_at])
  rows = [summary(N, course, steps) for N, course in courses.items()]
  header = ["N", "graphs", "one gradient", "error", "edges", "error of edges"]
  header += ["half", "own loss", "fresh loss", "excess", "error of excess"]
  header += ["least excess", "at step", *phases.PREDICTORS[:-1]]
  maps = {
    "share of edges": lambda course: course.edges,
    "loss on the N prompts": lambda course: course.own_loss,
    "loss on fresh prompts": lambda course: course.fresh_loss,
    "weight of the edge posterior": lambda c: c.weights["edge_posterior"],
  }
  panels = {
    title: np.stack([of(course).mean(axis=0) for course in courses.values()])
    for title, of in maps.items()
  }
  labels = [str(N) for N in courses]
  return Outcome(header, rows, plots.heat_maps(panels, labels, steps.tolist()))


def courses_of(config: build.Config, forests: list[Graph]) -> dict:
  """The trainings on every graph by N, and on fresh prompts, G x M arrays."""
  mesh, sizes, num = parallel.runs_mesh(), config.num_prompts, len(forests)

  def trained(is_fresh: bool, runs) -> Course:
    function = functools.partial(course_of, config, is_fresh)
    mapped = jax.jit(parallel.over_runs(function, mesh, _AT_ONCE))
    course = mapped(*parallel.stack(runs, mesh, _AT_ONCE))
    return jax.tree.map(lambda a: np.asarray(a)[: len(runs)], course)

  numbered = [(graph, np.int32(g)) for g, graph in enumerate(forests)]
  repeated = trained(
    False, [(*run, np.int32(N)) for N in sizes for run in numbered]
  )
  by_size = {
    N: jax.tree.map(lambda a, n=n: a[n * num : (n + 1) * num], repeated)
    for n, N in enumerate(sizes)
  }
  most = np.int32(max(sizes))
  fresh = trained(True, [(*run, most) for run in numbered])
  # It never trains on the training set.
  own_loss = np.full_like(fresh.own_loss, np.nan)
  return by_size | {_FRESH: fresh._replace(own_loss=own_loss)}


def course_of(
  config: build.Config, is_fresh: bool, graph: Graph, number, num_prompts
) -> Course:
  """Trains on one graph: on fresh prompts, or the first of a training set."""
  S, T, size = config.S, config.T, config.batch_size
  prior = priors.dirichlet(config.alpha)
  key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
  own_key, data_key, test_key, wrong_key = jax.random.split(key, 4)

  def fresh(key, batch_size=size):
    return sampling.sample_batch(key, graph, prior, S, batch_size)

  own, test = (
    fresh(own_key, max(config.num_prompts)),
    fresh(test_key, config.test_size),
  )
  repeated = functools.partial(
    sampling.resample, prompts=own, batch_size=size, num_prompts=num_prompts
  )
  model = models.Disentangled(S, T, (1, 1), beta0=config.start)
  optimizer = optax.adam(config.learning_rate)
  wrong = graphs.rewire(wrong_key, graph)
  baselines = phases.baselines(test.x_T, test.y_S, graph, wrong, config.alpha)
  is_own_N = jnp.arange(len(own.x_T)) < num_prompts
  num_edges = (graph.parents_TxK >= 0).sum()

  def measured(params):
    own_N, _, _ = predictions(
      model, params, jax.tree.map(lambda a: a[:_OWN], own)
    )
    weight_N = is_own_N[:_OWN] / is_own_N[:_OWN].sum()
    fresh_N, law_NxS, maps = predictions(model, params, test)
    phase = phases.phase(law_NxS, maps, baselines, graph, config.alpha)
    fresh_loss = fresh_N.mean()
    return Course(
      samples.hits(maps[0], graph).sum() / num_edges,
      own_N @ weight_N,
      fresh_loss,
      fresh_loss - phase.edge_loss,
      phase.weights,
      one_gradient,
    )

  gradient_TxT = first_gradient(own, is_own_N)
  one_gradient = samples.hits(gradient_TxT, graph).sum() / num_edges

  def advance(state, num_steps):
    state, _ = training.train(
      state,
      data_key,
      num_steps=num_steps,
      model=model,
      optimizer=optimizer,
      draw=fresh if is_fresh else repeated,
      chunk_size=parallel.chunk_size(size, model),
      max_steps=max(config.measured_at),
    )
    return state, measured(state.params)

  lengths = jnp.diff(jnp.array([0, 0, *config.measured_at]))
  start = training.init(data_key, model, optimizer)
  return jax.lax.scan(advance, start, lengths)[1]


def predictions(model, params, batch: Prompt):
  """Loss and law of each prompt, and the mean layer-1 maps."""

  def one(x_T, y_S):
    f_S, out = model.apply({"params": params}, x_T)
    return metrics.loss(f_S, y_S), f_S, out["attention_1"]

  loss_N, law_NxS, maps = jax.vmap(one)(batch.x_T, batch.y_S)
  return loss_N, law_NxS, maps.mean(axis=0)


def first_gradient(own: Prompt, is_own_N) -> jax.Array:
  """The sum of `information.label_score` over the prompts that are chosen."""
  gain_NxT, matches_NxT = jax.vmap(
    lambda x_T, y_S: information.label_factors(x_T, y_S, read_out="softmax")
  )(own.x_T, own.y_S)
  return (gain_NxT * is_own_N[:, None]).T @ matches_NxT


def summary(N: int | str, course: Course, steps: np.ndarray) -> list:
  """The cells of one N."""

  def end(values_GxM):
    return float(values_GxM[:, -1].mean())

  def error(values_GxM):
    return float(stats.sem(values_GxM[:, -1]))

  edges_M, excess_M = course.edges.mean(axis=0), course.excess.mean(axis=0)
  has_half_M = np.flip(np.logical_and.accumulate(np.flip(edges_M >= 0.5)))
  half = int(steps[has_half_M.argmax()]) if has_half_M.any() else None
  least = int(excess_M.argmin())
  gradient = course.one_gradient
  at_once = None, None
  if N != _FRESH:
    at_once = end(gradient), error(gradient)
  return [
    *(N, len(course.edges), *at_once),
    *(end(course.edges), error(course.edges), half),
    end(course.own_loss) if N != _FRESH else None,
    *(end(course.fresh_loss), end(course.excess), error(course.excess)),
    *(float(excess_M[least]), int(steps[least])),
    *(
      float(np.nanmean(course.weights[n][:, -1]))
      for n in phases.PREDICTORS[:-1]
    ),
  ]
