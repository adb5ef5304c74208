"""Baselines for prompts whose kernel is drawn from a list (`priors.pool`).

If the list is short, a predictor that knows it need not learn from the prompt
how tokens follow each other. It has to recognise the kernel. With the two
predictors in `bayes` that know no kernel, there are four ways to predict, by
what is used of the prompt and whether kernels are memorised. They are the four
phases of Gibson, Cui and Reddy (2026):

                       tokens (1-point)        edges (2-point)
    memorises kernels  `unigram_retrieval`     `retrieval`
    generalises        `bayes.unigram`         `bayes.edge_posterior`

Kernels have a leading axis of M, and each has the same probability.
"""

import chex
import jax
from jax import numpy as jnp

from icl_causal import graphs
from icl_causal import sampling
from icl_causal import tokens
from icl_causal.graphs import Graph

# The floor of a probability in a likelihood. It only decides between kernels
# that all exclude the prompt.
_FLOOR = 1e-30


def retrieval(x_T, graph: Graph, kernels) -> tuple[jax.Array, jax.Array]:
  """The Bayes predictor: the target's law under each kernel, by its posterior.

      w_m ~ prod_i kernel_m[row_i, s_i],  f = sum_m w_m kernel_m[target's row]

  A root reads the row [S, .., S] of the table, and the query is left out. So
  this is exact for every root law, the stationary one included. Ours, after
  Park et al. (2025).

  A kernel that is not in the list has no weight. If all kernels exclude the
  prompt, those with the fewest impossible tokens have it, and f may be 0 for a
  state that follows.

  Args:
    x_T: tokens.
    graph: over T positions.
    kernels: M x (S+1) x .. x S.

  Returns:
    (f_S, w_M).
  """
  law_MxS, log_weight_M = explained(x_T, graph, kernels)
  return _mean(law_MxS, log_weight_M)


def unigram_retrieval(x_T, graph: Graph, kernels):
  """Retrieval by the tokens alone: their order and the edges do not matter.

      w_m ~ prod_i mu_m(s_i),  f = sum_m w_m kernel_m[target's row],

  with mu_m the root law of kernel m, and without the query. Of the graph, only
  the parents of the target are used.

  Args:
    x_T: tokens.
    graph: over T positions.
    kernels: M x (S+1) x .. x S.

  Returns:
    (f_S, w_M).
  """
  law_MxS, _ = explained(x_T, graph, kernels)
  mu_MxS = kernels.reshape(len(kernels), -1, kernels.shape[-1])[:, -1]
  return _mean(law_MxS, _log_probability(mu_MxS[:, x_T], graph))


def explained(x_T, graph: Graph, kernels) -> tuple[jax.Array, jax.Array]:
  """The target's law under each kernel, and the log-probability of the tokens.

  Args:
    x_T: tokens.
    graph: over T positions.
    kernels: M x (S+1) x .. x S.

  Returns:
    (law_MxS, log_probability_M), the latter in nats and without the query.
  """
  S, (T, K) = kernels.shape[-1], graph.parents_TxK.shape
  sampling.check_tokens(x_T, S, T)
  chex.assert_shape(kernels, (None, *(S + 1,) * K, S))
  laws_MxRxS = kernels.reshape(len(kernels), -1, S)
  rows_T = tokens.table_row(x_T, graph.parents_TxK, S)
  target = tokens.table_row(x_T, graph.target_K, S)
  p_MxT = laws_MxRxS[:, rows_T, x_T]
  return laws_MxRxS[:, target], _log_probability(p_MxT, graph)


def _log_probability(p_MxT, graph: Graph) -> jax.Array:
  log_MxT = jnp.log(jnp.maximum(p_MxT, _FLOOR))
  return jnp.where(graphs.is_query(graph)[None], 0, log_MxT).sum(axis=1)


def _mean(law_MxS, log_weight_M) -> tuple[jax.Array, jax.Array]:
  w_M = jax.nn.softmax(log_weight_M)
  return jnp.matmul(w_M, law_MxS, precision="highest"), w_M
