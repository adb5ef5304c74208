"""Trainings on chains of order k: gaps to the k-gram line, gradient norms."""

from collections.abc import Mapping

from matplotlib.ticker import NullFormatter
import numpy as np

from icl_causal.plotting.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_COLORS += ("#1B1F24", "#8C6D31")
_LINE = {"color": "#777777", "linestyle": ":", "linewidth": 0.8}


def courses(
  panels: Mapping[int, Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]],
  lines: Mapping[int, np.ndarray],
) -> Figure:
  """A column for each order: gaps above, gradient norms below.

  Args:
    panels: by k and name of the model, (steps, gaps, norms), the latter two
      seeds x steps; thin lines are seeds, a thick line is their mean.
    lines: by k, the gaps of the k'-gram lines, k' = 0, .., k.
  """
  figure = Figure(figsize=(3.1 * len(panels), 5.6), layout="constrained")
  all_axes = figure.subplots(2, len(panels), squeeze=False, sharex="col")
  names = list(dict.fromkeys(name for of in panels.values() for name in of))
  handles = {}
  for (above, below), (k, of) in zip(all_axes.T, panels.items(), strict=True):
    for name, (steps, gap_RxN, norm_RxN) in of.items():
      color = _COLORS[names.index(name) % len(_COLORS)]
      for axes, curves_RxN in ((above, gap_RxN), (below, norm_RxN)):
        axes.plot(steps, curves_RxN.T, color=color, linewidth=0.4, alpha=0.5)
        mean_N = curves_RxN.mean(axis=0)
        (handle,) = axes.plot(steps, mean_N, color=color, linewidth=1.4)
      handles[name] = handle
    for fewer, gap in enumerate(lines[k]):
      above.axhline(gap, **_LINE)
      above.annotate(
        f"{fewer}-gram" if fewer else "token counts",
        (0.02, gap),
        xycoords=("axes fraction", "data"),
        ha="left",
        va="bottom",
        fontsize=6,
      )
    above.set_title(f"order {k}", fontsize=9)
    above.set_ylim(-0.02, 1.15 * max(lines[k]))
    below.set_yscale("log")
    below.yaxis.set_minor_formatter(NullFormatter())
    below.set_xscale("symlog", base=2, linthresh=1)
    longest = max(steps[-1] for steps, _, _ in of.values())
    below.set_xlim(0, longest)
    ticks = [0, *(4**n for n in range(12) if 4**n <= longest)]
    below.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=7)
    below.set_xlabel("step")
  all_axes[0, 0].set_ylabel("loss - k-gram line (nats)")
  all_axes[1, 0].set_ylabel("gradient norm")
  figure.legend(
    handles.values(),
    handles.keys(),
    loc="outside upper center",
    ncols=max(len(handles), 1),
    frameon=False,
    fontsize=7,
  )
  return figure
