"""Chains of order k: which models learn them, and where they stop on the way.

The parents of a token are the k tokens before it (`graphs.kgram`), roots are
uniform, and the kernel is new in every prompt. Models predict at every
position. `distances` is `models.Relative`, `positions` the disentangled
transformer, both without MLPs, and `MLP` a standard transformer with norms and
residual MLPs. Adam with a cosine schedule, gradients of norm at most 1.

The k'-gram line is the loss of the edge posterior with the k' nearest parents
(`running.edge_posterior`), for k' = 0 that of the token counts. A gap is the
loss minus the k-gram line, averaged over the positions from k on, or at the
last one. Losses in nats; each seed has its own data, start and test prompts.

Tasks:
- `trained`: the gap at the end, and the weight of the k-gram predictor in the
  mixture of all lines that is closest to the model at the last position.
- `plateau`: each stretch of a training in which the loss falls by less than .02
  nats while the step grows by a factor of three or more, before it falls again
  (`analysis.plateaus`). `line` is the nearest one, or `uniform`, and `distance`
  the difference to it. `norm` is the least gradient norm of the stretch over
  the largest after it.
- `stationary`: a model that is trained on chains of order `order` < k, with
  prompts of order k. `distance` is its loss there minus the line of its order,
  `norm / start` and `norm / largest` its gradient norm over that at the start
  and over the largest of the same model during its training on order k. They
  are small if sub-k-gram predictors are near-stationary (Varre et al., 2025).
  The gradient norm is that of the loss on fixed test prompts.

Eight minutes on two cores.
"""

import numpy as np
from scipy import stats

from experiments.theory import kgram_runs
from experiments.theory.kgram_runs import Case
from experiments.theory.kgram_runs import Course
from experiments.theory.outcome import Outcome
from icl_causal.analysis import plateaus
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.plotting import kgrams as plots

FIELDS = {
  "S": fields.at_least(2),
  "T": fields.at_least(4),
  "alpha": fields.ALPHA,
  "steps": fields.at_least(1),
  # (k, model, heads of layer 1, layers, learning rate, rounds of `steps`)
  "cases": fields.tuple_of(
    (
      fields.at_least(1),
      fields.one_of(kgram_runs.MODELS),
      fields.at_least(1),
      fields.at_least(2),
      fields.POSITIVE,
      fields.at_least(1),
    )
  ),
  # (k, order): the first case of that k, trained on another order
  "transfers": fields.tuple_of((fields.at_least(2), fields.at_least(1))),
  "width": fields.at_least(1),
  "reach": fields.at_least(2),
  "noise": fields.POSITIVE,
  "batch_size": fields.at_least(1),
  "b2": fields.BELOW_ONE,
  "max_norm": fields.POSITIVE,
  "num_seeds": fields.at_least(2),
  "test_size": fields.at_least(2),
  "gradient_size": fields.at_least(1),
}
HEADER = (
  *("task", "k", "model", "heads", "order", "seed", "steps"),
  *("gap", "error", "largest"),
  *("last", "error of last", "line k - 1", "weight", "error of weight"),
  *("plateaus", "from", "to", "line", "distance"),
  *("error of distance", "norm", "norm / start", "error of start"),
  *("norm / largest", "error of largest"),
)


def _fits(config: build.Config) -> str | None:
  for case in map(Case._make, config.cases):
    if case.k >= config.T:
      return f"cases: k = {case.k} must be less than T = {config.T}"
  known = {k for k, *_ in config.cases}
  for k, order in config.transfers:
    if order >= k or k not in known:
      return f"transfers: {(k, order)} must have a case of k, and order < k"
  return None


NEEDS = (_fits,)


