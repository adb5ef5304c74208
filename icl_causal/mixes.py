"""The concatenated residual stream, stored as mixes of its one-hot input.

A block of the stream of `models.Disentangled` is the one-hot input, mixed over
positions by a product of attention maps. A mix is that product, a matrix Q x T,
or None for the identity. The stream itself is computed at the last position
only.
"""

from collections.abc import Sequence

import jax
from jax import numpy as jnp
import numpy as np

Mix = jax.Array | None


def scores(A_DxD, queries: Sequence[Mix], keys: Sequence[Mix], x_T, token_TxS):
  """Attention scores h_Q A h_T^T; the blocks of h_Q and h_T are mixes.

  Query mixes and the result are Q x T, or of shape T for a single query.
  """
  T, S = token_TxS.shape
  ends = np.cumsum([S, T] * len(keys))[:-1]
  projected = []
  for mix, A in zip(queries, jnp.split(A_DxD, len(queries)), strict=True):
    if mix is None:  # splitting A before gathering its rows is faster
      parts = [a[:S][x_T] + a[S:] for a in jnp.split(A, ends, axis=1)]
    else:
      parts = jnp.split((mix @ token_TxS) @ A[:S] + mix @ A[S:], ends, -1)
    projected.append(parts)
  q = [sum(parts[1:], parts[0]) for parts in zip(*projected, strict=True)]
  terms = []
  for mix, q_token, q_position in zip(keys, q[::2], q[1::2], strict=True):
    score = q_token @ token_TxS.T + q_position
    terms.append(score if mix is None else score @ mix.T)
  return sum(terms[1:], terms[0])


def compose(att: jax.Array, mix: Mix) -> jax.Array:
  """The mix of the copy that a head makes of a block."""
  return att if mix is None else att @ mix


def last(mix: Mix, T: int) -> jax.Array:
  """The mix at the last position only, of shape T."""
  return jnp.eye(T)[-1] if mix is None else mix[-1]
