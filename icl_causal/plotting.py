"""Figures of what a run learned: arrays in, matplotlib Figure out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator
from matplotlib.ticker import MaxNLocator
from matplotlib.ticker import NullFormatter
from matplotlib.ticker import StrMethodFormatter
import numpy as np

Edges = Sequence[tuple[int, int]]

# Told apart by line style as well as by colour (Okabe and Ito's palette).
_RECOVERED = {"color": "#0072B2", "linestyle": "-", "linewidth": 1.6}
_MISSED = {"color": "#D55E00", "linestyle": "--", "linewidth": 1.6}
_FALSE = {"color": "#777777", "linestyle": ":", "linewidth": 1.6}
_NODE_RADIUS = 0.32


class Panel(NamedTuple):
  """A parameter matrix whose rows and columns fall into named blocks.

  Attributes:
    title: of the panel.
    matrix: rows x columns.
    row_blocks: (name, size) from the top; the sizes add up to the rows.
    column_blocks: (name, size) from the left, likewise.
  """

  title: str
  matrix: np.ndarray
  row_blocks: Sequence[tuple[str, int]]
  column_blocks: Sequence[tuple[str, int]]


def stream_blocks(S: int, T: int, heads: Sequence[int]) -> list:
  """(name, size) of each block of the residual stream after these layers.

  Copies are named by the heads that made them: `token 1.2` is the token that
  head 2 of layer 1 copied, `token 1.2 2.1` what head 1 of layer 2 copied of it.
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


def loss_curve(
  steps: Sequence[int], losses: Sequence[float], lines: Mapping[str, float]
) -> Figure:
  """Test loss by step, against the losses of fixed predictors, in nats."""
  figure = Figure(figsize=(6.4, 4.0), layout="constrained")
  axes = figure.subplots()
  for level in lines.values():
    axes.axhline(level, color="#999999", linewidth=0.8, zorder=1)
  axes.plot(steps, losses, color="#0072B2", marker=".", label="model", zorder=2)
  low, high = min([*lines.values(), *losses]), max([*lines.values(), *losses])
  axes.set_ylim(low - 0.06 * (high - low), high + 0.08 * (high - low))
  _label_levels(axes, lines)
  axes.set_xlim(0, 1.02 * max(steps))
  axes.set_xlabel("step")
  axes.set_ylabel("test loss (nats)")
  axes.legend(frameon=False)
  return figure


def losses(
  panels: Mapping[str, tuple[Sequence[tuple], Mapping[str, float]]],
) -> Figure:
  """Test losses of several runs, against those of fixed predictors, in nats.

  Args:
    panels: by title, (steps, losses) of each run, and the lines by name.
  """
  figure = Figure(figsize=(5.6 * len(panels), 4.0), layout="constrained")
  all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, (title, (curves, lines)) in zip(
    all_axes, panels.items(), strict=True
  ):
    for level in lines.values():
      axes.axhline(level, color="#999999", linewidth=0.8, zorder=1)
    every = [loss for _, losses in curves for loss in losses]
    for steps, run in curves:
      axes.plot(steps, run, color="#0072B2", linewidth=1, alpha=0.7)
    low, high = min([*lines.values(), *every]), max([*lines.values(), *every])
    axes.set_ylim(low - 0.06 * (high - low), high + 0.08 * (high - low))
    _label_levels(axes, lines)
    axes.set_title(title)
    axes.set_xlabel("step")
  all_axes[0].set_ylabel("test loss (nats)")
  return figure


