"""The phases of a training: weights of predictors, and what layers lack."""

from collections.abc import Mapping, Sequence

from icl_causal.plotting.figure import Figure

_COLORS = {
  "uniform": "#D0D7DE",
  "unigram": "#00805C",
  "wrong graph": "#1B1F24",
  "exact posterior": "#A0478A",
}
_EDGE_POSTERIOR = "#D55E00"  # of whichever prior


def phases(
  steps: Sequence[int],
  weights: Mapping[str, Sequence[float]],
  left: Sequence[float],
  layer_1: Sequence[float],
  layer_2: Sequence[float],
) -> Figure:
  """Stacked weights of predictors by step, and losses below them.

  Args:
    steps: in ascending order, drawn on a logarithmic axis.
    weights: of the predictors by name, from the bottom to the top.
    left: the divergence of the model from the mix, in nats.
    layer_1: what layer 1 lacks, in nats.
    layer_2: what layer 2 lacks, in nats.
  """
  figure = Figure(figsize=(6.8, 5.0), layout="constrained")
  above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 3))
  colors = [_COLORS.get(name, _EDGE_POSTERIOR) for name in weights]
  names = [f"{name} {values[-1]:.2f}" for name, values in weights.items()]
  above.stackplot(
    steps, *weights.values(), colors=colors, labels=names, alpha=0.85
  )
  handles, labels = above.get_legend_handles_labels()
  at = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.02), "frameon": False}
  small = {**at, "fontsize": 8}
  title = "weight at the end"
  above.legend(handles[::-1], labels[::-1], title=title, **small)
  above.set_ylabel("weight in the mix")
  above.set_ylim(0, 1)
  for name, values, style in (
    ("layer 1 lacks", layer_1, {"color": "#D55E00", "linestyle": "--"}),
    ("layer 2 lacks", layer_2, {"color": "#0072B2"}),
    ("left of the mix", left, {"color": "#777777", "linestyle": ":"}),
  ):
    below.plot(steps, values, **style, label=f"{name} {values[-1]:.3f}")
  below.axhline(0, color="#999999", linewidth=0.8, zorder=1)
  below.legend(title="at the end (nats)", **small)
  below.set_ylabel("nats")
  below.set_xlabel("step")
  below.set_xscale("symlog", base=2, linthresh=1)
  below.set_xlim(min(steps), max(*steps, 1))
  ticks = [0, *(4**k for k in range(20))]
  ticks = [step for step in ticks if min(steps) <= step <= max(steps)]
  below.set_xticks(ticks, [str(step) for step in ticks], minor=False)
  return figure
