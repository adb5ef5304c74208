"""Baselines for prompts whose graph is drawn from a list.

All of them start from the predictor of each graph. If the kernel is known, it
is the law of the next token given its parents; if the rows of the kernel are
Dirichlet(alpha), it is the edge posterior. `law` is the kernel or alpha:

    kernel   (S+1,)*K + (S,)
    alpha    a number; exact if the root law is `root_law`, uniform or dirichlet

The probability of the tokens under a graph is the product of its predictions of
them, so the posterior of the graph has a closed form (D'Angelo et al., 2025,
for a known kernel; ours for a new one). The graphs are equally likely a priori.

Each function takes the tokens of one prompt and returns its value at the last
position, or with `every` at each position, from the tokens up to it.
"""

import chex
import jax
from jax import numpy as jnp

from icl_causal import graphs
from icl_causal import priors
from icl_causal import running
from icl_causal import sampling
from icl_causal.graphs import Graph

LEAST = 1e-20  # a probability below it counts as this one in a logarithm


def graph_posterior(
  x_T,
  graphs_M: Graph,
  law,
  S: int,
  root_law: priors.RootLaw = "uniform",
  every: bool = False,
) -> jax.Array:
  """The probability of each graph given the tokens: w_M, or w_TxM.

  Args:
    x_T: tokens.
    graphs_M: M graphs along a leading axis.
    law: the kernel, or alpha.
    S: number of states.
    root_law: of the prior, if `law` is alpha.
    every: whether to return the posterior after each position.
  """
  f_MxTxS = graph_predictions(x_T, graphs_M, law, S, root_law)
  w_TxM = jax.nn.softmax(_log_likelihoods(x_T, f_MxTxS).T)
  return w_TxM if every else w_TxM[-1]


def model_average(
  x_T,
  graphs_M: Graph,
  law,
  S: int,
  root_law: priors.RootLaw = "uniform",
  every: bool = False,
) -> jax.Array:
  """The Bayes predictor: the predictions of the graphs by their posterior.

  The arguments are those of `graph_posterior`. Returns f_S, or f_TxS.
  """
  f_MxTxS = graph_predictions(x_T, graphs_M, law, S, root_law)
  w_TxM = jax.nn.softmax(_log_likelihoods(x_T, f_MxTxS).T)
  f_TxS = jnp.einsum("tm,mts->ts", w_TxM, f_MxTxS, precision="highest")
  return f_TxS if every else f_TxS[-1]


def most_likely_graph(
  x_T,
  graphs_M: Graph,
  law,
  S: int,
  root_law: priors.RootLaw = "uniform",
  every: bool = False,
) -> jax.Array:
  """The prediction of the graph that is most likely; the first of several.

  The arguments are those of `graph_posterior`. Returns f_S, or f_TxS.
  """
  f_MxTxS = graph_predictions(x_T, graphs_M, law, S, root_law)
  best_T = _log_likelihoods(x_T, f_MxTxS).argmax(axis=0)
  f_TxS = f_MxTxS[best_T, jnp.arange(len(x_T))]
  return f_TxS if every else f_TxS[-1]


def even_mixture(
  x_T,
  graphs_M: Graph,
  law,
  S: int,
  root_law: priors.RootLaw = "uniform",
  every: bool = False,
) -> jax.Array:
  """The mean of the predictions of the graphs: the line to beat.

  The arguments are those of `graph_posterior`. Returns f_S, or f_TxS.
  """
  f_MxTxS = graph_predictions(x_T, graphs_M, law, S, root_law)
  f_TxS = f_MxTxS.mean(axis=0)
  return f_TxS if every else f_TxS[-1]


