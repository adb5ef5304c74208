"""The symmetry of the task under relabelling of states.

A prior whose law does not change when the states are renamed (Assumption iii of
the paper's theory; `priors.dirichlet` is one) gives a loss that does not change
when the same is done to the parameters. A gradient at symmetric parameters is
then symmetric, too, but for the noise of a batch: gradient flow never leaves
the symmetric parameters, and what noise or rounding breaks stays broken.
"""

from typing import Any

import jax
from jax import numpy as jnp
import optax


def relabelling_mean(tree: Any) -> dict:
  """The mean of parameters or gradients over all S! namings of the states.

  For `models.Disentangled`. A block of tokens by tokens becomes a multiple of
  the identity and a constant, one of tokens by positions has equal rows or
  columns, and one of positions by positions stays. Ours.
  """
  S = tree["W"].shape[-1]
  width = tree["A1"].shape[-1]
  return {
    name: _read_out(leaf, S, width) if name == "W" else _scores(leaf, S, width)
    for name, leaf in tree.items()
  }


def asymmetry(params: dict) -> jax.Array:
  """The share of the parameters' squares that their relabelling mean lacks.

  0 for symmetric parameters, 1 for those whose mean is 0.
  """
  mean = relabelling_mean(params)
  rest = optax.tree.norm(jax.tree.map(jnp.subtract, params, mean), squared=True)
  return rest / jnp.maximum(optax.tree.norm(params, squared=True), 1e-30)


def symmetric() -> optax.GradientTransformation:
  """Gradients averaged over all namings of the states, as if all were seen."""
  return optax.stateless(lambda updates, params: relabelling_mean(updates))


def _scores(A_HxDxD, S: int, width: int):
  """Query and key are streams of blocks of S + T = width entries each."""
  H, D, _ = A_HxDxD.shape
  blocks = D // width
  A = A_HxDxD.reshape(H, blocks, width, blocks, width).swapaxes(2, 3)
  tokens = _multiple_of_identity(A[..., :S, :S])
  to_positions = _constant(A[..., :S, S:], -2)
  from_positions = _constant(A[..., S:, :S], -1)
  A = jnp.block([[tokens, to_positions], [from_positions, A[..., S:, S:]]])
  return A.swapaxes(2, 3).reshape(H, D, D)


def _read_out(W_DxS, S: int, width: int):
  W = W_DxS.reshape(-1, width, S)
  tokens = _multiple_of_identity(W[:, :S])
  positions = _constant(W[:, S:], -1)
  return jnp.concatenate([tokens, positions], axis=1).reshape(W_DxS.shape)


def _multiple_of_identity(B):
  """The nearest a I + b 1 1^T to each of the last two axes' matrices."""
  S = B.shape[-1]
  same = jnp.trace(B, axis1=-2, axis2=-1) / S
  other = (B.sum(axis=(-2, -1)) - S * same) / (S * (S - 1))
  eye = jnp.eye(S).reshape((1,) * (B.ndim - 2) + (S, S))
  same, other = same[..., None, None], other[..., None, None]
  return same * eye + other * (1 - eye)


def _constant(B, axis: int):
  return jnp.broadcast_to(B.mean(axis=axis, keepdims=True), B.shape)
