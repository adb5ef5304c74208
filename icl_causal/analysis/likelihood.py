"""Graph recovery by likelihood: the best possible method, and a usable one.

Row i of a score has an entry for each candidate parent j < i of position i, the
log likelihood of that parent. Scores are for one prompt: sum them over prompts.
`recovery` has the same functions under the same names.
"""

import chex
import jax
from jax import numpy as jnp

from icl_causal import graphs
from icl_causal.analysis import information
from icl_causal.graphs import Graph

# The floor of a probability in a logarithm. It decides ties only: what has the
# probability 0 does not happen.
FLOOR = 1e-30


def likelihood_score(x_T, kernel) -> jax.Array:
  """log pi(s_i | s_j), the log likelihood of the parent j, kernel known.

  Summed over prompts, it is the logarithm of the posterior of p(i), up to a
  constant, if p(i) is uniform on the positions j < i. The other edges do not
  matter. Its row argmax is therefore the best possible method: no other finds
  more edges on average over such parents, with or without the kernels. The
  sum of log pi(s_i | s_j) / mu(s_i), which estimates Shannon information, has
  the same argmax, since mu(s_i) is the same for all j. Ours.

  Args:
    x_T: tokens.
    kernel: (S+1, S).

  Returns:
    T x T in nats for j < i, and 0 elsewhere.
  """
  chex.assert_rank([x_T, kernel], [1, 2])
  log_SxS = jnp.log(jnp.maximum(kernel[:-1], FLOOR))
  return jnp.tril(log_SxS[x_T[None, :], x_T[:, None]], -1)


def query_row_score(x_T, kernel) -> jax.Array:
  """log P(s_i | 1{s_j = s_T}), kernel known: the likelihood of the query's row.

  The best use of what the gradient reads: whether s_j is the query's token. If
  it is, s_i ~ pi(. | s_T); else its law is the mean of the other rows, weighted
  by the root law mu. Under stationary roots mu is the law of s_j. Ours.

  Args:
    x_T: tokens.
    kernel: (S+1, S).

  Returns:
    T x T in nats for j < i, and 0 elsewhere.
  """
  chex.assert_rank([x_T, kernel], [1, 2])
  S = kernel.shape[-1]
  query = x_T[-1]
  others_S = jnp.where(jnp.arange(S) == query, 0, kernel[S])
  rest_S = others_S @ kernel[:S] / jnp.maximum(others_S.sum(), FLOOR)
  log_2xS = jnp.log(jnp.maximum(jnp.stack([rest_S, kernel[query]]), FLOOR))
  is_query_T = (x_T == query).astype(jnp.int32)
  return jnp.tril(log_2xS[is_query_T[None, :], x_T[:, None]], -1)


def left_out_score(
  x_T, y_S, graph: Graph, alpha, soft: bool = True
) -> jax.Array:
  """log P(s_i | p(i) = j, all other tokens and edges), kernel unknown.

  With n the transitions along all edges but that of i, under Dirichlet(alpha)
  rows,

    log (n(s_j, s_i) + alpha) / (n(s_j, .) + S alpha).

  With the true graph, it is the score of a genie, who knows all other edges.
  Summed over prompts it is the log posterior of p(i), for a uniform parent and
  root laws that do not depend on the rows; stationary roots say a little more
  about the kernel. `likelihood_ascent` has no genie. Ours.

  Args:
    x_T: tokens.
    y_S: the target. A soft target is the row s_T of the kernel, and replaces
      its counts.
    graph: with single parents, and the query at the last position.
    alpha: concentration of the prior.
    soft: whether y_S is the law of s_{T+1}; else it is one-hot, a draw from
      it, and counts as one transition.

  Returns:
    T x T in nats for j < i, and 0 elsewhere.
  """
  chex.assert_rank([x_T, y_S, graph.parents_TxK], [1, 1, 2])
  rows_T = jnp.arange(len(x_T))
  parents_T = graph.parents_TxK[:, 0]
  score_TxT = _left_out(x_T, y_S, parents_T, alpha, soft, rows_T)
  return jnp.tril(score_TxT, -1)


