"""Edges that are missed, by the number of prompts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
  names = list(dict.fromkeys(name for _, c in panels.values() for name in c))
  handles = {}
  for axes, (title, (best, curves)) in zip(
    all_axes, panels.items(), strict=False
  ):
    missed = np.maximum(1 - np.asarray(best.shares), lowest / 10)
    axes.fill_between(
      best.num_prompts, lowest / 10, missed, color="#dddddd", linewidth=0
    )
    (handles["best possible"],) = axes.plot(
      best.num_prompts, missed, color="black", linewidth=1.6
    )
    colour = iter(_COLOURS)
    style = {}
    for name in names:
      if name not in curves or not curves[name].is_prediction:
        style = {"color": next(colour), "linewidth": 1.2}
      if name in curves:
        curve = curves[name]
        look = {**style, "linestyle": _DASHED if curve.is_prediction else "-"}
        values = np.maximum(1 - np.asarray(curve.shares), lowest / 10)
        (handles[name],) = axes.plot(curve.num_prompts, values, **look)
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
    axes.text(
      0.03, 0.04, "no method can be here", transform=axes.transAxes, fontsize=7
    )
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
