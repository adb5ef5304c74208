"""When each edge is learned: the course of stage 1 of Algorithm 1.

To first order in beta0, the loss of the reduced model at A2 = beta0 * I is
linear in the attention of layer 1, at any A1 (`information.label_score`):

  L = L_0 - beta0 / T * sum_ij a_ij g_ij,  a = softmax(mask(A1)).

Gradient descent on A1 then moves each row of A1 without regard to the others,

  A1_ij <- A1_ij + rate / T * a_ij (g_ij - sum_k a_ik g_ik),

where `rate` is the learning rate times beta0. No parameter is fitted.
`finite_score` has g at finite T; as T grows, S g approaches
`gradient.gradient_score` up to a constant in each row, so information alone
predicts the whole course of training. Ours; docs/learning_times.md has the
proof.
"""

import chex
import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal import sampling
from icl_causal.analysis import information
from icl_causal.graphs import Graph
from icl_causal.priors import Prior

_MAX_BATCH = 2**12


def finite_score(
  key, graph: Graph, prior: Prior, S: int, num_prompts: int, epsilon=0.0
) -> tuple[jax.Array, jax.Array]:
  """E g of `information.label_score` for a linear read-out, by sampling.

  Args:
    key: of the prompts.
    graph: over T positions.
    prior: (key, S, K) -> kernel.
    S: number of states.
    num_prompts: at least 2, drawn in batches of its largest divisor that is at
      most 4096.
    epsilon: of the loss.

  Returns:
    (g_TxT, standard_error_TxT) for j <= i, 0 elsewhere; the standard error is
    over prompts.

  Raises:
    ValueError: if `num_prompts` is less than 2.
  """
  if num_prompts < 2:
    raise ValueError(f"num_prompts must be at least 2, got {num_prompts}")
  T = graph.parents_TxK.shape[0]
  size = max(
    n
    for n in range(1, min(num_prompts, _MAX_BATCH) + 1)
    if num_prompts % n == 0
  )

  def moments(key):
    batch = sampling.sample_batch(key, graph, prior, S, size)
    gain_BxT, matches_BxT = jax.vmap(
      lambda x_T, y_S: information.label_factors(x_T, y_S, epsilon)
    )(batch.x_T, batch.y_S)
    # matches is 0 or 1, so it is its own square.
    return jnp.stack([gain_BxT.T @ matches_BxT, (gain_BxT**2).T @ matches_BxT])

  keys = jax.random.split(key, num_prompts // size)
  mean, square = jax.lax.map(moments, keys).sum(axis=0) / num_prompts
  variance = jnp.maximum(square - mean**2, 0) / (num_prompts - 1)
  mask_TxT = jnp.tri(T, dtype=bool)
  return jnp.where(mask_TxT, mean, 0), jnp.where(mask_TxT, variance**0.5, 0)


def predicted_attention(g_TxT, rate, num_steps: int) -> jax.Array:
  """The attention of layer 1 along stage 1, from A1 = 0.

  Gradient descent on the linear loss of this module; see its docstring.

  Args:
    g_TxT: from `finite_score`, or `gradient.gradient_score` averaged over the
      prior and divided by S. A constant added to a row changes nothing.
    rate: the learning rate times beta0.
    num_steps: N.

  Returns:
    att_NxTxT: the attention before each step, the first map is uniform.
  """
  chex.assert_rank(g_TxT, 2)
  T = len(g_TxT)
  mask_TxT = jnp.tri(T, dtype=bool)

  def step(A1_TxT, _):
    att_TxT = jax.nn.softmax(jnp.where(mask_TxT, A1_TxT, -jnp.inf))
    mean_Tx1 = (att_TxT * g_TxT).sum(axis=1, keepdims=True)
    return A1_TxT + rate / T * att_TxT * (g_TxT - mean_Tx1), att_TxT

  return jax.lax.scan(step, jnp.zeros_like(g_TxT), None, num_steps)[1]


def crossing(att_NxTxT, graph: Graph, level: float = 0.5) -> np.ndarray:
  """The step at which the attention of each edge first reaches a level.

  Args:
    att_NxTxT: attention before each of N steps.
    graph: over T positions.
    level: between 0 and 1.

  Returns:
    step_E, in the order of `graphs.edges`, interpolated linearly between steps;
    0 if the level is reached at the start, infinite if it is never reached.
  """
  att_NxTxT = np.asarray(att_NxTxT)
  chex.assert_rank(att_NxTxT, 3)
  steps = []
  for child, parent in graphs.edges(graph):
    curve_N = att_NxTxT[:, child, parent]
    reached = curve_N >= level
    n = int(reached.argmax())
    if not reached.any():
      steps.append(np.inf)
    elif n == 0:
      steps.append(0.0)
    else:
      before, after = curve_N[n - 1 : n + 1]
      steps.append(n - 1 + (level - before) / (after - before))
  return np.array(steps)


def half_time(i, gap, T: int, S: int, rate) -> jax.Array:
  """Steps of gradient flow until the parent of position i has attention 1/2.

  If the score of the parent exceeds that of all other keys by the same gap rho,

    T S / (rate rho) * (i-1)/i * (i (i-2) / (i-1) + 2 log(i-1)),

  about T S i / (rate rho). Ours.

  Args:
    i: position of the child, counted from 1, at least 2; the row starts at
      attention 1/i. May be an array.
    gap: of `gradient.gradient_score` at the parent over the other keys.
    T: positions.
    S: states.
    rate: the learning rate times beta0.
  """
  i = jnp.asarray(i, jnp.result_type(float))
  odds = i * (i - 2) / (i - 1) + 2 * jnp.log(i - 1)
  return T * S / (rate * gap) * (i - 1) / i * odds


def edge_gap(kernel, epsilon=0.0) -> jax.Array:
  """The gap rho of `half_time`: a parent's score over an independent token's.

  For a kernel of single parents whose root law mu is stationary,

    rho = sum_st mu(s) pi(t|s)^2 / (mu(t) + epsilon) - sum_t mu(t)^2 / (mu(t) +
    epsilon).

  With epsilon = 0, it is the chi-squared information of child and parent.
  Average it over the prior.

  Args:
    kernel: (S+1, S).
    epsilon: of the loss.
  """
  S = kernel.shape[-1]
  chex.assert_shape(kernel, (S + 1, S))
  pi_SxS, mu_S = kernel[:S], kernel[S]
  parent_S = mu_S @ pi_SxS**2 - mu_S**2
  return information.ratio(parent_S, mu_S + epsilon).sum()