def likelihood_ascent(
  x_NxT, y_NxS, alpha, epsilon=0.1, num_rounds=8, soft: bool = True
) -> Graph:
  """A graph of high likelihood, from prompts alone: no kernel, no training.

  Starts from the row argmax of the gradient (`information.label_score`) and
  updates one row after the other. Position i gets the parent j < i of highest
  `left_out_score` under the edges found so far, or none, if log P(s_i) given
  the other tokens is at least as high. That is

    (number of other tokens equal to s_i + c) / (T - 2 + S c),

  where Dirichlet(c) has the variance of a mean of S rows of the kernel, which
  the law of a root is, roughly: c = S alpha + 1 - 1 / S. Each update raises

    log P(tokens that have a parent | their parents) + sum_{roots} log P(s_i),

  with the kernels integrated out, so no graph comes twice. It ends when a round
  changes nothing, in a local maximum. A graph with one or two edges says little
  of the kernel, and its children may be taken for roots. Ours; `soft` and
  `alpha` are those of `left_out_score`.

  Args:
    x_NxT: tokens; the last position is the query.
    y_NxS: targets.
    alpha: concentration of the prior.
    epsilon: of the gradient.
    num_rounds: the most rounds over all rows.
    soft: whether targets are laws; else they are one-hot.
  """
  chex.assert_rank([x_NxT, y_NxS], 2)
  T, S = x_NxT.shape[1], y_NxS.shape[1]
  g_TxT = jax.vmap(information.label_score, (0, 0, None))(
    x_NxT, y_NxS, epsilon
  ).sum(axis=0)
  earlier_TxT = jnp.tri(T, k=-1, dtype=bool)
  start_T = jnp.where(earlier_TxT, g_TxT, -jnp.inf).argmax(axis=1)
  no_parent_T = (jnp.arange(T) == 0) | (jnp.arange(T) == T - 1)
  token_NxTxS = jax.nn.one_hot(x_NxT[:, :-1], S)
  same_NxT = (token_NxTxS * token_NxTxS.sum(axis=1, keepdims=True)).sum(axis=2)
  c = S * alpha + 1 - 1 / S
  root_T = jnp.log((same_NxT - 1 + c) / (T - 2 + S * c)).sum(axis=0)

  def update(i, parents_T):
    score_T = jax.vmap(
      lambda x_T, y_S: _left_out(x_T, y_S, parents_T, alpha, soft, i[None])[0]
    )(x_NxT, y_NxS).sum(axis=0)
    score_T = jnp.where(jnp.arange(T) < i, score_T, -jnp.inf)
    best, now = score_T.argmax(), parents_T[i]
    current = jnp.where(now < 0, root_T[i], score_T[now])
    chosen = jnp.where(score_T[best] > root_T[i], best, graphs.NO_PARENT)
    rises = jnp.maximum(score_T[best], root_T[i]) > current
    return parents_T.at[i].set(jnp.where(rises, chosen.astype(now.dtype), now))

  def one_round(carry):
    num, _, parents_T = carry
    new_T = jax.lax.fori_loop(1, T - 1, update, parents_T)
    return num + 1, (new_T != parents_T).any(), new_T

  start_T = jnp.where(no_parent_T, graphs.NO_PARENT, start_T).astype(jnp.int32)
  *_, parents_T = jax.lax.while_loop(
    lambda carry: carry[1] & (carry[0] < num_rounds),
    one_round,
    (0, jnp.array(True), start_T),
  )
  return Graph(parents_T[:, None], jnp.array([T - 1], jnp.int32))


def _left_out(x_T, y_S, parents_T, alpha, soft, rows_R):
  """The rows of `left_out_score` at the positions rows_R, for all j."""
  S = y_S.shape[0]
  token_TxS = jax.nn.one_hot(x_T, S, dtype=y_S.dtype)
  has_parent_T = (parents_T >= 0).astype(y_S.dtype)
  copied_TxS = token_TxS[parents_T] * has_parent_T[:, None]
  counts_SxS = copied_TxS.T @ token_TxS
  if not soft:
    counts_SxS = counts_SxS.at[x_T[-1]].add(y_S)
  # 1 where the transition of the row's own edge is the one that is scored.
  is_own_RxT = copied_TxS[rows_R] @ token_TxS.T
  to_RxT = counts_SxS[x_T[None, :], x_T[rows_R][:, None]]
  from_RxT = jnp.broadcast_to(counts_SxS.sum(axis=1)[x_T], to_RxT.shape)
  score_RxT = jnp.log(to_RxT - is_own_RxT + alpha)
  score_RxT -= jnp.log(from_RxT - is_own_RxT + S * alpha)
  if not soft:
    return score_RxT
  known_R = jnp.log(jnp.maximum(y_S, FLOOR))[x_T[rows_R]]
  return jnp.where((x_T == x_T[-1])[None, :], known_R[:, None], score_RxT)