def weights(rows: Mapping[str, tuple]) -> Figure:
  """The graph, layer 1's attention and the other parameters, a row for each.

  Args:
    rows: by name, the adjacency matrix, the attention H x T x T, whose edges
      are framed, and panels of parameters.
  """
  widest = max(1 + len(maps) + len(panels) for _, maps, panels in rows.values())
  figure = Figure(figsize=(3.4 * widest, 3.8 * len(rows)), layout="constrained")
  all_axes = figure.subplots(len(rows), widest, squeeze=False)
  for axes_of_row, (name, row) in zip(all_axes, rows.items(), strict=True):
    adjacency_TxT, maps, panels = row
    titles = [f"{name}: graph"] + [
      "layer-1 attention" + (f", head {i + 1}" if len(maps) > 1 else "")
      for i in range(len(maps))
    ]
    squares = [np.asarray(adjacency_TxT, float), *maps]
    for axes, title, matrix in zip(axes_of_row, titles, squares, strict=False):
      axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
      axes.set_title(title, fontsize=10)
      _number(axes, len(matrix))
      _frame(axes, adjacency_TxT)
    for axes, panel in zip(axes_of_row[len(squares) :], panels, strict=False):
      _draw_panel(figure, axes, panel)
    for axes in axes_of_row[len(squares) + len(panels) :]:
      axes.set_axis_off()
  return figure


def graph_and_attention(adjacency_TxT, attention_HxTxT) -> Figure:
  """The adjacency matrix beside the attention of each head of layer 1.

  The edges of the graph are framed in the attention maps, up to T = 100.
  """
  adjacency_TxT = np.asarray(adjacency_TxT, float)
  T = len(adjacency_TxT)
  maps = [np.asarray(a) for a in attention_HxTxT]
  titles = ["causal graph"] + [
    "layer-1 attention" + (f", head {i + 1}" if len(maps) > 1 else "")
    for i in range(len(maps))
  ]
  figure = Figure(figsize=(0.6 + 3.7 * len(titles), 3.9), layout="constrained")
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
    _number(axes, T)
    _frame(axes, adjacency_TxT > 0)
  figure.colorbar(image, ax=all_axes, shrink=0.8)
  return figure


def films(adjacency_TxT, rows: Mapping[str, Mapping[int, Any]]) -> Figure:
  """Layer 1's attention while training: a row for each run, time to the right.

  Heads have a colour each, which takes from white as much as they attend; what
  two heads share is dark. The first column is the graph.

  Args:
    adjacency_TxT: true at (child, parent).
    rows: by name, the H x T x T attention maps by step.
  """
  graph_TxTx3 = np.repeat(1 - np.asarray(adjacency_TxT, float)[..., None], 3, 2)
  columns = 1 + max(map(len, rows.values()))
  size = (1.3 * columns + 0.2, 1.45 * len(rows) + 0.3)
  figure = Figure(figsize=size, layout="constrained")
  all_axes = figure.subplots(len(rows), columns, squeeze=False)
  for own, (name, maps) in zip(all_axes, rows.items(), strict=True):
    images = {"graph": graph_TxTx3}
    images |= {f"step {step}": _in_colours(maps[step]) for step in maps}
    for axes, (label, image) in zip(own, images.items(), strict=False):
      axes.imshow(image)
      axes.set_xticks([])
      axes.set_yticks([])
      axes.set_xlabel(label, size=7)
    for axes in own[len(images) :]:
      axes.set_axis_off()
    own[0].set_title(name, loc="left", size=8)
  return figure


def _in_colours(attention_HxTxT) -> np.ndarray:
  """T x T x 3: white, less the complement of a head's colour by attention."""
  attention_HxTxT = np.asarray(attention_HxTxT)
  colours = [colors.to_rgb(f"C{head}") for head in range(len(attention_HxTxT))]
  taken_Hx3 = 1 - np.array(colours)
  image = 1 - np.einsum("hij,hc->ijc", attention_HxTxT, taken_Hx3)
  return np.clip(image, 0, 1)


