"""Sampling of prompts from a causal graph and a prior (Task 2.4)."""

from typing import NamedTuple

import chex
import jax
from jax import core
from jax import numpy as jnp
import numpy as np

from icl_causal.graphs import Graph
from icl_causal.priors import Prior


class Prompt(NamedTuple):
  """One prompt, or a batch of prompts along a leading axis.

  Attributes:
    x_T: int32, the tokens s_1, .., s_T.
    y_S: the law of s_{T+1} given its parents; the soft target.
    kernel: (S+1,)*K + (S,), the kernel from which the tokens are drawn.
  """

  x_T: jax.Array
  y_S: jax.Array
  kernel: jax.Array


def sample_prompt(key, graph: Graph, prior: Prior, S: int) -> Prompt:
  """Draws a kernel from the prior, then the tokens along the graph.

  s_i ~ kernel[s_{p_1(i)}, .., s_{p_K(i)}], with index S for an absent parent. A
  last position without parents is the query, uniform on the states. Covers both
  tasks of the paper, with one parent and with several.

  Args:
    key: a typed key.
    graph: over T positions.
    prior: (key, S, K) -> kernel.
    S: number of states, at least 2.
  """
  chex.assert_rank(list(graph), [2, 1])
  if S < 2:
    raise ValueError(f"S must be at least 2, got {S}")
  T, K = graph.parents_TxK.shape
  kernel_key, token_key = jax.random.split(key)
  kernel = prior(kernel_key, S, K)
  chex.assert_shape(kernel, (S + 1,) * K + (S,))

  rows_MxS = kernel.reshape(-1, S)
  uniform_S = jnp.full((1, S), 1 / S, kernel.dtype)
  cdf_MxS = jnp.cumsum(jnp.concatenate([rows_MxS, uniform_S]), axis=1)
  query_row = rows_MxS.shape[0]
  is_query_T = (jnp.arange(T) == T - 1) & (graph.parents_TxK < 0).all(axis=1)
  u_T = jax.random.uniform(token_key, (T,))

  def draw(seen_T, position):
    i, parents_K, is_query, u = position
    row = jnp.where(is_query, query_row, table_row(seen_T, parents_K, S))
    token = (cdf_MxS[row] <= u * cdf_MxS[row, -1]).sum(dtype=jnp.int32)
    return seen_T.at[i].set(token), None

  positions = (jnp.arange(T), graph.parents_TxK, is_query_T, u_T)
  x_T, _ = jax.lax.scan(draw, jnp.zeros(T, jnp.int32), positions)
  return Prompt(x_T, rows_MxS[table_row(x_T, graph.target_K, S)], kernel)


def sample_batch(
  key, graph: Graph, prior: Prior, S: int, batch_size: int
) -> Prompt:
  """`batch_size` independent prompts on one graph, along a leading axis."""
  keys_B = jax.random.split(key, batch_size)
  return jax.vmap(lambda key: sample_prompt(key, graph, prior, S))(keys_B)


def resample(key, prompts: Prompt, batch_size: int, num_prompts=None) -> Prompt:
  """`batch_size` prompts drawn with replacement from a fixed batch.

  A training set of N prompts, over which a training runs again and again.

  Args:
    key: a typed key.
    prompts: along a leading axis.
    batch_size: of the result.
    num_prompts: only the first ones are drawn, by default all; may be traced.
  """
  N = len(prompts.x_T) if num_prompts is None else num_prompts
  drawn_B = jax.random.randint(key, (batch_size,), 0, N)
  return jax.tree.map(lambda a: a[drawn_B], prompts)


def check_tokens(tokens, S: int, T: int | None = None):
  """Raises ValueError unless tokens are integers from 0 to S - 1.

  With T, there must be T of them. The values of traced tokens are not checked.
  """
  if T is not None and tokens.shape != (T,):
    raise ValueError(f"expected {T} tokens, got shape {tokens.shape}")
  if not jnp.issubdtype(tokens.dtype, jnp.integer):
    raise ValueError(f"tokens must be integers, got {tokens.dtype}")
  if not isinstance(tokens, core.Tracer):
    values = np.asarray(tokens)
    outside = values[(values < 0) | (values >= S)]
    if outside.size:
      raise ValueError(
        f"tokens must be from 0 to S - 1 = {S - 1}, got {outside[0]}"
      )


def table_row(x_T, parents_K, S: int) -> jax.Array:
  """The index of the row of `kernel.reshape(-1, S)` for these parents.

  The states of the parents are read from x_T; an absent parent has index S.
  """
  tokens_K = jnp.where(parents_K < 0, S, x_T[parents_K])
  weights_K = (S + 1) ** jnp.arange(parents_K.shape[-1])[::-1]
  return (tokens_K * weights_K).sum()