def check(config: build.Config) -> Outcome:
  """Gaps, plateaus and gradient norms."""
  rows, panels, courses = [], {}, {}
  for case in map(Case._make, config.cases):
    course = courses.setdefault(case, kgram_runs.trained(config, case, case.k))
    num_steps = case.rounds * config.steps
    rows += rows_of(case, num_steps, config.S, course)
    steps, curves = (
      kgram_runs.measured_at(num_steps),
      panels.setdefault(case.k, {}),
    )
    gap_RxN = course.loss_RxN - course.lines_RxL[:, -1:]
    curves[_name(case)] = (steps, gap_RxN, course.norm_RxN)
  for k, order in config.transfers:
    case = next(case for case in courses if case.k == k)
    rows.append(transfer(config, case, order, courses[case]))
  gaps = {
    case.k: course.lines_RxL.mean(axis=0) - course.lines_RxL[:, -1].mean()
    for case, course in courses.items()
  }
  order = {"trained": 0, "plateau": 1, "stationary": 2}
  rows.sort(key=lambda row: order[row[0]])
  return Outcome(list(HEADER), rows, plots.courses(panels, gaps))


def rows_of(
  case: Case, num_steps: int, num_states: int, course: Course
) -> list[list]:
  """The rows of the tasks `trained` and `plateau`."""
  gap_R = course.loss_RxN[:, -1] - course.lines_RxL[:, -1]
  steps, found = kgram_runs.measured_at(num_steps), []
  for r, (loss_N, norm_N) in enumerate(
    zip(course.loss_RxN, course.norm_RxN, strict=True)
  ):
    for plateau in plateaus.plateaus(steps, loss_N):
      lines = {
        "uniform": np.log(num_states),
        **dict(enumerate(course.lines_RxL[r])),
      }
      line = min(lines, key=lambda name: abs(plateau.level - lines[name]))
      stretch = slice(plateau.first, plateau.last + 1)
      found.append(
        {
          **_named(case, "plateau", r),
          "from": int(steps[plateau.first]),
          "to": int(steps[plateau.last]),
          "gap": float(plateau.level - course.lines_RxL[r, -1]),
          "line": line,
          "distance": float(plateau.level - lines[line]),
          "norm": float(
            norm_N[stretch].min() / norm_N[plateau.last + 1 :].max()
          ),
        }
      )
  below_R = course.lines_RxL[:, -2] - course.lines_RxL[:, -1]
  trained_row = {
    **_named(case, "trained", len(gap_R)),
    "steps": num_steps,
    **_mean(gap_R, "gap", "error"),
    "largest": float(gap_R.max()),
    **_mean(course.last_R, "last", "error of last"),
    "line k - 1": float(below_R.mean()),
    **_mean(course.weight_R, "weight", "error of weight"),
    "plateaus": len(found),
  }
  return [_row(one) for one in (trained_row, *found)]


def transfer(
  config: build.Config, case: Case, order: int, course: Course
) -> list:
  """The row of a model that is trained on another order."""
  other = kgram_runs.trained(config, case, order)
  distance_R = other.loss_RxN[:, -1] - other.lines_RxL[:, order]
  norm_R = other.norm_RxN[:, -1]
  return _row(
    {
      **_named(case, "stationary", len(norm_R)),
      "steps": case.rounds * config.steps,
      "order": order,
      **_mean(distance_R, "distance", "error of distance"),
      "norm": float(norm_R.mean()),
      **_mean(norm_R / course.norm_RxN[:, 0], "norm / start", "error of start"),
      **_mean(
        norm_R / course.norm_RxN.max(axis=1),
        "norm / largest",
        "error of largest",
      ),
    }
  )


def _named(case: Case, task: str, seed: int) -> dict:
  heads = str((case.heads, *[1] * (case.layers - 1)))
  return {
    "task": task,
    "k": case.k,
    "model": case.model,
    "heads": heads,
    "seed": seed,
  }


def _name(case: Case) -> str:
  return f"{case.model} {_named(case, '', 0)['heads']}"


def _mean(values_R, name: str, error: str) -> dict[str, float]:
  return {name: float(np.mean(values_R)), error: float(stats.sem(values_R))}


def _row(cells: dict) -> list:
  return [cells.get(name) for name in HEADER]
