"""Pictures of matrices: attention, parameters, gradients, grids of results."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
import numpy as np

from icl_causal import blocks
from icl_causal.plotting.figure import Figure

_MAX_FRAMED = 100  # positions; beyond, a frame would cover its entry
_EDGE_FRAME: Mapping[str, Any] = {"edgecolor": "#D55E00", "linewidth": 1}
_FALSE_FRAME: Mapping[str, Any] = {
  "edgecolor": "#CC79A7",
  "linewidth": 2,
  "linestyle": ":",
}


def weights(rows: Mapping[str, tuple]) -> Figure:
  """The graph, the layer-1 attention and the other parameters of several runs.

  Each run has a row. The edges of its graph and its false parents are framed
  in its attention maps.

  Args:
    rows: by name, the adjacency matrix, the attention H x T x T, a list of
      (root, false parent) pairs, and a list of ParameterBlock.
  """
  widest = max(1 + len(row[1]) + len(row[3]) for row in rows.values())
  has_false_parents = any(row[2] for row in rows.values())
  height = 3.8 * len(rows) + (0.5 if has_false_parents else 0)  # of a legend
  figure = Figure(figsize=(3.4 * widest, height), layout="constrained")
  all_axes = figure.subplots(len(rows), widest, squeeze=False)
  for axes_of_row, (name, row) in zip(all_axes, rows.items(), strict=True):
    adjacency_TxT, maps, false, others = row
    titles = [f"{name}: graph", *_head_titles(len(maps))]
    squares = [np.asarray(adjacency_TxT, float), *maps]
    for axes, title, matrix in zip(axes_of_row, titles, squares, strict=False):
      axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
      axes.set_title(title, fontsize=10)
      number_positions(axes, len(matrix))
      frame_edges(axes, adjacency_TxT)
    for axes in axes_of_row[1 : len(squares)]:
      _frame_false_parents(axes, false, len(adjacency_TxT))
    for axes, block in zip(axes_of_row[len(squares) :], others, strict=False):
      _draw_parameter(figure, axes, block)
    for axes in axes_of_row[len(squares) + len(others) :]:
      axes.set_axis_off()
  _label_frames(figure, has_false_parents)
  return figure


def graph_and_attention(
  adjacency_TxT, attention_HxTxT, false: Sequence[tuple[int, int]] = ()
) -> Figure:
  """The adjacency matrix, and the attention of each head of layer 1.

  For T <= 100 the edges of the graph are framed in every matrix, and the pairs
  `false`, (root, false parent), in every map.
  """
  adjacency_TxT = np.asarray(adjacency_TxT, float)
  T = len(adjacency_TxT)
  maps = [np.asarray(a) for a in attention_HxTxT]
  titles = ["causal graph", *_head_titles(len(maps))]
  height = 4.4 if false else 3.9  # of a legend
  figure = Figure(
    figsize=(0.6 + 3.7 * len(titles), height), layout="constrained"
  )
  all_axes = figure.subplots(1, len(titles), squeeze=False)[0]
  for axes, title, matrix in zip(
    all_axes, titles, [adjacency_TxT, *maps], strict=True
  ):
    image = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title)
    axes.set_xlabel(
      "position attended to, j" if matrix is not adjacency_TxT else "parent, j"
    )
    axes.set_ylabel("position, i")
    number_positions(axes, T)
    frame_edges(axes, adjacency_TxT > 0)
  for axes in all_axes[1:]:
    _frame_false_parents(axes, false, len(adjacency_TxT))
  figure.colorbar(image, ax=all_axes, shrink=0.8)
  _label_frames(figure, bool(false))
  return figure


def attention_over_training(
  adjacency_TxT, rows: Mapping[str, Mapping[int, Any]]
) -> Figure:
  """Layer-1 attention over training: a row per run, a column per step.

  Each head has a colour; no attention is white. An entry to which several heads
  attend is dark. The first column is the graph.

  Args:
    adjacency_TxT: true at (child, parent).
    rows: by name, the H x T x T attention maps by step.
  """
  graph_TxTx3 = np.repeat(1 - np.asarray(adjacency_TxT, float)[..., None], 3, 2)
  columns = 1 + max(map(len, rows.values()))
  size = (1.3 * columns + 0.2, 1.45 * len(rows) + 0.3)
  figure = Figure(figsize=size, layout="constrained")
  all_axes = figure.subplots(len(rows), columns, squeeze=False)
  for axes_of_row, (name, maps) in zip(all_axes, rows.items(), strict=True):
    images = {"graph": graph_TxTx3}
    images |= {f"step {step}": _blend_heads(maps[step]) for step in maps}
    for axes, (label, image) in zip(axes_of_row, images.items(), strict=False):
      axes.imshow(image)
      axes.set_xticks([])
      axes.set_yticks([])
      axes.set_xlabel(label, size=7)
    for axes in axes_of_row[len(images) :]:
      axes.set_axis_off()
    axes_of_row[0].set_title(name, loc="left", size=8)
  return figure


def _blend_heads(attention_HxTxT) -> np.ndarray:
  """RGB image, T x T x 3: 1 - sum over heads of attention * (1 - colour)."""
  attention_HxTxT = np.asarray(attention_HxTxT)
  colours = [colors.to_rgb(f"C{head}") for head in range(len(attention_HxTxT))]
  complement_Hx3 = 1 - np.array(colours)
  image = 1 - np.einsum("hij,hc->ijc", attention_HxTxT, complement_Hx3)
  return np.clip(image, 0, 1)


def gradient_and_prediction(
  measured_TxT, predicted_TxT, adjacency_TxT
) -> Figure:
  """A gradient of A1, its closed form, and a scatter plot of the two.

  The matrices show row i times i, with i counted from 1, because the entries of
  late rows are too small to see. The scatter plot shows the unscaled entries
  with j <= i. Edges are framed in the matrices and orange in the scatter plot.
  """
  T = len(adjacency_TxT)
  edges, measured_TxT = np.array(adjacency_TxT, bool), np.array(measured_TxT)
  predicted_TxT = np.asarray(predicted_TxT)
  rows_Tx1 = np.arange(1, T + 1)[:, None]
  figure = Figure(figsize=(13.5, 4.2), layout="constrained")
  *maps, scatter = figure.subplots(1, 3)
  for axes, matrix, title in (
    (maps[0], measured_TxT, r"measured: $-i\,\partial L/\partial A_{1,ij}$"),
    (maps[1], predicted_TxT, "closed form at the start"),
  ):
    scaled = np.where(np.tri(T, dtype=bool), rows_Tx1 * matrix, np.nan)
    limit = max(float(np.nanmax(np.abs(scaled[:-1]))), 1e-30)
    image = axes.imshow(scaled, cmap="RdBu", vmin=-limit, vmax=limit)
    axes.set_title(title)
    axes.set_xlabel("candidate, j")
    axes.set_ylabel("position, i")
    number_positions(axes, T)
    frame_edges(axes, edges)
    figure.colorbar(image, ax=axes, shrink=0.8, format="%.1e")
  lower = np.tri(T, dtype=bool)
  lower[-1] = False
  child = lower & edges.any(axis=1, keepdims=True)
  for chosen, color, name in (
    (lower & ~child, "#999999", "row of a root"),
    (child & ~edges, "#56B4E9", "row of a child, no edge"),
    (edges, "#D55E00", "edge"),
  ):
    scatter.scatter(
      predicted_TxT[chosen], measured_TxT[chosen], s=9, color=color, label=name
    )
  scatter.axline((0, 0), slope=1, color="black", linewidth=0.6)
  scatter.set_xlabel("closed form at the start")
  scatter.set_ylabel("measured")
  scatter.ticklabel_format(scilimits=(-2, 2))
  scatter.legend(frameon=False)
  return figure


def heat_maps(
  panels: Mapping[str, tuple[np.ndarray, float | None, float | None, bool]],
  rows: tuple[str, Sequence],
  columns: tuple[str, Sequence],
) -> Figure:
  """Heat maps of quantities over the same grid, with a number in every cell.

  Better values are lighter.

  Args:
    panels: by name, the matrix, the ends of its colour scale, and whether lower
      is better. A nan leaves its cell empty; None stands for the least or the
      largest value.
    rows: name and values of the vertical axis.
    columns: name and values of the horizontal axis.
  """
  height = 1.4 + 0.3 * len(rows[1])
  width = 1.6 + 0.55 * len(columns[1])
  figure = Figure(figsize=(width * len(panels), height), layout="constrained")
  all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, (name, panel) in zip(all_axes, panels.items(), strict=True):
    values, low, high, is_lower_better = panel
    image = axes.imshow(
      values,
      "cividis_r" if is_lower_better else "cividis",
      aspect="auto",
      vmin=low,
      vmax=high,
    )
    for (i, j), value in np.ndenumerate(values):
      if np.isfinite(value):
        dark = np.mean(image.cmap(image.norm(value))[:3]) < 0.5
        axes.text(
          j,
          i,
          f"{value:.3g}",
          ha="center",
          va="center",
          fontsize=7,
          color="white" if dark else "black",
        )
    axes.set_title(name, fontsize=10)
    axes.set_xticks(range(len(columns[1])), [f"{v:.4g}" for v in columns[1]])
    axes.set_yticks(range(len(rows[1])), [f"{v:.4g}" for v in rows[1]])
    axes.set_xlabel(columns[0])
    axes.set_ylabel(rows[0])
  return figure


def parameter_blocks(parameters: Sequence[blocks.ParameterBlock]) -> Figure:
  """Heat maps of parameter matrices, blue above 0 and red below.

  The scale of a matrix is linear up to a fifth of its largest entry and
  logarithmic above, so that small entries are visible beside large ones. Lines
  separate the named blocks, as in figures 2 and 6 of the paper.
  """
  figure = Figure(figsize=(5.2 * len(parameters), 5.4), layout="constrained")
  all_axes = figure.subplots(1, len(parameters), squeeze=False)[0]
  for axes, block in zip(all_axes, parameters, strict=True):
    _draw_parameter(figure, axes, block)
  return figure


def _head_titles(num_heads: int) -> list[str]:
  if num_heads == 1:
    return ["layer-1 attention"]
  return [f"layer-1 attention, head {i + 1}" for i in range(num_heads)]


def _draw_parameter(figure: Figure, axes: Axes, block: blocks.ParameterBlock):
  limit = max(float(np.abs(block.matrix).max()), 1e-12)
  norm = colors.AsinhNorm(linear_width=limit / 5, vmin=-limit, vmax=limit)
  image = axes.imshow(
    block.matrix,
    cmap="RdBu",
    norm=norm,
    aspect="auto",
    interpolation="nearest",
  )
  axes.set_title(block.title)
  _separate_blocks(axes, block.row_blocks, block.column_blocks)
  figure.colorbar(
    image,
    ax=axes,
    shrink=0.7,
    location="bottom",
    ticks=limit * np.array([-1, -0.25, 0, 0.25, 1]),
    format="%.2g",
  ).minorticks_off()


def _separate_blocks(
  axes: Axes, row_blocks: blocks.Blocks, column_blocks: blocks.Blocks
):
  """Lines between the blocks, and the name of each block at its centre."""
  for named_sizes, axis, draw_line in (
    (row_blocks, axes.yaxis, axes.axhline),
    (column_blocks, axes.xaxis, axes.axvline),
  ):
    ends = np.cumsum([size for _, size in named_sizes])
    starts = ends - [size for _, size in named_sizes]
    for end in ends[:-1]:
      draw_line(end - 0.5, color="black", linewidth=0.5)
    axis.set_ticks((starts + ends - 1) / 2, [name for name, _ in named_sizes])
    axis.set_tick_params(length=0, labelsize=8)
  axes.tick_params(axis="x", rotation=90 if len(column_blocks) > 2 else 0)


def number_positions(axes: Axes, T: int):
  """At most ten positions on both axes, or six of many."""
  ticks = np.arange(0, T, max(1, T // (10 if T <= 100 else 6)))
  axes.set_xticks(ticks)
  axes.set_yticks(ticks)


def frame_edges(axes: Axes, edges_TxT):
  """A frame around each edge, unless there are too many positions."""
  if len(edges_TxT) <= _MAX_FRAMED:
    for i, j in np.argwhere(edges_TxT):
      _frame(axes, i, j, _EDGE_FRAME)


def _frame_false_parents(axes: Axes, pairs: Sequence[tuple[int, int]], T: int):
  if T <= _MAX_FRAMED:
    for i, j in pairs:
      _frame(axes, i, j, _FALSE_FRAME)


def _frame(axes: Axes, i: int, j: int, style: Mapping):
  axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, **style))


def _label_frames(figure: Figure, has_false_parents: bool):
  """A legend of the frames, if there are two kinds."""
  if has_false_parents:
    edge, false = (
      Rectangle((0, 0), 1, 1, fill=False, **style)
      for style in (_EDGE_FRAME, _FALSE_FRAME)
    )
    figure.legend(
      [edge, false],
      ["edge", "false parent of a root"],
      loc="outside lower center",
      ncols=2,
      frameon=False,
    )