def logit_average(
  x_T,
  graphs_M: Graph,
  law,
  S: int,
  root_law: priors.RootLaw = "uniform",
  every: bool = False,
) -> jax.Array:
  """The softmax of the log-predictions, averaged by the posterior.

  What a softmax read-out computes if the last layer attends with the weights of
  the Bayes predictor and its values are log-probabilities. The Bayes predictor
  averages the probabilities. The arguments are those of `graph_posterior`.
  Returns f_S, or f_TxS.
  """
  f_MxTxS = graph_predictions(x_T, graphs_M, law, S, root_law)
  w_TxM = jax.nn.softmax(_log_likelihoods(x_T, f_MxTxS).T)
  log_f_MxTxS = jnp.log(jnp.maximum(f_MxTxS, LEAST))
  logits_TxS = jnp.einsum("tm,mts->ts", w_TxM, log_f_MxTxS, precision="highest")
  f_TxS = jax.nn.softmax(logits_TxS)
  return f_TxS if every else f_TxS[-1]


def selective(
  x_T,
  graphs_M: Graph,
  law,
  S: int,
  strength: float,
  mean: bool = False,
  root_law: priors.RootLaw = "uniform",
  every: bool = False,
) -> jax.Array:
  """The predictions of the graphs, weighted without their likelihoods.

  With f_im the probability of token i under graph m given the tokens before it,
  and q_im = f_im / sum_m f_im, the weight of graph m at position t is
  proportional to

      exp(strength * sum_{i <= t} q_im)               or, with `mean`,
      exp(strength / n_t * sum_{i <= t} q_im),

  where i runs over the n_t positions with a parent. The second is what the
  transformer of Proposition 1 of D'Angelo et al. (2025) computes; its strength
  is their beta. The first is ours: like the likelihood, it grows with the
  number of tokens. `constructions.selective` has both as parameters.

  Args:
    x_T: tokens.
    graphs_M: as for `graph_posterior`, with the same positions without parents.
    law: the kernel, or alpha.
    S: number of states.
    strength: of the weights; may be traced.
    mean: whether the sum is divided by the number of positions.
    root_law: of the prior, if `law` is alpha.
    every: whether to return f_TxS.

  Returns:
    f_S, or f_TxS.
  """
  f_MxTxS = graph_predictions(x_T, graphs_M, law, S, root_law)
  f_MxT = jnp.pad(
    f_MxTxS[:, jnp.arange(len(x_T) - 1), x_T[1:]], ((0, 0), (1, 0))
  )
  has_parent_T = (graphs_M.parents_TxK[0] != graphs.NO_PARENT).any(axis=1)
  q_MxT = jax.nn.softmax(jnp.log(jnp.maximum(f_MxT, LEAST)), axis=0)
  total_MxT = jnp.cumsum(q_MxT * has_parent_T[None], axis=1)
  if mean:
    total_MxT /= jnp.maximum(jnp.cumsum(has_parent_T), 1)[None]
  w_MxT = jax.nn.softmax(strength * total_MxT, axis=0)
  f_TxS = jnp.einsum("mt,mts->ts", w_MxT, f_MxTxS, precision="highest")
  return f_TxS if every else f_TxS[-1]


def graph_predictions(
  x_T, graphs_M: Graph, law, S: int, root_law: priors.RootLaw = "uniform"
) -> jax.Array:
  """The predictions of each graph at every position, M x T x S.

  The arguments are those of `graph_posterior`.

  Raises:
    ValueError: if `law` is alpha and the root law stationary, for which no
      closed form is known to us.
  """
  chex.assert_rank(list(graphs_M), [3, 2])
  if jnp.ndim(law):
    return jax.vmap(lambda graph: sampling.next_laws(x_T, graph, law))(graphs_M)
  if root_law == "stationary":
    raise ValueError(
      "the posterior of a graph has a closed form for root_law 'uniform' or "
      "'dirichlet', not 'stationary'"
    )
  return jax.vmap(
    lambda graph: running.edge_posterior(x_T, graph, law, S, root_law)
  )(graphs_M)


def _log_likelihoods(x_T, f_MxTxS) -> jax.Array:
  """The log-probability of the tokens up to each position, M x T, in nats.

  Without the first token, which is a root in every graph.
  """
  log_f_MxT = jnp.log(f_MxTxS[:, jnp.arange(len(x_T) - 1), x_T[1:]])
  return jnp.pad(jnp.cumsum(log_f_MxT, axis=1), ((0, 0), (1, 0)))
