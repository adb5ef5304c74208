"""The key lemma on data: the gradient at the start is largest at the parent.

The lemma is about row i of -dL/dA1 at A1 = 0 and A2 = beta0 * I, for a position
i with a parent. In closed form (`analysis.gradient.start_gradient`, ours), the
entry j <= i increases with a score R_ij:
- at the parent, R is the chi-squared information of child and parent given the
  kernel, E chi2, and by data processing no other j < i has more;
- on the diagonal, R is E sum_s P(s_i = s) pi(s|s) / mu(s) - 1, which is
  E trace(pi) - 1. It is not the information of a token with itself, S - 1.

The theory assumes a constant mean, E pi = 1/S. Then R is 0 on the diagonal, and
the parent is the largest entry j <= i if E chi2 > 0. Without this assumption
the diagonal can win: a prior that mixes kernels with the identity, with weight
`stay`, has R = stay (S - 1) on the diagonal. Both versions are counted: the
largest entry j < i, and the largest entry j <= i.

Gradients are measured on fresh prompts, for random forests and for the chain. A
row is wrong if its largest entry j <= i is not the parent. It is wrong beyond
noise if that entry exceeds the parent's by more than two standard errors of
their difference, over batches. Shares and their standard errors are over
graphs, for the chain over data sets. Three minutes.
"""

import functools
from typing import NamedTuple

import jax
from jax import numpy as jnp
import numpy as np
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal import models
from icl_causal import parallel
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import gradient
from icl_causal.analysis import information
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph

FIELDS = {
  "T": fields.at_least(3),
  # (S, alpha, gamma, stay)
  "cases": fields.tuple_of(
    (fields.at_least(2), fields.ALPHA, fields.SHARE, fields.SHARE)
  ),
  "beta0": fields.POSITIVE,
  "epsilon": fields.NOT_NEGATIVE,
  "root_probability": fields.SHARE,
  "num_graphs": fields.at_least(2),
  "num_batches": fields.at_least(2),
  "batch_size": fields.at_least(1),
  "num_kernels": fields.at_least(2),
}

_AT_ONCE = 4  # graphs per device


class Rows(NamedTuple):
  """The rows of one graph that have a parent.

  Attributes:
    before: whether the parent is the largest entry j < i.
    including: whether the parent is the largest entry j <= i.
    z: the parent's entry minus the largest other entry j <= i, in standard
      errors of the difference.
  """

  before: np.ndarray
  including: np.ndarray
  z: np.ndarray


def check(config: build.Config) -> Outcome:
  """Shares of rows whose largest entry is the parent, by prior and graph."""
  T, seed, num = config.T, config.seed, config.num_graphs
  keys = jax.random.split(jax.random.key(seed), num)
  forests = [graphs.random_forest(k, T, config.root_probability) for k in keys]
  graphs_of = {"forests": forests, "chain": [graphs.chain(T)] * num}
  mesh, rows, mapped = parallel.runs_mesh(), [], {}
  for S in sorted({case[0] for case in config.cases}):
    measure = functools.partial(start_gradients, config, S)
    mapped[S] = jax.jit(parallel.over_runs(measure, mesh, _AT_ONCE))
  for S, *of_prior in config.cases:
    parent, diagonal = scores(config, S, *of_prior)
    arguments = np.array(of_prior, np.float32)
    for name, of_name in graphs_of.items():
      numbered = [
        (graph, np.int32(r), arguments) for r, graph in enumerate(of_name)
      ]
      stacked = parallel.stack(numbered, mesh, _AT_ONCE)
      by_graph = np.asarray(mapped[S](*stacked))
      by_row = [
        compare(*pair) for pair in zip(by_graph[:num], of_name, strict=True)
      ]
      by_row = [each for each in by_row if len(each.z)]
      z = np.concatenate([each.z for each in by_row])
      row = [S, *of_prior, name, len(by_row), len(z)]
      for field in ("before", "including"):
        shares = [float(np.mean(getattr(each, field))) for each in by_row]
        row += [float(np.mean(shares)), float(stats.sem(shares))]
      row += [int((z < 0).sum()), int((z < -2).sum()), float(z.min())]
      rows.append([*row, parent, diagonal])
  header = ["S", "alpha", "gamma", "stay", "graph", "graphs", "rows"]
  header += ["share, j < i", "error, j < i", "share, j <= i", "error, j <= i"]
  header += ["wrong", "wrong beyond noise", "least z"]
  return Outcome([*header, "R at the parent", "R on the diagonal"], rows, None)


def sticky(alpha, gamma, stay) -> priors.Prior:
  """Floored Dirichlet kernels, mixed with the identity with weight `stay`."""
  floored = priors.floored_dirichlet(alpha, gamma)

  def prior(key, S, K):
    pi_SxS = (1 - stay) * floored(key, S, K)[:S] + stay * jnp.eye(S)
    return jnp.concatenate([pi_SxS, priors.stationary(pi_SxS)[None]])

  return prior


def start_gradients(
  config: build.Config, S: int, graph: Graph, number, of_prior
):
  """-dL/dA1 at the start, batch by batch: num_batches x T x T.

  Args:
    config: of the check.
    S: number of states.
    graph: over T positions.
    number: of the graph, which determines the key of its prompts.
    of_prior: alpha, gamma and stay.
  """
  prior = sticky(*of_prior)
  model = models.Reduced(S, config.T, config.beta0)
  key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
  params = model.init(key, jnp.zeros(config.T, jnp.int32))["params"]

  def of_batch(key):
    batch = sampling.sample_batch(key, graph, prior, S, config.batch_size)
    _, slopes = training.loss_and_gradient(params, batch, model, config.epsilon)
    return -slopes["A1"]

  return jax.lax.map(of_batch, jax.random.split(key, config.num_batches))


def compare(gradient_BxTxT, graph: Graph) -> Rows:
  """Compares the parent's entry with the others, row by row."""
  before, including, z = [], [], []
  for child, parent in graphs.edges(graph):
    entries = np.asarray(gradient_BxTxT[:, child, : child + 1], np.float64)
    mean = entries.mean(axis=0)
    before.append(mean[:child].argmax() == parent)
    including.append(mean.argmax() == parent)
    rival = np.where(np.arange(child + 1) == parent, -np.inf, mean).argmax()
    gap = entries[:, parent] - entries[:, rival]
    z.append(gap.mean() / stats.sem(gap))
  return Rows(np.array(before), np.array(including), np.array(z))


def scores(config: build.Config, S: int, *of_prior) -> tuple[float, float]:
  """The score R of an edge for epsilon = 0, at the parent and on the diagonal.

  That is, E chi2 and E trace(pi) - 1.
  """
  R_TxT, _ = information.expected(
    jax.random.key(config.seed + 2),
    graphs.from_parents([-1, 0, -1]),
    sticky(*of_prior),
    S,
    gradient.gradient_score,
    config.num_kernels,
  )
  return float(R_TxT[1, 0]), float(R_TxT[1, 1])
