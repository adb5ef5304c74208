"""Drawings of causal graphs: positions on a line, an arc for each edge."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
import numpy as np

Edges = Sequence[tuple[int, int]]

# The styles differ in line style and in colour, so that the drawing is readable
# without colour. The colours are from Okabe and Ito's palette.
_RECOVERED = {"color": "#0072B2", "linestyle": "-", "linewidth": 1.6}
_MISSED = {"color": "#D55E00", "linestyle": "--", "linewidth": 1.6}
_FALSE = {"color": "#777777", "linestyle": ":", "linewidth": 1.6}
_NODE_RADIUS = 0.32


def graph_drawing(
  T: int, recovered: Edges, missed: Edges, false: Edges
) -> Figure:
  """The positions on a line, with an arc from each parent to its child.

  Args:
    T: number of positions.
    recovered: edges (child, parent) of the graph that the model recovers.
    missed: edges of the graph that the model does not recover.
    false: (root, false parent) pairs; their arcs are below the line.
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


def _arc_height(edge: tuple[int, int]) -> float:
  child, parent = edge
  return 0.5 * (child - parent) ** 0.75 + _NODE_RADIUS


def _draw_arc(axes: Axes, edge: tuple[int, int], side: int, style: Mapping):
  """Half an ellipse above (side 1) or below (side -1) the line; an arrow."""
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
