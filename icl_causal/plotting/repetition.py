"""Training on N prompts, over and over: heat maps by N and step."""

from collections.abc import Mapping, Sequence

import numpy as np

from icl_causal.plotting.figure import Figure


def heat_maps(
  panels: Mapping[str, np.ndarray], labels: Sequence[str], steps: Sequence[int]
) -> Figure:
  """A heat map for each quantity, with its value in every cell.

  Args:
    panels: by title, an array of shape len(labels) x len(steps); a cell that is
      NaN stays empty.
    labels: of the rows: numbers of prompts.
    steps: of the columns.
  """
  figure = Figure(
    figsize=(1.2 + 0.52 * len(steps) * 2, 1.0 + 0.42 * len(labels) * 2),
    layout="constrained",
  )
  rows = (len(panels) + 1) // 2
  all_axes = figure.subplots(rows, 2, squeeze=False)
  for axes in all_axes.flat[len(panels) :]:
    axes.remove()
  for axes, (title, values) in zip(all_axes.flat, panels.items(), strict=False):
    axes.imshow(values, aspect="auto", cmap="viridis")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for row, column in np.argwhere(~np.isnan(values)):
      value = values[row, column]
      axes.text(
        column,
        row,
        f"{value:.2f}",
        ha="center",
        va="center",
        fontsize=7,
        color="black" if value > middle else "white",
      )
    axes.set_title(title)
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("step")
    axes.set_ylabel("prompts")
  return figure
