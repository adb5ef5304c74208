"""When each edge is learned in stage 1 of Algorithm 1, against predictions.

An edge is learned at the step at which its attention reaches 1/2. Position 1
has no parent and position 2 starts at 1/2, so both are left out. The
predictions have no fitted parameter (`analysis.dynamics`):

- `score`: the replicator equation with the score at finite T, estimated from
  fresh prompts;
- `information`: the same equation with the gradient score of theory, E R / S;
- `closed form`: `dynamics.half_time`, from position and gap alone.

The tasks are:

- `forests`: random forests. All edges have nearly the same gap, so the position
  alone predicts their order.
- `strengths`: the first half of the positions are roots, the second half their
  children, in random order. Edges have different strengths
  (`priors.mixture_transition`) and hence different gaps. `partial` is the rank
  correlation of step and 1 / gap, given the position. If information did not
  order the edges, it would be near 0.
- `pairs`: the last edge, for growing T. The learning rate is proportional to T;
  times are steps times rate. `slope` is that of log time in log T.

Each graph is trained from several seeds, with fresh prompts in each step. A
ratio is measured / predicted, over edges and seeds. Standard errors are over
graphs (bootstrap), for `pairs` over seeds. Two minutes on two cores.
"""

import numpy as np
from scipy import stats

from experiments.theory import learned
from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.plotting import times as plots
from icl_causal.plotting.figure import Figure

FIELDS = {
  "T": fields.at_least(9),
  "S": fields.at_least(2),
  "beta0": fields.POSITIVE,
  "epsilon": fields.NOT_NEGATIVE,
  "batch_size": fields.at_least(1),
  "root_probability": fields.BELOW_ONE,
  # (alpha, gamma, learning rate)
  "cases": fields.tuple_of((fields.ALPHA, fields.SHARE, fields.POSITIVE)),
  "forests_steps": fields.at_least(2),
  "num_graphs": fields.at_least(2),
  "num_seeds": fields.at_least(2),
  "num_prompts": fields.at_least(2),
  "num_kernels": fields.at_least(2),
  "strengths": fields.tuple_of(fields.SHARE),
  "strengths_steps": fields.at_least(2),
  "lengths": fields.tuple_of(fields.at_least(6)),
  # (alpha, gamma, learning rate / T, steps / T)
  "pairs": fields.tuple_of(
    (fields.ALPHA, fields.SHARE, fields.POSITIVE, fields.at_least(1))
  ),
}

_RESAMPLED = 200


def check(config: build.Config) -> Outcome:
  """Measured and predicted steps, by task and prior."""
  rows, drawn = [], {}
  for name, task in (
    ("forests", learned.forests(config, config.forests_steps)),
    ("strengths", learned.strengths(config, config.strengths_steps)),
  ):
    for case, by_graph in learned.edges_of(config, task, config.cases).items():
      drawn[name, case] = by_graph
      _require_learned(
        [each.measured_NxE for each in by_graph],
        f"{name}_steps = {task.steps}",
        f"{name} at the learning rate {case[2]:g}",
      )
      for cells in summary(by_graph):
        rows.append([name, config.T, *case[:2], *cells, None, None])
  for case in config.pairs:
    rows += growth(config, *case)
  header = ["task", "T", "alpha", "gamma", "prediction", "edges", "missed"]
  header += ["ratio", "error", "10 %", "90 %", "Spearman"]
  header += ["Spearman, position", "partial", "slope", "error of slope"]
  return Outcome(header, rows, figure(config, drawn))


def summary(by_graph: list[learned.Edges]) -> list[list]:
  """The cells of each prediction, over the edges of all graphs and seeds."""
  rng = np.random.default_rng(0)
  num = len(by_graph)
  resampled = rng.integers(num, size=(_RESAMPLED, num))
  rows = []
  for name in learned.PREDICTIONS:
    records = [records_of(each, name) for each in by_graph]
    measured, *_ = every = np.concatenate(records, axis=1)
    ratio, *others = statistics(*every)
    medians = [
      np.median(
        ratios(*np.concatenate([records[g] for g in chosen], axis=1)[:2])
      )
      for chosen in resampled
    ]
    error, missed = np.std(medians, ddof=1), np.isinf(measured).sum()
    cells = [name, measured.size, int(missed), ratio, float(error)]
    rows.append([*cells, *others])
  return rows