def gradient_and_prediction(
  measured_TxT, predicted_TxT, adjacency_TxT
) -> Figure:
  """A gradient of A1 beside its closed form, and one against the other.

  The matrices show row i, counted from 1, times i, without which late rows are
  too pale to see; the scatter shows all entries j <= i as they are. Edges are
  framed in the matrices and have a colour of their own in the scatter.
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
    _number(axes, T)
    _frame(axes, edges)
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


def decay(
  x: Sequence[float],
  curves: Mapping[str, Sequence[float]],
  x_label: str,
  y_label: str,
) -> Figure:
  """Curves by name on logarithmic axes, with a line of slope -1 to compare."""
  figure = Figure(figsize=(7.6, 4.4), layout="constrained")
  axes = figure.subplots()
  markers = "osv^Dx+*"
  for i, (name, y) in enumerate(curves.items()):
    axes.plot(x, y, marker=markers[i % len(markers)], markersize=5, label=name)
  top = max(max(y) for y in curves.values())
  axes.plot(
    x,
    [top * x[0] / value for value in x],
    color="#999999",
    linestyle=":",
    label="slope -1",
  )
  axes.set_xscale("log", base=2)
  axes.set_yscale("log")
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  figure.legend(loc="outside right upper", frameon=False, fontsize=8)
  return figure


def scaling(
  panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]],
  x_label: str,
  y_label: str,
) -> Figure:
  """Curves on logarithmic axes, panels side by side.

  Args:
    panels: by title, x and up to three curves by name, the last one dotted.
    x_label: of every panel.
    y_label: of the first.
  """
  figure = Figure(figsize=(1.2 + 3.0 * len(panels), 3.6), layout="constrained")
  all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  styles = ({"color": "#D55E00", "marker": "s"}, {"color": "#0072B2"})
  styles += ({"color": "#777777", "linestyle": ":"},)
  for axes, (title, (x, curves)) in zip(all_axes, panels.items(), strict=True):
    for style, (name, y) in zip(styles, curves.items(), strict=False):
      axes.plot(x, y, **{"marker": "o", "markersize": 4, **style}, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(x, [f"{value:g}" for value in x], minor=False)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.grid(alpha=0.3)
  all_axes[0].set_ylabel(y_label)
  all_axes[-1].legend(frameon=False, fontsize=8, loc="upper left")
  return figure


def recall(x: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
  """The share of edges found against the number of sequences, by name."""
  figure = Figure(figsize=(7.6, 4.0), layout="constrained")
  axes = figure.subplots()
  for i, (name, y) in enumerate(curves.items()):
    axes.plot(x, y, marker="os^Dv*"[i % 6], markersize=5, label=name)
  axes.set_xscale("log", base=2)
  axes.set_ylim(-0.04, 1.04)
  axes.set_xlabel("sequences")
  axes.set_ylabel("share of edges found")
  figure.legend(loc="outside right upper", frameon=False, fontsize=8)
  return figure


def bands(
  curves: Mapping[str, np.ndarray], x_label: str, y_label: str
) -> Figure:
  """Curves with bands around them, by name.

  Args:
    curves: rows x, middle, low, high.
    x_label: of the horizontal axis.
    y_label: of the vertical axis.
  """
  figure = Figure(figsize=(7.6, 4.0), layout="constrained")
  axes = figure.subplots()
  for name, (x, middle, low, high) in curves.items():
    (line,) = axes.plot(x, middle, marker=".", label=name)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  figure.legend(loc="outside right upper", frameon=False, fontsize=8)
  return figure


def heat_maps(
  panels: Mapping[str, tuple[np.ndarray, float | None, float | None]],
  rows: tuple[str, Sequence],
  columns: tuple[str, Sequence],
) -> Figure:
  """Heat maps of one grid side by side, with a number in every cell.

  Args:
    panels: by name, the matrix, where nan leaves a cell empty, and the ends
      of its colour scale, by default its least and largest value.
    rows: name and values of the vertical axis.
    columns: name and values of the horizontal axis.
  """
  height = 1.4 + 0.3 * len(rows[1])
  width = 1.6 + 0.55 * len(columns[1])
  figure = Figure(figsize=(width * len(panels), height), layout="constrained")
  all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, (name, panel) in zip(all_axes, panels.items(), strict=True):
    values, low, high = panel
    image = axes.imshow(values, "cividis", aspect="auto", vmin=low, vmax=high)
    for (i, j), value in np.ndenumerate(values):
      if np.isfinite(value):
        dark = image.norm(value) < 0.5
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


def scatter(
  points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  x_label: str,
  y_label: str,
  log: bool,
) -> Figure:
  """Points by name, on a logarithmic horizontal axis with `log`."""
  figure = Figure(figsize=(6.4, 4.0), layout="constrained")
  axes = figure.subplots()
  for name, (x, y) in points.items():
    axes.plot(x, y, marker="o", linestyle="", markersize=4, label=name)
  if log:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  figure.legend(loc="outside right upper", frameon=False, fontsize=8)
  return figure


def attention_by_position(
  mean: Sequence[float | None],
  deviation: Sequence[float | None],
  roots: Sequence[int],
  false_parents: Sequence[int],
) -> Figure:
  """Attention to the parent over many runs, and roots with a false parent.

  Args:
    mean: attention on the parent by position; None where no run has one.
    deviation: its standard deviation, drawn as a band.
    roots: in how many runs each position is a root.
    false_parents: how many of these attend to one earlier position.
  """
  figure = Figure(figsize=(6.4, 4.8), layout="constrained")
  above, below = figure.subplots(2, 1, sharex=True)
  i = np.array([i for i, m in enumerate(mean) if m is not None], int)
  middle = np.array([m for m in mean if m is not None])
  width = np.array([d for d in deviation if d is not None])
  above.fill_between(
    i,
    middle - width,
    middle + width,
    color="#0072B2",
    alpha=0.25,
    linewidth=0,
    label="standard deviation over runs",
  )
  above.plot(i, middle, color="#0072B2", marker=".", label="mean")
  above.set_ylabel("attention on the parent")
  positions = np.arange(len(roots))
  below.bar(positions, roots, color="#cccccc", label="all roots")
  below.bar(
    positions, false_parents, color="#D55E00", label="with a false parent"
  )
  below.set_ylabel("roots")
  below.set_xlabel("position")
  below.xaxis.set_major_locator(MaxNLocator(integer=True))
  below.yaxis.set_major_locator(MaxNLocator(integer=True))
  figure.legend(loc="outside lower center", ncols=2, frameon=False)
  return figure


def parameter_blocks(panels: Sequence[Panel]) -> Figure:
  """Heat maps of parameter matrices, blue above 0 and red below.

  Each panel has its own scale, linear to a fifth of its largest entry and
  logarithmic from there, so that a few large entries hide nothing. Blocks of
  the residual stream are ruled off and named (as in the paper's figures 2, 6).
  """
  figure = Figure(figsize=(5.2 * len(panels), 5.4), layout="constrained")
  for axes, panel in zip(
    figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
  ):
    _draw_panel(figure, axes, panel)
  return figure


def graph_drawing(
  T: int, recovered: Edges, missed: Edges, false: Edges
) -> Figure:
  """The positions on a line, with an arc from each parent to its child.

  Args:
    T: number of positions.
    recovered: edges (child, parent) that the model found.
    missed: edges that it did not.
    false: roots, each with the position that it attends to all the same; drawn
      below the line.
  """
  above = max([_arc_height(e) for e in [*recovered, *missed]], default=0)
  below = max([_arc_height(e) for e in false], default=0)
  low, high = -below - 0.5, above + 0.5
  figure = Figure(
    figsize=(0.4 * T + 0.4, 0.4 * (high - low) + 0.5), layout="constrained"
  )
  axes = figure.subplots()
  for edges, style, side, name in (
    (recovered, _RECOVERED, 1, "recovered"),
    (missed, _MISSED, 1, "missed"),
    (false, _FALSE, -1, "false"),
  ):
    for edge in edges:
      _draw_arc(axes, edge, side, style)
    axes.plot([], [], label=f"{name}: {len(edges)}", **style)
  for i in range(T):
    axes.add_patch(Circle((i, 0), _NODE_RADIUS, fill=False))
    axes.text(i, 0, str(i), ha="center", va="center", fontsize=7)
  axes.set_xlim(-0.6, T - 0.4)
  axes.set_ylim(low, high)
  axes.set_aspect("equal")
  axes.set_axis_off()
  figure.legend(loc="outside lower center", ncols=3, frameon=False)
  return figure


def _draw_panel(figure: Figure, axes: Axes, panel: Panel):
  limit = max(float(np.abs(panel.matrix).max()), 1e-12)
  norm = AsinhNorm(linear_width=limit / 5, vmin=-limit, vmax=limit)
  image = axes.imshow(
    panel.matrix,
    cmap="RdBu",
    norm=norm,
    aspect="auto",
    interpolation="nearest",
  )
  axes.set_title(panel.title)
  _rule_blocks(axes, panel.row_blocks, panel.column_blocks)
  figure.colorbar(
    image,
    ax=axes,
    shrink=0.7,
    location="bottom",
    ticks=limit * np.array([-1, -0.25, 0, 0.25, 1]),
    format="%.2g",
  ).minorticks_off()


def _number(axes: Axes, T: int):
  ticks = np.arange(0, T, max(1, T // (10 if T <= 100 else 6)))
  axes.set_xticks(ticks)
  axes.set_yticks(ticks)


def _frame(axes: Axes, edges_TxT):
  if len(edges_TxT) > 100:  # a frame would hide its entry
    return
  for i, j in np.argwhere(edges_TxT):
    axes.add_patch(
      Rectangle(
        (j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1
      )
    )


def _arc_height(edge: tuple[int, int]) -> float:
  child, parent = edge
  return 0.5 * (child - parent) ** 0.75 + _NODE_RADIUS


def _draw_arc(axes: Axes, edge: tuple[int, int], side: int, style: Mapping):
  """Half an ellipse over the line (side 1) or under it, with an arrowhead."""
  child, parent = edge
  angle = np.linspace(0, np.pi, 100)
  x = (parent + child) / 2 - (child - parent) / 2 * np.cos(angle)
  y = side * _arc_height(edge) * np.sin(angle)
  outside = np.abs(y) > _NODE_RADIUS
  x, y = x[outside], y[outside]
  axes.plot(x[:-3], y[:-3], **style)
  head = {"arrowstyle": "-|>", "color": style["color"], "shrinkA": 0}
  axes.annotate(
    "",
    xy=(x[-1], y[-1]),
    xytext=(x[-4], y[-4]),
    arrowprops={**head, "shrinkB": 0},
  )


def _label_levels(axes: Axes, lines: Mapping[str, float]):
  """Names of horizontal lines, right of the axes, kept from overlapping."""
  low, high = axes.get_ylim()
  lowest_free = -np.inf
  for name, level in sorted(lines.items(), key=lambda item: item[1]):
    height = max((level - low) / (high - low), lowest_free)
    lowest_free = height + 0.055
    axes.annotate(
      f"{name} {level:.3f}",
      xy=(1, level),
      xycoords=("axes fraction", "data"),
      xytext=(1.04, height),
      textcoords="axes fraction",
      va="center",
      fontsize=8,
      arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6},
    )


def _rule_blocks(axes: Axes, row_blocks, column_blocks):
  for blocks, axis, rule in (
    (row_blocks, axes.yaxis, axes.axhline),
    (column_blocks, axes.xaxis, axes.axvline),
  ):
    ends = np.cumsum([size for _, size in blocks])
    starts = ends - [size for _, size in blocks]
    for end in ends[:-1]:
      rule(end - 0.5, color="black", linewidth=0.5)
    axis.set_ticks((starts + ends - 1) / 2, [name for name, _ in blocks])
    axis.set_tick_params(length=0, labelsize=8)
  axes.tick_params(axis="x", rotation=90 if len(column_blocks) > 2 else 0)
