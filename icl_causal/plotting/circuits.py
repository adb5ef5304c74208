"""Effects of patches on the loss, measured beside predicted."""

from collections.abc import Mapping, Sequence

import numpy as np

from icl_causal.plotting import matrices
from icl_causal.plotting.figure import Figure


def patches(changes: Mapping[str, np.ndarray], adjacency_TxT) -> Figure:
  """Changes of the loss by patches (i, j), as matrices with one colour scale.

  Edges are framed. Changes above the scale, which ends at the largest of the
  first matrix and of those after the second, have its last colour.

  Args:
    changes: T x T by title, NaN where there is no patch: the first two are
      measured, the others predicted.
    adjacency_TxT: true at (child, parent).
  """
  figure = Figure(figsize=(4.0 * len(changes), 4.1), layout="constrained")
  all_axes = figure.subplots(1, len(changes), squeeze=False)[0]
  titles = [*changes]
  on_scale = [changes[t] for n, t in enumerate(titles) if n != 1]
  limit = max(float(np.nanmax(np.abs(on_scale))), 1e-9)
  for axes, title in zip(all_axes, titles, strict=True):
    axes.imshow(changes[title], "RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(title)
    axes.set_xlabel("position whose token is copied, j")
    matrices.number_positions(axes, len(adjacency_TxT))
    matrices.frame_edges(axes, adjacency_TxT)
  all_axes[0].set_ylabel("position that copies it, i")
  figure.colorbar(
    all_axes[0].images[0],
    ax=all_axes,
    shrink=0.8,
    label="change of the loss (nats)",
  )
  return figure


def courses(
  steps: Sequence[int], excess: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure:
  """The excess loss by step, a panel for each task, means over runs.

  Args:
    steps: of the columns, from 0 on, at least two.
    excess: by task and by name, runs x steps, in nats.
  """
  figure = Figure(figsize=(4.2 * len(excess), 3.4), layout="constrained")
  all_axes = figure.subplots(1, len(excess), squeeze=False)[0]
  for axes, (task, by_name) in zip(all_axes, excess.items(), strict=True):
    for color, (name, values) in zip(
      ("#0072B2", "#D55E00", "#00805C"), by_name.items(), strict=False
    ):
      for run in np.asarray(values):
        axes.plot(steps, run, color=color, alpha=0.35, linewidth=0.8)
      axes.plot(steps, np.mean(values, axis=0), color=color, label=name)
    axes.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    axes.set_title(task)
    axes.set_xlabel("step")
    axes.set_xscale("symlog", base=2, linthresh=max(steps[1], 1))
    axes.set_xlim(0, steps[-1])
    ticks = [0, *(step for step in steps if step.bit_count() == 1)]
    axes.set_xticks(ticks, [str(step) for step in ticks], minor=False)
    axes.tick_params(axis="x", labelsize=8)
  all_axes[0].set_ylabel("excess over the edge posterior (nats)")
  all_axes[-1].legend(title="layer 1", frameon=False)
  return figure
