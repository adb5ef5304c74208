"""The exact posterior against slow references, prompt by prompt.

Two states are integrated over both rows; for more, a million kernels are
sampled. The mean of 64 draws is compared, in standard errors z of the
difference. A draw is biased, because it is a ratio. z is that of the corrected
draw, twice the estimate from all samples minus the mean of its halves. If the
correction and the errors are right, the mean of z^2 is 1. Each key has a graph
and prompts. The standard error of z^2 is over keys. Ten minutes.
"""

import functools
from typing import NamedTuple

import jax
from jax import numpy as jnp
from jax.scipy import special as jax_special
import numpy as np
from scipy import special
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import bayes
from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph

_REPEATS = 64  # enough for a precise estimate of their spread
_AT_ONCE = 2**12

FIELDS = {
  "T": fields.at_least(3),
  "alpha": fields.ALPHA,
  "root_probability": fields.SHARE,
  "cases": fields.tuple_of(
    (fields.at_least(2), *[fields.at_least(1)] * 2, fields.at_least(2))
  ),
  "reference_samples": fields.at_least(_AT_ONCE),
}


class Posterior(NamedTuple):
  """A posterior mean, and the standard error of each of its entries."""

  f_S: np.ndarray
  error_S: np.ndarray


class Comparison(NamedTuple):
  """The deviations of one key.

  Attributes:
    z_M: deviations in standard errors, of all entries but the last of each law.
    loss: the loss of a single estimate minus that of the reference, in nats.
    bias: the same, as the halves of the samples estimate it.
    edge_loss: the loss of the edge posterior minus that of the reference.
  """

  z_M: np.ndarray
  loss: float
  bias: float
  edge_loss: float


def check(config: build.Config) -> Outcome:
  """Draws of `bayes.dirichlet_posterior` against slow references, by case."""
  rows = []
  for S, num_keys, num_prompts, num_samples in config.cases:
    key = jax.random.fold_in(jax.random.key(config.seed), S)
    found = [
      compare(jax.random.fold_in(key, k), config, S, num_prompts, num_samples)
      for k in range(num_keys)
    ]
    squares = [float((one.z_M**2).mean()) for one in found]
    z_M = np.abs(np.concatenate([one.z_M for one in found]))
    error = None if num_keys == 1 else float(stats.sem(squares))
    rows.append(
      [
        *(S, num_keys, num_prompts, num_samples),
        *(float(np.mean(squares)), error),
        *(float(z_M.max()), int((z_M > 3).sum()), z_M.size),
        float(np.mean([one.loss for one in found])),
        float(np.mean([one.bias for one in found])),
        float(np.mean([one.edge_loss for one in found])),
      ]
    )
  header = ["S", "keys", "prompts", "samples", "mean z^2", "std. error"]
  header += ["largest z", "beyond 3", "of", "loss - reference"]
  return Outcome([*header, "estimated bias", "edges - reference"], rows, None)


def compare(
  key, config: build.Config, S: int, num_prompts: int, num_samples: int
) -> Comparison:
  """The deviations on the graph and the prompts of a key."""
  graph_key, test_key, key = jax.random.split(key, 3)
  graph = graphs.random_forest(graph_key, config.T, config.root_probability)
  alpha = config.alpha
  batch = sampling.sample_batch(
    test_key, graph, priors.dirichlet(alpha), S, num_prompts
  )
  if S == 2:
    references = _integrated(batch.x_T, graph, alpha)
  else:
    references = _sampled(
      key, batch.x_T, graph, alpha, S, config.reference_samples
    )
  draws = _draws(key, batch.x_T, graph, alpha, S, num_samples)
  z, losses = [], []
  for (f_RxS, half_Rx2xS), reference, x_T, y_S in zip(
    draws, references, batch.x_T, np.asarray(batch.y_S, float), strict=True
  ):
    corrected_RxS = 2 * f_RxS - half_Rx2xS.mean(axis=1)
    error_S = np.hypot(stats.sem(corrected_RxS), reference.error_S)
    deviation_S = corrected_RxS.mean(axis=0) - reference.f_S
    z.append((deviation_S / np.maximum(error_S, 1e-6))[:-1])
    best = _loss(reference.f_S, y_S)
    loss = _loss(f_RxS, y_S).mean()
    edge_S = np.asarray(bayes.edge_posterior(x_T, graph, alpha, S))
    bias = _loss(half_Rx2xS, y_S).mean() - loss
    losses.append((loss - best, bias, _loss(edge_S, y_S) - best))
  return Comparison(np.concatenate(z), *np.mean(losses, axis=0).tolist())