def records_of(edges: learned.Edges, name: str) -> np.ndarray:
  """Measured and predicted step, position and gap, by edge and seed: 4 x .."""
  columns = edges.predicted[name], edges.i_E, edges.gap_E
  shape = edges.measured_NxE.shape
  spread = [np.broadcast_to(column_E, shape) for column_E in columns]
  return np.stack([edges.measured_NxE, *spread]).reshape(4, -1)


def statistics(measured, predicted, i, gap) -> list:
  """Quantiles of measured / predicted, and rank correlations of the measured.

  Returns:
    The median, 10 % and 90 % of the ratio over learned edges; the correlation
    of the measured step with the prediction and with the position; and the
    partial one with 1 / gap given the position, None if all gaps are equal. An
    edge that is not learned is last in the order.
  """
  quantiles = np.quantile(ratios(measured, predicted), [0.5, 0.1, 0.9])
  orders = [learned.rank_correlation(measured, a) for a in (predicted, i)]
  partial = (
    None if np.ptp(gap) == 0 else learned.partial_rank(measured, -gap, i)
  )
  return [*map(float, quantiles), *orders, partial]


def ratios(measured, predicted) -> np.ndarray:
  """Measured / predicted, of edges that are learned in both."""
  is_learned = np.isfinite(measured) & np.isfinite(predicted)
  return measured[is_learned] / predicted[is_learned]


def growth(
  config: build.Config, alpha, gamma, rate_per_T, steps_per_T
) -> list[list]:
  """Times of the last edge of `pairs` by T, and their slopes in log T."""
  rows, times = [], {name: [] for name in ("measured", *learned.PREDICTIONS)}
  for T in config.lengths:
    slots = np.zeros((1, T), np.int32)
    task = learned.Task([graphs.pairs(T)], slots, (1.0,), steps_per_T * T)
    case = (alpha, gamma, rate_per_T * T)
    ((edges,),) = learned.edges_of(config, task, [case]).values()
    measured_N = edges.measured_NxE[:, -1]
    _require_learned(
      [measured_N], f"pairs: {steps_per_T} steps / T", f"pairs of T = {T}"
    )
    times["measured"].append(T * measured_N)
    missed = int(np.isinf(measured_N).sum())
    for name in learned.PREDICTIONS:
      predicted = float(edges.predicted[name][-1])
      times[name].append(np.array([T * predicted]))
      ratio_N = measured_N / predicted
      cells = ["pairs", T, alpha, gamma, name, config.num_seeds, missed]
      cells += [float(ratio_N.mean()), float(stats.sem(ratio_N))]
      rows.append([*cells, *[None] * 7])
  for name, times_LxN in times.items():
    slope_N = np.polyfit(np.log(config.lengths), np.log(times_LxN), 1)[0]
    error = float(stats.sem(slope_N)) if len(slope_N) > 1 else None
    cells = ["slope", None, alpha, gamma, name, *[None] * 9]
    rows.append([*cells, float(slope_N.mean()), error])
  return rows


def figure(config: build.Config, drawn: dict) -> Figure:
  """The figure of the check; see `plotting.times`."""
  points = {}
  for (name, case), by_graph in drawn.items():
    for g, each in enumerate(by_graph):
      if name == "forests":
        points[case[:2], g] = each.predicted["score"], each.measured_NxE
  case = config.cases[0]
  shown = max(drawn["forests", case], key=lambda each: len(each.i_E))
  last = len(shown.i_E) - 1
  chosen = sorted({0, last // 2, last})
  weakened = drawn["strengths", case]
  by_strength = {}
  for strength in sorted({*config.strengths}, reverse=True):
    parts = [each.strength_E == strength for each in weakened]
    by_strength[strength] = tuple(
      np.concatenate(
        [a[..., part] for a, part in zip(column, parts, strict=True)], axis=-1
      )
      for column in (
        [each.i_E for each in weakened],
        [each.measured_NxE.mean(axis=0) for each in weakened],
        [each.predicted["closed form"] for each in weakened],
      )
    )
  return plots.learning_times(
    points, shown.i_E[chosen], shown.curves[:, :, chosen], by_strength
  )


def _require_learned(measured: list[np.ndarray], field: str, where: str):
  """Refuses a training in which half of the edges of a graph are not learned.

  Ratios and correlations would be those of early edges only.
  """
  if any(np.isinf(steps).mean() > 0.5 for steps in measured):
    raise fields.ConfigError(f"{field}: too few to learn the edges of {where}")
