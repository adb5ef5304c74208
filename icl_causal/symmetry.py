"""The symmetry of the task under relabelling of states.

If a prior is invariant under relabelling of the states (Assumption iii of the
paper's theory; `priors.dirichlet` is), the loss is invariant under the same
relabelling of the parameters. The expected gradient at symmetric parameters is
then symmetric, so gradient flow keeps parameters symmetric. The noise of
batches and rounding break the symmetry, and nothing restores it.
"""

from typing import Any

import jax
from jax import numpy as jnp
import optax


def relabelling_mean(tree: Any) -> dict:
  """The mean of parameters or gradients over all S! relabellings of the states.

  For `models.Disentangled`. A block between tokens becomes a multiple of the
  identity plus a constant, a block between tokens and positions gets equal rows
  or columns, and a block between positions is unchanged. Ours.
  """
  S = tree["W"].shape[-1]
  width = tree["A1"].shape[-1]
  return {
    name: _read_out(leaf, S, width) if name == "W" else _scores(leaf, S, width)
    for name, leaf in tree.items()
  }


def asymmetry(params: dict) -> jax.Array:
  """||params - mean||^2 / ||params||^2, where mean is the relabelling mean.

  0 for symmetric parameters, 1 if the mean is 0.
  """
  mean = relabelling_mean(params)
  rest = optax.tree.norm(jax.tree.map(jnp.subtract, params, mean), squared=True)
  return rest / jnp.maximum(optax.tree.norm(params, squared=True), 1e-30)


def _scores(A_HxDxD, S: int, width: int):
  """The relabelling mean of an A; rows and columns have blocks of S + T."""
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
  """The nearest a I + b 1 1^T to each matrix of the last two axes."""
  S = B.shape[-1]
  same = jnp.trace(B, axis1=-2, axis2=-1) / S
  other = (B.sum(axis=(-2, -1)) - S * same) / (S * (S - 1))
  eye = jnp.eye(S).reshape((1,) * (B.ndim - 2) + (S, S))
  same, other = same[..., None, None], other[..., None, None]
  return same * eye + other * (1 - eye)


def _constant(B, axis: int):
  return jnp.broadcast_to(B.mean(axis=axis, keepdims=True), B.shape)