def _loss(f, y_S):
  """The losses of laws along the last axis, in nats."""
  return -special.xlogy(y_S, f).sum(axis=-1)


def _draws(key, x_NxT, graph: Graph, alpha, S: int, num_samples: int):
  """For each prompt, R estimates R x S and their halves R x 2 x S."""
  return [
    tuple(
      np.asarray(leaf, float)
      for leaf in _draws_of_prompt(
        jax.random.fold_in(key, n), x_T, graph, alpha, S, num_samples
      )
    )
    for n, x_T in enumerate(x_NxT)
  ]


@functools.partial(jax.jit, static_argnames=("S", "num_samples"))
def _draws_of_prompt(key, x_T, graph, alpha, S, num_samples):
  def draw(key):
    estimate = bayes.dirichlet_posterior(key, x_T, graph, alpha, S, num_samples)
    return estimate[:2]

  return jax.lax.map(draw, jax.random.split(key, _REPEATS))


def _integrated(x_NxT, graph: Graph, alpha, size: int = 1000):
  """For S = 2: integrates both rows on a grid of quantiles of their prior."""
  middles = (np.arange(size) + 0.5) / size
  one = stats.beta(alpha, alpha).ppf(middles)
  log_one = np.log(np.maximum(one, 1e-300))
  log_zero = log_one[::-1]  # the prior is symmetric
  up, down = one[:, None], one[None]  # P(0 -> 1), P(1 -> 0)
  total = np.maximum(up + down, 1e-300)
  log_mu = np.log(np.maximum(np.stack([down / total, up / total]), 1e-300))
  log_pi = {
    (0, 0): log_zero[:, None],
    (0, 1): log_one[:, None],
    (1, 0): log_one[None],
    (1, 1): log_zero[None],
  }
  parent_of = {child: parent for child, parent in graphs.edges(graph)}
  posteriors = []
  for x_T in np.asarray(x_NxT):
    log_weight = np.zeros((size, size))
    for i, x in enumerate(x_T[:-1]):
      parent = parent_of.get(i)
      term = log_mu[x] if parent is None else log_pi[x_T[parent], x]
      log_weight = log_weight + term
    weight = np.exp(log_weight - log_weight.max())
    mean = (weight * np.exp(log_pi[x_T[-1], 1])).sum() / weight.sum()
    posteriors.append(Posterior(np.array([1 - mean, mean]), np.zeros(2)))
  return posteriors


def _sampled(key, x_NxT, graph: Graph, alpha, S: int, num_samples: int):
  """Samples kernels given the edges, weighted by the likelihood of roots."""
  posteriors = []
  for n, x_T in enumerate(x_NxT):
    # In float64, because the spread is a difference of sums.
    w, wr, ww, wwr, wwrr = (
      np.asarray(a, float).sum(axis=0)
      for a in _sums_of_prompt(
        jax.random.fold_in(key, n), x_T, graph, alpha, S, num_samples
      )
    )
    mean = wr / w
    spread = np.maximum(wwrr - 2 * mean * wwr + mean**2 * ww, 0)
    posteriors.append(Posterior(mean, np.sqrt(spread) / w))
  return posteriors


@functools.partial(jax.jit, static_argnames=("S", "num_samples"))
def _sums_of_prompt(key, x_T, graph, alpha, S, num_samples):
  """Sums over kernels of weights, times rows, and of their squares."""
  parents_T = graph.parents_TxK[:, 0]
  is_root_T = (parents_T < 0) & (
    jnp.arange(len(parents_T)) < len(parents_T) - 1
  )
  seen_TxSxS = (
    jax.nn.one_hot(x_T[parents_T], S)[:, :, None]
    * jax.nn.one_hot(x_T, S)[:, None]
    * (parents_T >= 0)[:, None, None]
  )
  counts_SxS = alpha + seen_TxSxS.sum(axis=0)
  roots_S = (jax.nn.one_hot(x_T, S) * is_root_T[:, None]).sum(axis=0)

  def chunk(key):
    pi = jax.random.dirichlet(key, counts_SxS, (_AT_ONCE, S))
    mu = jax.vmap(priors.stationary)(pi)
    weight = jnp.exp(jax_special.xlogy(roots_S[None], mu).sum(axis=1))
    row, squared = pi[:, x_T[-1]], weight**2
    sums = weight.sum(), weight @ row
    return *sums, squared.sum(), squared @ row, squared @ row**2

  return jax.lax.map(chunk, jax.random.split(key, num_samples // _AT_ONCE))
