"""Tokens along a graph, and the rows of the kernel that give their laws."""

import functools

import jax
from jax import numpy as jnp

from icl_causal.graphs import Graph


def table_row(x_T, parents_xK, S: int) -> jax.Array:
  """The index of the row of `kernel.reshape(-1, S)` for these parents.

  The states of the parents are read from x_T; an absent parent has index S.

  Args:
    x_T: tokens.
    parents_xK: positions, -1 for an absent parent; of one token or of several
      along leading axes, which the result has too.
    S: number of states.
  """
  tokens_xK = jnp.where(parents_xK < 0, S, x_T[parents_xK])
  row = tokens_xK[..., 0]
  for k in range(1, parents_xK.shape[-1]):
    row = row * (S + 1) + tokens_xK[..., k]
  return row


@functools.partial(jax.jit, inline=True)
def along_graph(key, graph: Graph, kernel, is_uniform_T) -> jax.Array:
  """Tokens along the graph, uniform on the states where `is_uniform_T`."""
  T, S = graph.parents_TxK.shape[0], kernel.shape[-1]
  rows_MxS = kernel.reshape(-1, S)
  uniform_S = jnp.full((1, S), 1 / S, kernel.dtype)
  cdf_MxS = jnp.cumsum(jnp.concatenate([rows_MxS, uniform_S]), axis=1)
  uniform_row = rows_MxS.shape[0]
  u_T = jax.random.uniform(key, (T,))

  def draw(seen_T, position):
    i, parents_K, is_uniform, u = position
    row = jnp.where(is_uniform, uniform_row, table_row(seen_T, parents_K, S))
    return seen_T.at[i].set(_token(cdf_MxS[row], u)), None

  positions = (jnp.arange(T), graph.parents_TxK, is_uniform_T, u_T)
  return jax.lax.scan(draw, jnp.zeros(T, jnp.int32), positions)[0]


@functools.partial(jax.jit, inline=True)
def visiting(key, parents_NxK, rows_NxS, is_uniform_N):
  """Tokens, their laws, and the rows of the table that have these laws.

  Args:
    key: a typed key.
    parents_NxK: of the N tokens.
    rows_NxS: independent rows, which the tokens visit in turn.
    is_uniform_N: whether a token is uniform on the states and visits no row;
      its row is (S+1)**K, beyond the table.
  """
  (N, S), none = rows_NxS.shape, (rows_NxS.shape[1] + 1) ** parents_NxK.shape[1]
  uniform_S = jnp.full((1, S), 1 / S, rows_NxS.dtype)
  laws_MxS = jnp.concatenate([rows_NxS, uniform_S])
  cdf_MxS = jnp.cumsum(laws_MxS, axis=1)

  def draw(carry, position):
    seen_N, row_N = carry
    i, parents_K, is_uniform, u = position
    row = jnp.where(is_uniform, none, table_row(seen_N, parents_K, S))
    row_N = row_N.at[i].set(row)
    first = jnp.where(row_N == row, jnp.arange(N), N).min()
    law = jnp.where(is_uniform, N, first)
    token = _token(cdf_MxS[law], u)
    return (seen_N.at[i].set(token), row_N), law

  positions = (jnp.arange(N), parents_NxK, is_uniform_N)
  start = (jnp.zeros(N, jnp.int32), jnp.full(N, none))
  (tokens_N, row_N), law_N = jax.lax.scan(
    draw, start, (*positions, jax.random.uniform(key, (N,)))
  )
  return tokens_N, laws_MxS[law_N], row_N


def _token(cdf_S, u) -> jax.Array:
  """The token of a law with cumulative sums cdf_S, from u in [0, 1)."""
  return (cdf_S <= u * cdf_S[-1]).sum(dtype=jnp.int32)
