"""How models select a latent graph: gap to Bayes, attention, temperature."""

from collections.abc import Mapping

import numpy as np

from icl_causal.plotting.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#00805C", "#A0478A")


def selection(
  models: Mapping[str, Mapping[str, np.ndarray]],
  positions: np.ndarray,
  levels: np.ndarray,
) -> Figure:
  """Three panels, a colour for each model, a thin line for each seed.

  Args:
    models: by name, arrays with a leading axis of seeds, NaN where there is no
      value: `gap_by_position` in nats and `slope_by_position`, of log attention
      on log posterior, along `positions`; `calibration`, the mean attention,
      along `levels`.
    positions: from which the next token is predicted.
    levels: the middle of each level of posterior probability.
  """
  figure = Figure(figsize=(11, 3.4), layout="constrained")
  gap, attention, slope = figure.subplots(1, 3)
  for color, (name, of) in zip(_COLORS, models.items(), strict=False):
    for axes, xs, field in (
      (gap, positions, "gap_by_position"),
      (attention, levels, "calibration"),
      (slope, positions, "slope_by_position"),
    ):
      axes.plot(xs, of[field].T, color=color, alpha=0.35, linewidth=0.8)
      known = np.ma.masked_invalid(of[field])
      mean = known.mean(axis=0).filled(np.nan)
      axes.plot(xs, mean, color=color, label=name)
  gap.axhline(0, color="#8C959F", linewidth=0.8)
  gap.set(xlabel="position", ylabel="loss - Bayes (nats)")
  attention.plot([0, 1], [0, 1], color="#8C959F", linewidth=0.8)
  attention.set(xlabel="posterior weight", ylabel="attention of the last layer")
  slope.axhline(1, color="#8C959F", linewidth=0.8)
  slope.set(xlabel="position", ylabel="slope of log attention on log posterior")
  gap.legend(frameon=False)
  return figure
