"""Edges that are missed, by the number of prompts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator
from matplotlib.ticker import NullLocator
from matplotlib.ticker import StrMethodFormatter
import numpy as np

from icl_causal.plotting.figure import Figure

_COLOURS = ("#D55E00", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#0072B2")
_DASHED = (0, (4, 2))


class Curve(NamedTuple):
  """A curve of the share of edges by the number of prompts.

  Attributes:
    num_prompts: N.
    shares: of edges found.
    is_prediction: drawn as a dashed line in the colour of the curve before.
  """

  num_prompts: Sequence[float]
  shares: Sequence[float]
  is_prediction: bool = False


def missed_edges(
  panels: Mapping[str, tuple[Curve, Mapping[str, Curve]]],
  lowest: float = 0.002,
  columns: int = 2,
) -> Figure:
  """The share of edges missed on logarithmic axes, panels in rows.

  Below the best possible method there is no method: this region is shaded.

  Args:
    panels: by title, the curve of the best possible method, and others by
      name. The same name has the same colour in every panel.
    lowest: the least share that is shown.
    columns: panels side by side.
  """
  rows = -(-len(panels) // columns)
  figure = Figure(figsize=(7.6, 0.9 + 2.5 * rows), layout="constrained")
  all_axes = figure.subplots(
    rows, columns, sharex=True, sharey=True, squeeze=False
  ).ravel()
  styles, handles = _styles([curves for _, curves in panels.values()]), {}
  for axes, (title, (best, curves)) in zip(
    all_axes, panels.items(), strict=False
  ):
    missed = _missed(best, lowest)
    axes.fill_between(
      best.num_prompts, lowest / 10, missed, color="#dddddd", linewidth=0
    )
    black = {"color": "black", "linewidth": 1.6}
    (line,) = axes.plot(best.num_prompts, missed, **black)
    handles.setdefault("best possible", line)
    for name, curve in curves.items():
      y = _missed(curve, lowest)
      (line,) = axes.plot(curve.num_prompts, y, **styles[name])
      handles.setdefault(name, line)
    _finish(axes, title, lowest)
  for axes in all_axes[len(panels) :]:
    axes.set_visible(False)
  figure.supxlabel("prompts", fontsize=10)
  figure.supylabel("share of edges missed", fontsize=10)
  figure.legend(
    handles.values(),
    handles.keys(),
    loc="outside upper center",
    ncols=3,
    frameon=False,
    fontsize=8,
  )
  return figure


def _styles(panels: Sequence[Mapping[str, Curve]]) -> dict[str, dict]:
  """Colour and dashes by name; a prediction has the colour before it."""
  curves = {name: curve for panel in panels for name, curve in panel.items()}
  colours, styles, colour = iter(_COLOURS), {}, "black"
  for name, curve in curves.items():
    if not curve.is_prediction:
      colour = next(colours)
    dashes = _DASHED if curve.is_prediction else "-"
    styles[name] = {"color": colour, "linestyle": dashes, "linewidth": 1.2}
  return styles


def _missed(curve: Curve, lowest: float) -> np.ndarray:
  """The share that is missed; 0 is far below the axes."""
  return np.maximum(1 - np.asarray(curve.shares), lowest / 10)


def _finish(axes: Axes, title: str, lowest: float):
  for level in (0.1, 0.01):
    axes.axhline(level, color="#999999", linewidth=0.6, linestyle=":")
  axes.set_title(title, fontsize=9)
  axes.set_xscale("log", base=2)
  axes.set_yscale("log")
  axes.set_ylim(lowest, 1)
  axes.yaxis.set_major_locator(FixedLocator((0.01, 0.1, 1)))
  axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
  axes.yaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_major_locator(FixedLocator([4**k for k in range(12)]))
  axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
  label = "no method can be here"
  axes.text(0.03, 0.04, label, transform=axes.transAxes, fontsize=7)
