"""The circuit of a two-layer model, compared with the graph (ours).

Layer 1 copies the token of the parent to each position, layer 2 attends from
the query to the positions whose copy equals the query's token, and W reads
their tokens. `scores` measures the first two on prompts, `compare` all three in
the parameters. Both are for models with one head in each of two layers and for
graphs of single parents in which the last position is the query.

Different parameters can be the same function: softmax does not see a constant,
and the one-hots of a block sum to one. `gauge_fixed` removes this freedom, so
that the norms of blocks can be compared.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np

from icl_causal import blocks
from icl_causal import constructions
from icl_causal import graphs
from icl_causal import models
from icl_causal.graphs import Graph

_CERTAIN = 1e3  # exp(-1000) is 0 in float32, also if trained scores are added
_POSITION = 1  # the place of the query's own position in the stream


class Scores(NamedTuple):
  """What attention does on a prompt; NaN where a score is not defined.

  Attributes:
    parent: the mean attention of layer 1 from a position to its parent.
    matching: the attention of layer 2 on the positions whose parent has the
      token of the query. Not defined if there is none.
    by_chance: the share of positions that are such positions: the matching
      score of uniform attention. Not defined if there is none.
    evenness: the entropy of the attention of layer 2 within these positions,
      divided by the logarithm of their number. Not defined below two.
  """

  parent: Any
  matching: Any
  by_chance: Any
  evenness: Any


def scores(out: dict[str, jax.Array], x_T: jax.Array, graph: Graph) -> Scores:
  """The scores of a model's `out` on a prompt; each is 1 in the construction.

  Args:
    out: has `attention_1`, 1 x T x T, and `attention_2`, 1 x T.
    x_T: tokens.
    graph: over T positions, with single parents.
  """
  T = len(x_T)
  chex.assert_shape(out["attention_1"], (1, T, T))
  chex.assert_shape(out["attention_2"], (1, T))
  chex.assert_shape(list(graph), [(T, 1), (1,)])
  parents_T = graph.parents_TxK[:, 0]
  is_edge_T = parents_T != graphs.NO_PARENT
  att_TxT, att_T = out["attention_1"][0], out["attention_2"][0]
  on_parent_T = jnp.where(is_edge_T, att_TxT[jnp.arange(T), parents_T], 0)
  is_match_T = is_edge_T & (x_T[parents_T] == x_T[graph.target_K[0]])
  num, matched_T = is_match_T.sum(), jnp.where(is_match_T, att_T, 0)
  entropy = special.entr(matched_T / matched_T.sum()).sum()
  return Scores(
    on_parent_T.sum() / is_edge_T.sum(),
    jnp.where(num, matched_T.sum(), jnp.nan),
    jnp.where(num, num / T, jnp.nan),
    jnp.where(num > 1, entropy / jnp.log(num), jnp.nan),
  )


class Mean(NamedTuple):
  """A mean over prompts.

  Attributes:
    value: the mean; None if no prompt defines it.
    error: its standard error; None below two prompts.
    num: of prompts.
  """

  value: float | None
  error: float | None
  num: int


def mean(values_N) -> Mean:
  """The mean of the values that are not NaN."""
  values_N = np.asarray(values_N, float)
  values_N = values_N[~np.isnan(values_N)]
  num = len(values_N)
  return Mean(
    float(values_N.mean()) if num else None,
    float(values_N.std(ddof=1) / num**0.5) if num > 1 else None,
    num,
  )


def clamp(params: Any, graph: Graph) -> dict:
  """Layer 1 attends from each position to its parent, with certainty.

  A large number is added to the score of each edge, between positions. Rows
  without a parent, of roots and of the query, stay as they are: if A1 is zero,
  they attend uniformly.

  Args:
    params: of a `models.Disentangled` whose layer 1 has one head.
    graph: with single parents; may be traced.
  """
  edges_TxT = jnp.asarray(graphs.adjacency(graph), float)
  S = params["A1"].shape[-1] - len(edges_TxT)
  A1 = jnp.asarray(params["A1"]).at[:, S:, S:].add(_CERTAIN * edges_TxT[None])
  return params | {"A1": A1}


def gauge_fixed(model: models.Disentangled, params: Any) -> dict:
  """The parameters of the same model in which every norm has a meaning.

  Three changes leave every attention map and prediction as it is:
  - Entries that no prompt reads are 0: of the position of the query in the last
    layer and in W, all rows but the last; in the other layers, all keys after
    the query.
  - Softmax does not see a constant over keys, and within a block of the stream
    entries sum to one. Each row of a block of A has mean 0 over keys, and each
    row of W has mean 0 over states.
  - A row that all queries of a block share can be a part of any block. Each
    block has mean 0 over its rows, but the block of the query's own position,
    to which the mean is added: it holds what a position does on average over
    tokens and copies.

  Args:
    model: with any number of layers and heads.
    params: of the model.

  Returns:
    The parameters as float64 arrays of numpy.
  """
  fixed, L = {}, len(model.heads)
  for layer in range(1, L + 1):
    stream = blocks.of_stream(model.S, model.T, model.heads[: layer - 1])
    fixed[f"A{layer}"] = np.stack(
      [
        _fixed(A_DxD, stream, stream, layer == L)
        for A_DxD in np.asarray(params[f"A{layer}"], float)
      ]
    )
  stream = blocks.of_stream(model.S, model.T, model.heads)
  W_DxS = np.asarray(params["W"], float)
  return fixed | {"W": _fixed(W_DxS, stream, [("state", model.S)], True)}


class Block(NamedTuple):
  """A block of a parameter matrix, with its gauge fixed.

  Attributes:
    matrix: its name.
    row: the block of the stream that it reads at the query.
    column: the block that it reads at the keys, or `next token` for W.
    share: of the squared norm of its matrix.
    cosine: with the block of the construction; None if that is zero.
    scale: the factor of the block of the construction that is closest to this
      one; None if that is zero. The construction has 1 at edges in A1, and
      I - 1/S in the blocks of tokens.
  """

  matrix: str
  row: str
  column: str
  share: float
  cosine: float | None
  scale: float | None


def compare(
  model: models.Disentangled, params: Any, graph: Graph
) -> list[Block]:
  """Each block beside that of `constructions.disentangled`.

  Args:
    model: with heads (1, 1).
    params: of the model.
    graph: with single parents.

  Raises:
    ValueError: if the construction for the graph has other heads.
  """
  ideal_model, ideal = constructions.disentangled(graph, model.S, match=1.0)
  if ideal_model.heads != model.heads:
    raise ValueError(
      f"the construction has heads {ideal_model.heads}, got {model.heads}"
    )
  ideal["A1"] = ideal["A1"] / jnp.maximum(ideal["A1"].max(), 1)
  matrices, ideals = (
    model.parameter_blocks(gauge_fixed(model, one)) for one in (params, ideal)
  )
  return [
    _compared(one, ideal, rows, columns)
    for one, ideal in zip(matrices, ideals, strict=True)
    for rows in _slices(one.row_blocks)
    for columns in _slices(one.column_blocks)
  ]


def outside(found: Sequence[Block]) -> dict[str, float]:
  """The share of squared norm outside the construction, by matrix."""
  shares = dict.fromkeys((one.matrix for one in found), 0.0)
  for one in found:
    if one.cosine is None:
      shares[one.matrix] += one.share
  return shares


def _compared(matrix, ideal, rows, columns) -> Block:
  (row, of_rows), (column, of_columns) = rows, columns
  block = matrix.matrix[of_rows, of_columns]
  ideal_block = ideal.matrix[of_rows, of_columns]
  squares, inner = (block**2).sum(), (block * ideal_block).sum()
  ideal_squares = (ideal_block**2).sum()
  is_inside = ideal_squares > 1e-12  # not only rounding
  return Block(
    matrix.title,
    row,
    column,
    float(squares / max((matrix.matrix**2).sum(), 1e-300)),
    float(inner / max((squares * ideal_squares) ** 0.5, 1e-300))
    if is_inside
    else None,
    float(inner / ideal_squares) if is_inside else None,
  )


def _slices(named: blocks.Blocks) -> list[tuple[str, slice]]:
  ends = np.cumsum([size for _, size in named])
  return [
    (name, slice(end - size, end))
    for (name, size), end in zip(named, ends, strict=True)
  ]


def _fixed(
  matrix_DxC: np.ndarray,
  row_blocks: blocks.Blocks,
  column_blocks: blocks.Blocks,
  is_last: bool,
) -> np.ndarray:
  """A matrix with rows that are read at a query, and columns at keys."""
  queries, keys = _slices(row_blocks), _slices(column_blocks)
  own = queries[_POSITION][1]
  T = own.stop - own.start
  read_DxC = np.ones(matrix_DxC.shape, bool)
  if is_last:
    read_DxC[own.start : own.stop - 1] = False
  else:
    for name, columns in keys:
      if name.startswith("position"):
        read_DxC[own, columns] = np.tri(T, dtype=bool)

  def centred(a_DxC):
    a_DxC = np.where(read_DxC, a_DxC, 0)
    for _, columns in keys:
      num_D = read_DxC[:, columns].sum(axis=1)
      mean_D = a_DxC[:, columns].sum(axis=1) / np.maximum(num_D, 1)
      a_DxC[:, columns] -= mean_D[:, None]
    return np.where(read_DxC, a_DxC, 0)

  fixed_DxC = centred(matrix_DxC)
  for n, (_, rows) in enumerate(queries):
    if n != _POSITION:
      shared_C = fixed_DxC[rows].mean(axis=0)
      fixed_DxC[rows] -= shared_C
      fixed_DxC[own] += shared_C
  return centred(fixed_DxC)
