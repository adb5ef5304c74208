"""The exact posterior against slow references, prompt by prompt.

Two states are integrated over both rows; for more, a million kernels are
sampled. The mean of 64 draws is compared, in standard errors of the difference.
Ten minutes.
"""

from typing import NamedTuple

import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
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
    (fields.at_least(2), fields.at_least(2), fields.at_least(2))
  ),
  "reference_samples": fields.at_least(_AT_ONCE),
}


class Posterior(NamedTuple):
  """A posterior mean, and the standard error of each of its entries."""

  f_S: np.ndarray
  error_S: np.ndarray


def check(config: build.Config) -> Outcome:
  """Means of `bayes.exact_posterior` against slow references, by case."""
  rows = []
  for S, num_prompts, num_samples in config.cases:
    graph_key, test_key, key = jax.random.split(jax.random.key(config.seed), 3)
    graph = graphs.random_forest(graph_key, config.T, config.root_probability)
    prior = priors.dirichlet(config.alpha)
    test = sampling.sample_batch(test_key, graph, prior, S, num_prompts)
    estimates = _estimated(key, test.x_T, graph, config.alpha, S, num_samples)
    if S == 2:
      references, name = _integrated(test.x_T, graph, config.alpha), "integral"
    else:
      references = _sampled(
        key, test.x_T, graph, config.alpha, S, config.reference_samples
      )
      name = f"{config.reference_samples} samples"
    deviations = _deviations(
      estimates, references, test.x_T, test.y_S, graph, config.alpha
    )
    rows.append([S, name, num_prompts, num_samples, *deviations])
  header = ["S", "reference", "prompts", "samples"]
  header += ["largest z", "beyond 3", "of", "loss - reference", "std. error"]
  return Outcome([*header, "edges - reference"], rows, None)


def _deviations(
  estimates, references, x_NxT, y_NxS, graph: Graph, alpha
) -> list:
  """Deviations in standard errors; losses in nats."""
  z, losses, edge_losses = [], [], []
  for estimate, reference, x_T, y_S in zip(
    estimates, references, x_NxT, y_NxS, strict=True
  ):
    error_S = np.hypot(estimate.error_S, reference.error_S)
    z.append(((estimate.f_S - reference.f_S) / np.maximum(error_S, 1e-6))[:-1])
    best = float(metrics.loss(jnp.asarray(reference.f_S), y_S))
    losses.append(float(metrics.loss(jnp.asarray(estimate.f_S), y_S)) - best)
    edge_S = bayes.edge_posterior(x_T, graph, alpha, y_S.size)
    edge_losses.append(float(metrics.loss(edge_S, y_S)) - best)
  z = np.abs(np.concatenate(z))
  mean, error = metrics.mean_and_standard_error(np.array(losses))
  beyond = int((z > 3).sum())
  edge_gap = float(np.mean(edge_losses))
  return [float(z.max()), beyond, z.size, mean, error, edge_gap]


def _estimated(key, x_NxT, graph: Graph, alpha, S: int, num_samples: int):
  """The mean of several draws of `bayes.exact_posterior`, with its error."""

  @jax.jit
  def estimates(key, x_T):
    return jax.lax.map(
      lambda key: bayes.exact_posterior(key, x_T, graph, alpha, S, num_samples)[
        0
      ],
      jax.random.split(key, _REPEATS),
    )

  posteriors = []
  for n, x_T in enumerate(x_NxT):
    f_RxS = np.asarray(estimates(jax.random.fold_in(key, n), x_T), float)
    error_S = f_RxS.std(axis=0, ddof=1) / _REPEATS**0.5
    posteriors.append(Posterior(f_RxS.mean(axis=0), error_S))
  return posteriors


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
  parents_T = graph.parents_TxK[:, 0]
  is_root_T = (parents_T < 0) & (
    jnp.arange(len(parents_T)) < len(parents_T) - 1
  )

  @jax.jit
  def sums(key, x_T):
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
      weight = jnp.exp(special.xlogy(roots_S[None], mu).sum(axis=1))
      row = pi[:, x_T[-1]]
      squared = weight**2
      return (
        weight.sum(),
        weight @ row,
        squared.sum(),
        squared @ row,
        (squared @ row**2),
      )

    return jax.lax.map(chunk, jax.random.split(key, num_samples // _AT_ONCE))

  posteriors = []
  for n, x_T in enumerate(x_NxT):
    # In float64, because the spread is a difference of sums.
    w, wr, ww, wwr, wwrr = (
      np.asarray(a, float).sum(axis=0)
      for a in sums(jax.random.fold_in(key, n), x_T)
    )
    mean = wr / w
    spread = np.maximum(wwrr - 2 * mean * wwr + mean**2 * ww, 0)
    posteriors.append(Posterior(mean, np.sqrt(spread) / w))
  return posteriors
