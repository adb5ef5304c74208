"""Curves over the positions of a prompt."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from icl_causal.plotting.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", ":")


class Panel(NamedTuple):
  """What a panel shows.

  Attributes:
    title: of the panel.
    y_label: of the vertical axis.
    curves: by name, positions counted from 1, values, and their standard errors
      or None.
    marks: positions with a vertical line, by its name.
  """

  title: str
  y_label: str
  curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]
  marks: Mapping[str, float] = {}


def by_position(panels: Sequence[Panel], columns: int = 2) -> Figure:
  """Panels with a curve for each name; a band is two standard errors wide."""
  rows = -(-len(panels) // columns)
  figure = Figure(figsize=(3.5 * columns, 2.7 * rows), layout="constrained")
  all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
  for axes, panel in zip(all_axes, panels, strict=False):
    for n, (name, (x, y, error)) in enumerate(panel.curves.items()):
      color = _COLORS[n % len(_COLORS)]
      dashes = _DASHES[n // len(_COLORS) % len(_DASHES)]
      axes.plot(x, y, color=color, linestyle=dashes, linewidth=1.3, label=name)
      if error is not None:
        band = {"color": color, "alpha": 0.2, "linewidth": 0}
        axes.fill_between(x, y - error, y + error, **band)
    for name, x in panel.marks.items():
      axes.axvline(x, color="#777777", linewidth=1, linestyle=":", label=name)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel("position")
    axes.set_ylabel(panel.y_label)
    axes.legend(frameon=False, fontsize=7)
  for axes in all_axes[len(panels) :]:
    axes.set_axis_off()
  return figure
