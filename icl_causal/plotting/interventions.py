"""The number of prompts that are needed, by the share of set tokens."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.ticker import LogLocator
from matplotlib.ticker import NullFormatter
from matplotlib.ticker import StrMethodFormatter
import numpy as np

from icl_causal.plotting.figure import Figure

_COLORS = ("#000000", "#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7")


class Curve(NamedTuple):
  """A curve by the share of set tokens.

  Attributes:
    shares: from 0 to 1.
    prompts: NaN where the level is not reached.
    errors: standard errors.
    is_prediction: drawn dashed and without error bars.
  """

  shares: Sequence[float]
  prompts: Sequence[float]
  errors: Sequence[float]
  is_prediction: bool = False


def needed_by_share(
  panels: Mapping[str, Mapping[str, Curve]], label: str, columns: int = 2
) -> Figure:
  """Panels with a curve for each name, on a logarithmic axis of prompts.

  A dot marks the least value of each curve. An error bar is one standard error
  up and one down.

  Args:
    panels: by title, curves by name. The same name has the same color in every
      panel.
    label: of the vertical axis.
    columns: panels side by side.
  """
  rows = -(-len(panels) // columns)
  figure = Figure(
    figsize=(3.8 * columns, 0.8 + 2.3 * rows), layout="constrained"
  )
  all_axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
  names = dict.fromkeys(name for panel in panels.values() for name in panel)
  colors = dict(zip(names, _COLORS, strict=False))
  handles = {}
  for axes, (title, curves) in zip(all_axes, panels.items(), strict=False):
    for name, curve in curves.items():
      errors = None if curve.is_prediction else curve.errors
      handles[name] = axes.errorbar(
        curve.shares,
        curve.prompts,
        errors,
        color=colors[name],
        linestyle="--" if curve.is_prediction else "-",
        linewidth=1.2,
        elinewidth=1.2,
      )
      if not np.isnan(curve.prompts).all():
        least = int(np.nanargmin(curve.prompts))
        point = [curve.shares[least]], [curve.prompts[least]]
        axes.plot(*point, "o", color=colors[name], markersize=4)
    axes.set_title(title, fontsize=9)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
  for axes in all_axes[len(panels) :]:
    axes.set_visible(False)
  figure.supxlabel("share of set tokens", fontsize=10)
  figure.supylabel(label, fontsize=10)
  figure.legend(
    handles.values(),
    handles.keys(),
    loc="outside upper center",
    ncols=3,
    frameon=False,
    fontsize=8,
  )
  return figure
