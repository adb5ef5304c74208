"""The concatenated residual stream, stored as mixes of its one-hot input.

A block of the stream of `models.Disentangled` is the one-hot input, mixed over
positions by a product of attention maps. A mix is that product, a matrix T x T,
or None for the identity; at the last position, it is its last row. The stream
itself is computed at the last position only.
"""

from collections.abc import Sequence
import functools

import jax
from jax import numpy as jnp
import numpy as np

Mix = jax.Array | None


def projected(stream: Sequence[Mix], A_DxD, x_T, token_TxS) -> list[jax.Array]:
  """The product h A of the stream at all positions, as its blocks."""
  S = token_TxS.shape[1]
  terms = []
  for mix, A in zip(stream, jnp.split(A_DxD, len(stream)), strict=True):
    if mix is None:  # splitting A before gathering its rows is faster
      parts = [a[:S][x_T] + a[S:] for a in split(A, token_TxS)]
    else:
      parts = split((mix @ token_TxS) @ A[:S] + mix @ A[S:], token_TxS)
    terms.append(parts)
  return [
    functools.reduce(jnp.add, parts) for parts in zip(*terms, strict=True)
  ]


def split(h, token_TxS) -> list[jax.Array]:
  """The blocks of vectors of the width of a stream, along their last axis."""
  T, S = token_TxS.shape
  sizes = [S, T] * (h.shape[-1] // (S + T))
  return jnp.split(h, np.cumsum(sizes)[:-1], axis=-1)


def scores(query: Sequence[jax.Array], keys: Sequence[Mix], token_TxS):
  """The products q h^T of a query and the stream at all positions.

  Args:
    query: the blocks of q: of shapes S, T, .. for one query, T x S, T x T, ..
      for T queries.
    keys: the stream.
    token_TxS: the one-hot tokens.

  Returns:
    Shape T or T x T.
  """
  terms = []
  for mix, q_token, q_position in zip(
    keys, query[::2], query[1::2], strict=True
  ):
    score = q_token @ token_TxS.T + q_position
    if mix is not None:  # for one query, XLA would transpose the mix in memory
      score = mix @ score if score.ndim == 1 else score @ mix.T
    terms.append(score)
  return functools.reduce(jnp.add, terms)


def compose(att: jax.Array, mix: Mix) -> jax.Array:
  """The mix of the copy that a head makes of a block."""
  return att if mix is None else att @ mix


def last(mix: Mix, T: int) -> jax.Array:
  """The mix at the last position only, of shape T."""
  return jnp.eye(T)[-1] if mix is None else mix[-1]


def concatenated(mixes_T: Sequence[jax.Array], token_TxS) -> jax.Array:
  """The stream at the last position, of shape D, from its mixes there."""
  return jnp.concatenate(
    [h for mix_T in mixes_T for h in (mix_T @ token_TxS, mix_T)]
  )
