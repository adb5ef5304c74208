"""Information estimated from sequences of one kernel against exact values.

With and without bias correction, over kernels of several priors. One minute.
"""

import functools

import jax
import numpy as np
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import estimators
from icl_causal.analysis import information
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph

FIELDS = {
  "T": fields.at_least(3),
  "S": fields.at_least(2),
  "root_probability": fields.SHARE,
  "priors": fields.tuple_of((fields.ALPHA, fields.SHARE)),
  "num_kernels": fields.at_least(2),
  "num_sequences": fields.at_least(2),
}

_MEASURES = {"shannon": information.shannon, "chi2": information.chi2}


def check(config: build.Config) -> Outcome:
  """Estimates given the kernel against exact information, pair by pair."""
  graph = graphs.random_forest(
    jax.random.key(config.seed), config.T, config.root_probability
  )
  pairs = np.tril_indices(config.T - 1, -1)
  keys = jax.random.split(jax.random.key(config.seed + 1), config.num_kernels)
  rows = []
  for alpha, gamma in config.priors:
    prior = priors.floored_dirichlet(alpha, gamma)
    for kind, measure in _MEASURES.items():
      one = functools.partial(_gaps, config, graph, prior, measure)
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
  return Outcome(header, rows, None)


def _gaps(
  config: build.Config, graph: Graph, prior, measure: estimators.Measure, key
):
  """Plug-in and corrected estimate minus the exact matrix, for one kernel."""
  kernel_key, draw_key = jax.random.split(key)
  kernel = prior(kernel_key, config.S, 1)
  x_NxT = sampling.sample_batch(
    draw_key, graph, priors.fixed(kernel), config.S, config.num_sequences
  ).x_T
  exact_TxT = measure(information.pair_laws(graph, kernel))
  return tuple(
    estimators.pooled(x_NxT, config.S, measure, correct) - exact_TxT
    for correct in (False, True)
  )
