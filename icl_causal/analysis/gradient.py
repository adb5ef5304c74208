"""The gradient of layer 1 at the start of training, in closed form.

The key lemma of the paper: the gradient of A1 at the start is the chi-squared
information of the tokens given the kernel, averaged over kernels. Matrices are
T x T, with row i for the token s_i and column j for a candidate parent s_j.
"""

from typing import Literal, NamedTuple

import chex
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal.analysis import information
from icl_causal.analysis import recovery
from icl_causal.graphs import Graph


class Fit(NamedTuple):
  """A measured gradient compared with the closed form, in rows with a parent.

  Attributes:
    correlation: between measured and predicted entries j <= i; None if either
      of them is constant.
    slope: of measured on predicted, through the origin; None likewise.
    noise: the mean standard error of the measured entries, divided by their
      standard deviation; None likewise.
    edges: number of edges of the graph.
    recovered: number of edges that are the top entry j <= i of their row,
      the diagonal included.
  """

  correlation: float | None
  slope: float | None
  noise: float | None
  edges: int
  recovered: int


def gradient_score(
  graph: Graph,
  kernel,
  epsilon=0.0,
  read_out: Literal["linear", "softmax"] = "linear",
) -> jax.Array:
  """The score of each pair that determines the gradient at the start.

  For a linear read-out and a given kernel,

    R_ij = sum P(s_j = s, s_i = s') pi(s'|s) / (mu(s') + epsilon) - 1,

  where mu is the law of a token at a random position; under the stationary root
  law it is the stationary law of the kernel. At the parent and with epsilon =
  0, R_ij is the chi-squared information. For a softmax read-out the states have
  no weights:

    R_ij = sum P(s_j = s, s_i = s') pi(s'|s).

  Ours, after the key lemma of the paper; see `start_gradient`.

  Args:
    graph: of Task 2.4: single parents, the last position is the query.
    kernel: (S+1, S).
    epsilon: of the loss; used for a linear read-out only.
    read_out: the `read_out` of the model.

  Returns:
    R_TxT for j <= i, and 0 elsewhere. The row of the query, which the formula
    does not cover, is 0.
  """
  P_TxTxSxS = information.pair_laws(graph, kernel)
  T, S = P_TxTxSxS.shape[0], P_TxTxSxS.shape[-1]
  chex.assert_shape(kernel, (S + 1, S))
  information.check_read_out(read_out)
  weights_SxS, offset = kernel[:S], 0
  if read_out == "linear":
    mu_S = jnp.einsum("iiss->is", P_TxTxSxS)[:-1].mean(axis=0) + epsilon
    weights_SxS = information.ratio(weights_SxS, jnp.broadcast_to(mu_S, (S, S)))
    offset = 1
  R_TxT = jnp.einsum("ijts,st->ij", P_TxTxSxS, weights_SxS) - offset
  return jnp.where(jnp.tri(T, dtype=bool), R_TxT, 0).at[-1].set(0)


def start_gradient(R_TxT, scale, S: int) -> jax.Array:
  """Minus the gradient of A1 at the start, predicted from a gradient score.

  For the reduced model at A1 = 0 and A2 = beta0 * I, to first order in beta0
  and for large T, with i counted from 1,
  -dL/dA1_ij = beta0 / (T i S) * (E R_ij - mean_{k <= i} E R_ik). Ours.

  Args:
    R_TxT: the score, averaged over the prior.
    scale: the `start_scale` of the model: beta0 for the reduced model, beta0**2
      for the disentangled transformer, where W starts from beta0 as well.
    S: number of states.

  Returns:
    T x T, 0 for j > i.
  """
  chex.assert_rank(R_TxT, 2)
  T = R_TxT.shape[0]
  mask_TxT = jnp.tri(T, dtype=bool)
  rows_Tx1 = jnp.arange(1, T + 1)[:, None]
  mean_Tx1 = jnp.where(mask_TxT, R_TxT, 0).sum(1, keepdims=True) / rows_Tx1
  centred_TxT = jnp.where(mask_TxT, R_TxT - mean_Tx1, 0)
  return scale / (T * S) * centred_TxT / rows_Tx1


def fit(measured_TxT, error_TxT, predicted_TxT, graph: Graph) -> Fit:
  """Compares a measured gradient with the closed form in rows with a parent.

  Args:
    measured_TxT: minus the gradient of A1 between positions.
    error_TxT: the standard error of `measured_TxT`.
    predicted_TxT: from `start_gradient`.
    graph: with at least one edge.
  """
  children = sorted({child for child, _ in graphs.edges(graph)})
  chosen = np.tri(len(measured_TxT), dtype=bool)[children]
  measured, predicted, error = (
    np.asarray(a)[children][chosen]
    for a in (measured_TxT, predicted_TxT, error_TxT)
  )
  edges = recovery.compare(measured_TxT, graph, include_self=True)
  varies = measured.std() > 0 and predicted.std() > 0
  correlation = slope = noise = None
  if varies:
    correlation = float(np.corrcoef(measured, predicted)[0, 1])
    slope = float((measured @ predicted) / (predicted @ predicted))
    noise = float(error.mean() / measured.std())
  return Fit(correlation, slope, noise, edges.edges, edges.recovered)
