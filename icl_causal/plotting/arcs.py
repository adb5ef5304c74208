"""Drawings of causal graphs: positions on a line, an arc for each edge."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Circle
import numpy as np

from icl_causal.plotting.figure import Figure

Edges = Sequence[tuple[int, int]]
Style = Mapping[str, Any]

# The styles differ in line style and in colour, so that the drawing is readable
# without colour. The colours are from Okabe and Ito's palette.
_RECOVERED: Style = {"color": "#0072B2", "linestyle": "-"}
_MISSED: Style = {"color": "#D55E00", "linestyle": "--"}
_FALSE: Style = {"color": "#777777", "linestyle": ":"}
_TARGET: Style = {"color": "#000000", "linestyle": "-"}
_NODE_RADIUS = 0.32


def graph_drawing(
  T: int,
  recovered: Edges,
  missed: Edges,
  false: Edges,
  attention: Mapping[tuple[int, int], float],
  target: Sequence[int],
  query: int | None,
) -> Figure:
  """The positions on a line, with an arc from each parent to its child.

  The predicted token is a dashed circle at the end of the line.

  Args:
    T: number of positions.
    recovered: edges (child, parent) of the graph that the model recovers.
    missed: edges of the graph that the model does not recover.
    false: (root, false parent) pairs; their arcs are below the line.
    attention: on each of these pairs, from 0 to 1; the width of its arc.
    target: the parents of the predicted token; they are given.
    query: the position of the query, or None.
  """
  to_target = [(T, parent) for parent in target]
  arcs = [*recovered, *missed, *to_target]
  above = max([_arc_height(e) for e in arcs], default=0)
  below = max([_arc_height(e) for e in false], default=0)
  low, high = -max(below, 0.6) - 0.5, above + 0.5
  figure = Figure(
    figsize=(0.4 * T + 0.8, 0.4 * (high - low) + 0.5), layout="constrained"
  )
  axes = figure.subplots()
  for edges, style, side, name in (
    (recovered, _RECOVERED, 1, "recovered"),
    (missed, _MISSED, 1, "missed"),
    (false, _FALSE, -1, "false"),
  ):
    for edge in edges:
      _draw_arc(axes, edge, side, _width(attention[edge]), style)
    axes.plot([], [], label=f"{name}: {len(edges)}", **style)
  for edge in to_target:
    _draw_arc(axes, edge, 1, _width(0), _TARGET)
  for i in range(T + 1):
    line = "--" if i == T else "-"
    axes.add_patch(Circle((i, 0), _NODE_RADIUS, fill=False, linestyle=line))
    text = "?" if i == T else str(i)
    axes.text(i, 0, text, ha="center", va="center", fontsize=7)
  names = {T: "target"} | ({} if query is None else {query: "query"})
  for i, name in names.items():
    axes.text(i, -0.4, name, ha="center", va="top", fontsize=7)
  axes.set_xlim(-0.6, T + 0.6)
  axes.set_ylim(low, high)
  axes.set_aspect("equal")
  axes.set_axis_off()
  figure.legend(loc="outside lower center", ncols=3, frameon=False)
  return figure


def _arc_height(edge: tuple[int, int]) -> float:
  child, parent = edge
  return 0.5 * (child - parent) ** 0.75 + _NODE_RADIUS


def _width(attention: float) -> float:
  """The width of the arc of an edge."""
  return 0.4 + 2.6 * attention


def _draw_arc(
  axes: Axes, edge: tuple[int, int], side: int, width: float, style: Style
):
  """Half an ellipse above (side 1) or below (side -1) the line; an arrow."""
  child, parent = edge
  angle = np.linspace(0, np.pi, 100)
  x = (parent + child) / 2 - (child - parent) / 2 * np.cos(angle)
  y = side * _arc_height(edge) * np.sin(angle)
  outside = np.abs(y) > _NODE_RADIUS
  x, y = x[outside], y[outside]
  axes.plot(x[:-3], y[:-3], linewidth=width, **style)
  head = {"arrowstyle": "-|>", "color": style["color"], "linewidth": 1}
  axes.annotate(
    "",
    xy=(x[-1], y[-1]),
    xytext=(x[-4], y[-4]),
    arrowprops={**head, "shrinkA": 0, "shrinkB": 0},
  )
