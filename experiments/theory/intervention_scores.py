"""The scores and closed forms of theory:interventions.

A design says which tokens are set: independent ones, for each of the shares;
exactly one token; or all roots.
"""

from typing import NamedTuple

import jax
from jax import numpy as jnp
import numpy as np

from experiments.theory import sample_curves
from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import information
from icl_causal.analysis import interventions
from icl_causal.analysis import likelihood
from icl_causal.analysis import samples
from icl_causal.config import build
from icl_causal.graphs import Graph

BEST = "best possible"
UNKNOWN = "best possible, set tokens unknown"
GRADIENT = "gradient, rows of set tokens dropped"
GRADIENT_UNKNOWN = "gradient, set tokens unknown"
METHODS = (BEST, UNKNOWN, GRADIENT, GRADIENT_UNKNOWN)


class Closed(NamedTuple):
  """The closed forms of a graph, averaged over kernels, by design.

  Attributes:
    B_DxTxT: `interventions.affinity`.
    margin_DxTxT: `interventions.margin`.
  """

  B_DxTxT: jax.Array
  margin_DxTxT: jax.Array


def graphs_of(config: build.Config, kind: str) -> list[Graph]:
  """The forests, or the chain once for each repetition."""
  if kind == "chain":
    return [graphs.chain(config.T)] * config.num_graphs
  setting = sample_curves.Setting(2, 1.0, config.T, config.num_graphs)
  return sample_curves.forests(config, setting)


def prompts(config: build.Config, S: int, graph: Graph, number, alpha):
  """N prompts of each design, N x D, which share kernels.

  Returns:
    `InterventionalPrompt` without a kernel for each design: N x (S+1) x S.
  """
  T, prior = config.T, priors.dirichlet(alpha)
  is_root_T = (graph.parents_TxK[:, 0] < 0).astype(float)
  share_QxT = jnp.tile(jnp.array(config.shares, float)[:, None], (1, T))

  def draw(key):
    one_key, key = jax.random.split(key)
    one_T = jax.nn.one_hot(jax.random.randint(one_key, (), 0, T - 1), T)
    share_DxT = jnp.concatenate([share_QxT, one_T[None], is_root_T[None]])
    batch = jax.vmap(
      lambda share_T: sampling.sample_interventional(
        key, graph, prior, S, share_T
      )
    )(share_DxT)
    return batch._replace(kernel=batch.kernel[0])

  key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
  return jax.vmap(draw)(jax.random.split(key, config.num_prompts[-1]))


def scores(config: build.Config, prompt, share) -> jax.Array:
  """`METHODS` on one prompt, M x T x T."""
  x_T, y_S, kernel, is_set_T = prompt
  mixed = interventions.mixed_kernel(kernel, share)
  best_TxT = likelihood.likelihood_score(x_T, kernel)
  gradient_TxT = information.label_score(x_T, y_S, config.epsilon)
  by_name = {
    BEST: interventions.drop_set_rows(best_TxT, is_set_T),
    UNKNOWN: likelihood.likelihood_score(x_T, mixed),
    GRADIENT: interventions.drop_set_rows(gradient_TxT, is_set_T),
    GRADIENT_UNKNOWN: gradient_TxT,
  }
  return jnp.stack([by_name[name] for name in METHODS])


def design_shares(config: build.Config) -> tuple[jax.Array, jax.Array]:
  """The probabilities that a child and that a root is set, by design."""
  shares = (*config.shares, 1 / (config.T - 1))
  return jnp.array([*shares, 0.0]), jnp.array([*shares, 1.0])


def measured(config: build.Config, S: int, graph: Graph, number, alpha):
  """The number of edges found, N x D x M."""
  grid_N = jnp.array((0, *config.num_prompts))
  batch = prompts(config, S, graph, number, alpha)
  share_D, _ = design_shares(config)
  D, T = len(share_D), config.T

  def add(n, total):
    x_DxT, y_DxS, kernel, is_set_DxT = jax.tree.map(lambda a: a[n], batch)

    def of_design(x_T, y_S, is_set_T, share):
      prompt = sampling.InterventionalPrompt(x_T, y_S, kernel, is_set_T)
      return scores(config, prompt, share)

    return total + jax.vmap(of_design)(x_DxT, y_DxS, is_set_DxT, share_D)

  def until(total, ends):
    total = jax.lax.fori_loop(ends[0], ends[1], add, total)
    hits = jax.vmap(jax.vmap(samples.hits, (0, None)), (0, None))
    return total, hits(total, graph).sum(axis=2)

  start = jnp.zeros((D, len(METHODS), T, T))
  return jax.lax.scan(until, start, (grid_N[:-1], grid_N[1:]))[1]


def closed_forms(config, S: int, num_kernels: int, graph: Graph, number, alpha):
  """`Closed` from kernels that no prompt has."""
  key = jax.random.fold_in(jax.random.key(config.seed + 2), number)
  prior, shares = priors.dirichlet(alpha), design_shares(config)

  def one(key):
    kernel = prior(key, S, 1)

    def of_design(share, root_share):
      P_TxTxSxS = interventions.pair_laws(graph, kernel, share, root_share)
      return Closed(
        interventions.affinity(P_TxTxSxS, kernel, share),
        interventions.margin(P_TxTxSxS, kernel, share),
      )

    return jax.vmap(of_design)(*shares)

  keys = jax.random.split(key, num_kernels)
  values = jax.lax.map(one, keys, batch_size=min(4, num_kernels))
  return jax.tree.map(lambda a: a.mean(axis=0), values)


def margins_of(graph: Graph, margin_DxTxT: np.ndarray) -> np.ndarray:
  """The margin of each edge over its best rival, for edges that have one."""
  margins = [
    np.delete(margin_DxTxT[:, p, :i], p, axis=1).min(axis=1)
    for i, p in graphs.edges(graph)
    if i > 1
  ]
  return np.reshape(margins, (-1, len(margin_DxTxT)))
