"""Curves, bands and points: losses, errors, shares and times."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from matplotlib.ticker import MaxNLocator
from matplotlib.ticker import NullFormatter
from matplotlib.ticker import StrMethodFormatter
import numpy as np

from icl_causal.plotting.figure import Figure


def loss_curve(
  losses: Mapping[int, float],
  baselines: Mapping[str, float],
  estimates: Mapping[int, float] | None = None,
  shares: Mapping[str, Mapping[int, float]] | None = None,
) -> Figure:
  """Test loss in nats on a logarithmic axis of steps, and shares below it.

  Args:
    losses: on the test set, by step.
    baselines: losses by name.
    estimates: from a part of the test set, by other steps; drawn as open
      circles.
    shares: curves between 0 and 1 by name, such as the share of edges that
      are recovered; each is a mapping by step.
  """
  ratios = (2, 1) if shares else (1,)
  figure = Figure(figsize=(6.8, 5.0 if shares else 3.6), layout="constrained")
  panels = figure.subplots(
    len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios
  )[:, 0]
  above, lowest = panels[0], panels[-1]
  every = dict(sorted({**(estimates or {}), **losses}.items()))
  line = {"color": "#0072B2", "linewidth": 1.2}
  dots = {**line, "marker": "o", "markersize": 4, "linestyle": ""}
  above.plot(every.keys(), every.values(), **line)
  above.plot(losses.keys(), losses.values(), **dots, label="test set")
  if estimates:
    hollow = {**dots, "markerfacecolor": "white"}
    label = "estimate from a part of it"
    above.plot(estimates.keys(), estimates.values(), **hollow, label=label)
    above.legend(frameon=False, loc="upper right")
  _draw_baselines(above, baselines, list(every.values()))
  above.set_ylabel("test loss (nats)")
  if shares:
    styles = ({"color": "#0072B2"}, {"color": "#D55E00", "linestyle": "--"})
    for style, (name, curve) in zip(styles, shares.items(), strict=False):
      lowest.plot(curve.keys(), curve.values(), **style, label=name)
    lowest.legend(frameon=False, loc="lower right")
    lowest.set_ylim(-0.06, 1.06)
    lowest.set_ylabel("share")
  lowest.set_xlabel("step")
  lowest.set_xscale("symlog", base=2, linthresh=1)
  lowest.set_xlim(min(every), 1.3 * max(*every, 1))
  ticks = [0, *(4**k for k in range(20))]
  ticks = [step for step in ticks if min(every) <= step <= max(every)]
  lowest.set_xticks(ticks, [str(step) for step in ticks], minor=False)
  return figure


def losses(
  panels: Mapping[str, tuple[Sequence[tuple], Mapping[str, float]]],
) -> Figure:
  """Test losses of several runs, with those of the baselines, in nats.

  Args:
    panels: by title, a list with the (steps, losses) of each run, and the
      baselines by name.
  """
  figure = Figure(figsize=(5.6 * len(panels), 4.0), layout="constrained")
  all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, (title, (curves, baselines)) in zip(
    all_axes, panels.items(), strict=True
  ):
    for steps, curve in curves:
      axes.plot(steps, curve, color="#0072B2", linewidth=1, alpha=0.7)
    all_losses = [loss for _, curve in curves for loss in curve]
    _draw_baselines(axes, baselines, all_losses)
    axes.set_title(title)
    axes.set_xlabel("step")
  all_axes[0].set_ylabel("test loss (nats)")
  return figure


def decay(
  x: Sequence[float],
  curves: Mapping[str, Sequence[float]],
  x_label: str,
  y_label: str,
) -> Figure:
  """Curves by name on logarithmic axes, with a reference line of slope -1."""
  figure = Figure(figsize=(7.6, 4.4), layout="constrained")
  axes = figure.subplots()
  markers = "osv^Dx+*"
  for i, (name, y) in enumerate(curves.items()):
    axes.plot(x, y, marker=markers[i % len(markers)], markersize=5, label=name)
  top = max(max(y) for y in curves.values())
  axes.plot(
    x,
    [top * x[0] / value for value in x],
    color="#999999",
    linestyle=":",
    label="slope -1",
  )
  axes.set_xscale("log", base=2)
  axes.set_yscale("log")
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  figure.legend(loc="outside right upper", frameon=False, fontsize=8)
  return figure


def scaling(
  panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]],
  x_label: str,
  y_label: str,
) -> Figure:
  """Curves on logarithmic axes, panels side by side.

  Args:
    panels: by title, x and up to three curves by name, the last one dotted.
    x_label: of every panel.
    y_label: of the first panel.
  """
  figure = Figure(figsize=(1.2 + 3.0 * len(panels), 3.6), layout="constrained")
  all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  styles = ({"color": "#D55E00", "marker": "s"}, {"color": "#0072B2"})
  styles += ({"color": "#777777", "linestyle": ":"},)
  for axes, (title, (x, curves)) in zip(all_axes, panels.items(), strict=True):
    for style, (name, y) in zip(styles, curves.items(), strict=False):
      axes.plot(x, y, **{"marker": "o", "markersize": 4, **style}, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(x, [f"{value:g}" for value in x], minor=False)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.grid(alpha=0.3)
  all_axes[0].set_ylabel(y_label)
  all_axes[-1].legend(frameon=False, fontsize=8, loc="upper left")
  return figure


def recall(x: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
  """Curves by name: share of edges recovered by number of sequences."""
  figure = Figure(figsize=(7.6, 4.0), layout="constrained")
  axes = figure.subplots()
  for i, (name, y) in enumerate(curves.items()):
    axes.plot(x, y, marker="os^Dv*"[i % 6], markersize=5, label=name)
  axes.set_xscale("log", base=2)
  axes.set_ylim(-0.04, 1.04)
  axes.set_xlabel("sequences")
  axes.set_ylabel("share of edges found")
  figure.legend(loc="outside right upper", frameon=False, fontsize=8)
  return figure


def bands(
  curves: Mapping[str, np.ndarray], x_label: str, y_label: str
) -> Figure:
  """Curves by name, each with a band.

  Args:
    curves: by name, an array with the rows x, middle, low, high.
    x_label: of the horizontal axis.
    y_label: of the vertical axis.
  """
  figure = Figure(figsize=(7.6, 4.0), layout="constrained")
  axes = figure.subplots()
  for name, (x, middle, low, high) in curves.items():
    (line,) = axes.plot(x, middle, marker=".", label=name)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  figure.legend(loc="outside right upper", frameon=False, fontsize=8)
  return figure


def scatter(
  points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  x_label: str,
  y_label: str,
  log: bool,
) -> Figure:
  """Points by name; the horizontal axis is logarithmic if `log` is true."""
  figure = Figure(figsize=(6.4, 4.0), layout="constrained")
  axes = figure.subplots()
  for name, (x, y) in points.items():
    axes.plot(x, y, marker="o", linestyle="", markersize=4, label=name)
  if log:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  figure.legend(loc="outside right upper", frameon=False, fontsize=8)
  return figure


def attention_by_position(
  mean: Sequence[float | None],
  deviation: Sequence[float | None],
  roots: Sequence[int],
  false_parents: Sequence[int],
) -> Figure:
  """Attention to the parent over many runs, and roots with a false parent.

  Args:
    mean: over runs, of the attention on the parent, by position; None where
      the position has no parent in any run.
    deviation: standard deviation over runs, by position; drawn as a band
      between 0 and 1.
    roots: number of runs in which the position is a root.
    false_parents: number of these roots that have a false parent.
  """
  figure = Figure(figsize=(6.4, 4.8), layout="constrained")
  above, below = figure.subplots(2, 1, sharex=True)
  i = np.array([i for i, m in enumerate(mean) if m is not None], int)
  middle = np.array([m for m in mean if m is not None])
  width = np.array([d for d in deviation if d is not None])
  above.fill_between(
    i,
    np.maximum(middle - width, 0),
    np.minimum(middle + width, 1),
    color="#0072B2",
    alpha=0.25,
    linewidth=0,
    label="standard deviation over runs",
  )
  above.plot(i, middle, color="#0072B2", marker=".", label="mean")
  above.set_ylabel("attention on the parent")
  positions = np.arange(len(roots))
  below.bar(positions, roots, color="#cccccc", label="all roots")
  below.bar(
    positions, false_parents, color="#D55E00", label="with a false parent"
  )
  below.set_ylabel("roots")
  below.set_xlabel("position")
  below.xaxis.set_major_locator(MaxNLocator(integer=True))
  below.yaxis.set_major_locator(MaxNLocator(integer=True))
  figure.legend(loc="outside lower center", ncols=2, frameon=False)
  return figure


def _draw_baselines(
  axes: Axes, baselines: Mapping[str, float], losses: Sequence[float]
):
  """A horizontal line for each baseline, behind the curves, with its name.

  The vertical axis is set to the range of the baselines and the losses. An
  entropy that would take more than half of it is a label below the axes.
  """
  lines = dict(baselines)
  others = [v for name, v in baselines.items() if name != "entropy"]
  low, high = min([*others, *losses]), max([*others, *losses])
  if low - lines.get("entropy", low) > high - low:
    entropy = lines.pop("entropy")
    axes.annotate(
      f"entropy {entropy:.3f}, below",
      xy=(1.04, 0),
      xycoords="axes fraction",
      va="top",
      fontsize=8,
    )
  for level in lines.values():
    axes.axhline(level, color="#999999", linewidth=0.8, zorder=1)
  low, high = min([*lines.values(), *losses]), max([*lines.values(), *losses])
  axes.set_ylim(low - 0.06 * (high - low), high + 0.08 * (high - low))
  _label_levels(axes, lines)


def _label_levels(axes: Axes, levels: Mapping[str, float]):
  """Names of horizontal lines, right of the axes, spaced to avoid overlap."""
  low, high = axes.get_ylim()
  lowest_free = -np.inf
  for name, level in sorted(levels.items(), key=lambda item: item[1]):
    height = max((level - low) / (high - low), lowest_free)
    lowest_free = height + 0.055
    axes.annotate(
      f"{name} {level:.3f}",
      xy=(1, level),
      xycoords=("axes fraction", "data"),
      xytext=(1.04, height),
      textcoords="axes fraction",
      va="center",
      fontsize=8,
      arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6},
    )
