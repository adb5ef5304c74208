"""Checks of the theory: information, the gradient at the start, false parents.

Each takes a config of configs/theory.py and returns a `Check`.
"""

import functools
from typing import NamedTuple

import jax
from jax import numpy as jnp
from matplotlib.figure import Figure
import numpy as np
from scipy import stats

from configs import two_stage
from experiments import analyze
from experiments import build
from experiments import forests
from icl_causal import graphs
from icl_causal import information
from icl_causal import models
from icl_causal import plotting
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.graphs import Graph


class Check(NamedTuple):
  """What a check found.

  Attributes:
    header: of the table.
    rows: of the table, as numbers and words.
    figure: or None.
  """

  header: list[str]
  rows: list[list]
  figure: Figure | None


def information_of_forests(config: build.Config) -> Check:
  """Row argmax and data processing, exact, in float64."""
  prior, T = priors.dirichlet(config.alpha), config.T
  kinds = ("shannon", "chi2")

  def measure(key, S: int):
    graph_key, kernel_key = jax.random.split(key)
    graph = graphs.random_forest(graph_key, T, config.root_probability)
    return graph, [
      information.expected(
        kernel_key, graph, prior, S, kind, config.num_kernels
      )[0]
      for kind in kinds
    ]

  rows = []
  with jax.enable_x64(True):
    for S in config.S:
      key = jax.random.fold_in(jax.random.key(config.seed), S)
      keys = jax.random.split(key, config.num_forests // len(config.S))
      many = jax.jit(
        functools.partial(jax.lax.map, functools.partial(measure, S=S))
      )
      batch, matrices = jax.tree.map(np.asarray, many(keys))
      for kind, I_GxTxT in zip(kinds, matrices, strict=True):
        rows.append([S, kind, *count_argmax(batch, I_GxTxT, config.tolerance)])
  total = np.array([row[2:] for row in rows])
  rows.append(["all", "both", *total.sum(axis=0).tolist()])
  header = ["S", "kind", "forests", "edges", "argmax", "violations"]
  return Check(header, rows, None)


def count_argmax(batch: Graph, I_GxTxT, tolerance: float) -> list[int]:
  """Forests, edges, edges that are the top of their row, violations."""
  edges = top = violations = 0
  for g, I_TxT in enumerate(I_GxTxT):
    graph = Graph(*(rows[g] for rows in batch))
    violations += len(
      information.data_processing_violations(I_TxT, graph, tolerance)
    )
    for child, parent in graphs.edges(graph):
      edges += 1
      top += int(I_TxT[child, :child].argmax() == parent)
  return [len(I_GxTxT), edges, top, violations]


def gradient_at_the_start(config: build.Config) -> Check:
  """The gradient of the reduced model against its closed form."""
  found = {}
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
            found[case, name, T] = analyze.fit(
              measured, error, predicted, graph
            )
  rows, curves = [], {}
  for case in config.cases:
    for name in ("chain", "forest"):
      fits = [found[case, name, T] for T in config.T]
      rows += [
        [*case, name, T, f"{fit.recovered} of {fit.edges}", *fit[:3]]
        for T, fit in zip(config.T, fits, strict=True)
      ]
      label = "{}: S = {}, alpha = {}, eps = {}".format(name, *case)
      curves[label] = [1 - fit.correlation for fit in fits]
  header = ["S", "alpha", "epsilon", "graph", "T", "argmax"]
  header += ["correlation", "slope", "noise"]
  figure = plotting.decay(
    config.T, curves, "T", "1 - correlation with the closed form"
  )
  return Check(header, rows, figure)


def _start(config: build.Config, S: int, graph: Graph, alpha, epsilon, key):
  """Measured -dL/dA1, its standard error, and the closed form."""
  T, prior = graph.parents_TxK.shape[0], priors.dirichlet(alpha)
  model = models.Reduced(S, T, config.matching)
  kernel_key, data_key = jax.random.split(key)

  def draw(key):
    return sampling.sample_batch(key, graph, prior, S, config.batch_size)

  R_TxT, _ = information.expected(
    kernel_key,
    graph,
    prior,
    S,
    functools.partial(information.gradient_score, epsilon=epsilon),
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
  predicted = information.start_gradient(R_TxT, config.matching, S)
  return jnp.tril(-mean["A1"]), error["A1"], predicted


def estimates(config: build.Config) -> Check:
  """Estimates given the kernel against exact information, pair by pair."""
  graph = graphs.random_forest(
    jax.random.key(config.seed), config.T, config.root_probability
  )
  pairs = np.tril_indices(config.T - 1, -1)
  keys = jax.random.split(jax.random.key(config.seed + 1), config.num_kernels)
  rows = []
  for alpha, gamma in config.priors:
    prior = priors.floored_dirichlet(alpha, gamma)
    for kind in ("shannon", "chi2"):
      one = functools.partial(_estimate_gaps, config, graph, prior, kind)
      gaps = jax.jit(functools.partial(jax.lax.map, one))(keys)
      for name, gap_RxTxT in zip(("plug-in", "corrected"), gaps, strict=True):
        gap_RxP = np.asarray(gap_RxTxT)[:, *pairs]
        z_P = gap_RxP.mean(0) / stats.sem(gap_RxP)
        largest, beyond = np.abs(z_P).max(), (np.abs(z_P) > 3).sum()
        error = float(gap_RxP.mean())
        rows.append(
          [
            *(alpha, gamma, kind, name),
            *(error, float(largest), int(beyond), z_P.size),
          ]
        )
  header = ["alpha", "gamma", "kind", "estimate", "mean error"]
  header += ["largest |z|", "beyond 3", "of pairs"]
  return Check(header, rows, None)


def _estimate_gaps(config: build.Config, graph: Graph, prior, kind, key):
  """Plug-in and corrected estimate less the exact matrix, of one kernel."""
  kernel_key, draw_key = jax.random.split(key)
  kernel = prior(kernel_key, config.S, 1)
  x_NxT = sampling.sample_batch(
    draw_key, graph, priors.fixed(kernel), config.S, config.num_sequences
  ).x_T
  matrix = information.chi2 if kind == "chi2" else information.shannon
  exact_TxT = matrix(information.pair_laws(graph, kernel))
  return tuple(
    information.estimate(x_NxT, config.S, kind, correct) - exact_TxT
    for correct in (False, True)
  )


def roots(config: build.Config) -> Check:
  """Roots with a false parent, by T, by batch size, on the same graphs."""
  rows = []
  shared = min(config.T) - 1
  for alpha, gamma in config.priors:
    for T in config.T:
      before = None
      for batch_size in config.batch_size:
        found = forests.count(
          forests.train(
            _forest_config(config, alpha, gamma, T, batch_size),
            config.num_graphs,
            parallel=1,
          )
        )
        false = {tuple(edge) for edge in found["false_edges"]}
        early = sum(found["false_parents_by_position"][:shared])
        early_roots = sum(found["roots_by_position"][:shared])
        again = "-" if before is None else f"{len(before & false)}"
        rows.append(
          [
            *(alpha, gamma, T, batch_size),
            f"{found['edges_recovered']} of {found['edges']}",
            found["parent_attention_mean"],
            f"{found['false_parents']} of {found['roots']}",
            f"{early} of {early_roots}",
            again,
          ]
        )
        before = false
  header = ["alpha", "gamma", "T", "batch", "edges", "attention"]
  header += ["false parents", f"of rows < {shared}", "same as above"]
  return Check(header, rows, None)


def _forest_config(config: build.Config, alpha, gamma, T: int, batch_size: int):
  """The recipe of configs/two_stage.py; its rate of stage 1 grows with T."""
  full: build.Config = two_stage.get_config("forest")
  full.seed = full.graph.seed = config.seed
  full.prior.update({"S": config.S, "alpha": alpha})
  full.prior.name, full.prior.gamma = "floored_dirichlet", gamma
  full.eval.posterior_prompts = 0
  full.train.learning_rate *= T / full.graph.T
  full.graph.T, full.train.batch_size = T, batch_size
  # Stage 2 doesn't change layer 1, which is all that is looked at.
  full.train.steps = full.train.eval_every = full.train.first_steps
  full.eval.test_size = full.eval.batch_size
  build.check(full)
  return full
