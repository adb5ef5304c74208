"""When edges are learned: steps, measured against predicted."""

from collections.abc import Hashable, Mapping, Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator
from matplotlib.ticker import NullLocator
from matplotlib.ticker import StrMethodFormatter
import numpy as np

from icl_causal.plotting.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def learning_times(
  points: Mapping[tuple[Hashable, int], tuple[np.ndarray, np.ndarray]],
  positions: Sequence[int],
  curves_2xNxE: np.ndarray,
  by_strength: Mapping[float, tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Figure:
  """Three panels: steps of all edges, rows of attention, edges by strength.

  Args:
    points: by prior and number of the graph, the predicted step of each of E
      edges, and the measured ones N x E. A marker is a prior, a color a graph.
    positions: of the E rows in the second panel, counted from 1.
    curves_2xNxE: attention on the parent in these rows before each of N steps,
      measured and predicted.
    by_strength: by strength of the edge, position, measured and predicted step
      of each edge.
  """
  figure = Figure(figsize=(12.6, 4.2), layout="constrained")
  left, middle, right = figure.subplots(1, 3)
  _draw_points(left, points)
  _draw_rows(middle, positions, curves_2xNxE)
  _draw_strengths(right, by_strength)
  return figure


def _draw_points(axes: Axes, points):
  priors = list(dict.fromkeys(prior for prior, _ in points))
  colors = colormaps["viridis"]
  num = 1 + max(g for _, g in points)
  everything = []
  for (prior, g), (predicted_E, measured_NxE) in points.items():
    predicted_NxE = np.broadcast_to(predicted_E, measured_NxE.shape)
    known = np.isfinite(predicted_NxE) & np.isfinite(measured_NxE)
    axes.plot(
      predicted_NxE[known],
      measured_NxE[known],
      marker="o^sD"[priors.index(prior) % 4],
      linestyle="",
      markersize=4,
      markerfacecolor="none",
      color=colors(g / num),
      label=f"Dirichlet({prior[0]:g}), floor {prior[1]:g}" if g == 0 else None,
    )
    everything += [*predicted_NxE[known], *measured_NxE[known]]
  ends = (0.8 * min(everything), 1.25 * max(everything))
  axes.plot(ends, ends, color="#999999", linewidth=1, zorder=1)
  axes.set_xscale("log")
  axes.set_yscale("log")
  axes.set_xlim(ends)
  axes.set_ylim(ends)
  axes.set_aspect("equal")
  _label_log(axes.xaxis)
  _label_log(axes.yaxis)
  axes.set_xlabel("predicted step")
  axes.set_ylabel("measured step")
  axes.set_title("every edge; a color is a graph")
  axes.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_rows(axes: Axes, positions, curves_2xNxE):
  measured_NxE, predicted_NxE = curves_2xNxE
  for e, i in enumerate(positions):
    color = _COLORS[e % len(_COLORS)]
    axes.plot(
      measured_NxE[:, e], color=color, linewidth=3, alpha=0.4, label=f"i = {i}"
    )
    axes.plot(predicted_NxE[:, e], color="black", linewidth=1, linestyle="--")
  axes.axhline(0.5, color="#999999", linewidth=0.8, zorder=1)
  axes.set_ylim(-0.03, 1.03)
  axes.set_xlabel("step")
  axes.set_ylabel("attention on the parent")
  axes.set_title("three rows; dashed: predicted")
  axes.legend(frameon=False, fontsize=8, loc="lower right")


def _draw_strengths(axes: Axes, by_strength):
  for e, (strength, (i_E, measured_E, predicted_E)) in enumerate(
    by_strength.items()
  ):
    color = _COLORS[e % len(_COLORS)]
    order = np.argsort(i_E)
    axes.plot(i_E[order], predicted_E[order], color=color, linewidth=1)
    axes.plot(
      i_E,
      measured_E,
      marker="o",
      linestyle="",
      markersize=4,
      color=color,
      label=f"{strength:g}",
    )
  axes.set_yscale("log")
  _label_log(axes.yaxis)
  axes.set_xlabel("position of the child")
  axes.set_ylabel("step")
  axes.set_title("edges by strength; lines: closed form")
  axes.legend(
    frameon=False, fontsize=8, loc="upper left", title="strength", ncols=2
  )


def _label_log(axis: Axis):
  """Labels 1, 2, 5, 10, .. on a logarithmic axis."""
  axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axis.set_major_formatter(StrMethodFormatter("{x:g}"))
  axis.set_minor_locator(NullLocator())
