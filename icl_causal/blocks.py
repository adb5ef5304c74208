"""Parameter matrices with named blocks of the residual stream."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Blocks = Sequence[tuple[str, int]]  # (name, size) in order


class ParameterBlock(NamedTuple):
  """A parameter matrix with the named blocks of its rows and columns.

  Attributes:
    title: of the matrix.
    matrix: rows x columns.
    row_blocks: (name, size) from top to bottom; the sizes sum to the number of
      rows.
    column_blocks: (name, size) from left to right; the sizes sum to the number
      of columns.
  """

  title: str
  matrix: np.ndarray
  row_blocks: Blocks
  column_blocks: Blocks


def per_head(name: str, A_HxDxD, blocks: Blocks) -> list[ParameterBlock]:
  """One square matrix per head, with the same blocks of rows and columns."""
  return [
    ParameterBlock(
      f"{name}, head {head}" if len(A_HxDxD) > 1 else name, A, blocks, blocks
    )
    for head, A in enumerate(np.asarray(A_HxDxD), start=1)
  ]


def read_out(name: str, W_DxS, blocks: Blocks) -> ParameterBlock:
  """The matrix from the stream to the logits of the next token."""
  W_DxS = np.asarray(W_DxS)
  return ParameterBlock(name, W_DxS, blocks, [("next token", W_DxS.shape[1])])


def of_stream(S: int, T: int, heads: Sequence[int]) -> Blocks:
  """The blocks of the concatenated residual stream.

  Copies are named by layer and head: `token 1.2` is the token copied by head 2
  of layer 1, and `token 1.2 2.1` is its copy by head 1 of layer 2.

  Args:
    S: number of states.
    T: number of positions.
    heads: the number of heads of each layer so far.
  """
  paths = [""]
  for layer, num_heads in enumerate(heads, start=1):
    paths += [
      f"{path} {layer}.{head}"
      for head in range(1, num_heads + 1)
      for path in paths
    ]
  return [
    (kind + p, n) for p in paths for kind, n in (("token", S), ("position", T))
  ]
