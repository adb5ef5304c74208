"""Models trained on pools of kernels: weights by step, graph by pool size."""

from collections.abc import Mapping, Sequence

import numpy as np

from icl_causal.plotting.figure import Figure

# Blue and green memorise no kernels, red and orange do.
_COLOURS = {
  "uniform": "#D0D7DE",
  "unigram": "#009E73",
  "unigram retrieval": "#F0B27A",
  "edge posterior": "#56B4E9",
  "retrieval": "#C0392B",
  "exact posterior": "#0B4F8A",
}
_LINES = ("#1B1F24", "#A0478A", "#00805C", "#D55E00")


def weights(
  panels: Mapping[str, Mapping[int, tuple[Sequence[int], Mapping]]],
  graph: Mapping[str, Mapping[str, np.ndarray]],
  sizes: Sequence[int],
) -> Figure:
  """Stacked weights by step, a row for each model and kind of prompts.

  The last row has what layer 1 learns of the graph, by the size of the pool.

  Args:
    panels: by title of the row and size of the pool, (steps, weights by name),
      means over seeds.
    graph: by model, `edges` and `attention`, each seeds x sizes: the share of
      edges that are recovered, and the attention on the parents.
    sizes: of the pools, one for each column.
  """
  rows, columns = len(panels) + 1, len(sizes)
  figure = Figure(
    figsize=(1.6 + 1.15 * columns, 0.8 + 1.2 * rows + 0.8),
    layout="constrained",
  )
  layout = figure.add_gridspec(
    rows, columns, height_ratios=[3] * (rows - 1) + [5]
  )
  handles = {}
  for row, (title, by_size) in enumerate(panels.items()):
    for column, size in enumerate(sizes):
      axes = figure.add_subplot(layout[row, column])
      steps, of = by_size[size]
      colours = [_COLOURS[name] for name in of]
      for name, area in zip(
        of, axes.stackplot(steps, *of.values(), colors=colours), strict=True
      ):
        handles.setdefault(name, area)
      axes.set_xscale("log", base=2)
      axes.set_xlim(steps[0], steps[-1])
      axes.set_ylim(0, 1)
      axes.set_xticks([steps[0], steps[-1]], [str(steps[0]), str(steps[-1])])
      axes.minorticks_off()
      axes.tick_params(labelsize=6, length=2)
      if column:
        axes.set_yticks([])
      else:
        axes.set_yticks([0, 1])
        axes.set_ylabel(title, fontsize=7)
      if not row:
        axes.set_title(f"M = {size}", fontsize=8)
      if row == len(panels) - 1:
        axes.set_xlabel("step", fontsize=7)
  _graph(figure, layout[rows - 1, :], graph, sizes)
  figure.legend(
    handles.values(),
    handles.keys(),
    loc="outside upper center",
    ncols=len(handles),
    frameon=False,
    fontsize=7,
  )
  return figure


def _graph(figure: Figure, place, graph, sizes: Sequence[int]):
  """Edges and parent attention by the size of the pool."""
  left, right = place.subgridspec(1, 2).subplots()
  for axes, field, title in (
    (left, "edges", "edges recovered"),
    (right, "attention", "attention on the parents"),
  ):
    for colour, (model, of) in zip(_LINES, graph.items(), strict=False):
      axes.plot(sizes, of[field].T, color=colour, linewidth=0.5, alpha=0.5)
      mean = of[field].mean(axis=0)
      axes.plot(sizes, mean, color=colour, marker="o", ms=3, label=model)
    axes.set_xscale("log", base=4)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("kernels in the pool", fontsize=8)
    axes.set_title(title, fontsize=8)
  left.legend(frameon=False, fontsize=7)
