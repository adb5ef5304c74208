"""Tables and the figure of `experiments.diversity`, from its recorded lines.

Means are over seeds, and so are standard errors. Each seed has a pool, test
prompts and fresh kernels of its own. Numbers are of the end of the training.
"""

from collections.abc import Callable, Mapping, Sequence
import math

import numpy as np

from experiments.harness import verdicts
from experiments.harness.diversity import FOUR
from experiments.harness.diversity import POOL
from experiments.harness.diversity import PREDICTORS
from icl_causal import metrics
from icl_causal.analysis import samples

# After Gibson, Cui and Reddy (2026): memorises kernels or generalises, by the
# tokens (1-point) or by the edges (2-point).
PHASES = {
  "none": ("uniform",),
  "1-Gen": ("unigram",),
  "1-Mem": ("unigram retrieval",),
  "2-Gen": ("edge posterior", "exact posterior"),
  "2-Mem": ("retrieval",),
}
_PARTS = {"1/24": 1 / 24, "1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "all": 1}


def predictors(found: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows: the losses of the predictors, which need no training.

  `retrieval - edge` is the difference of two losses on the same prompts, and
  `KL(retrieval, exact)` the mean divergence of retrieval from the exact
  posterior of fresh kernels, in nats.
  """
  header = ["M", "prompts", "entropy", *PREDICTORS]
  header += ["retrieval - edge", "error", "KL(retrieval, exact)"]
  rows = []
  for (model, M, prompts), group in _grouped(found).items():
    if model != found[0]["model"]:
      continue
    row: list = [M, prompts]
    for name in header[2:-3]:
      row += [_over_seeds(group, lambda one, n=name: one["losses"][n])[0]]
    row += _over_seeds(
      group,
      lambda one: one["losses"]["retrieval"] - one["losses"]["edge posterior"],
    )
    row += [_over_seeds(group, lambda one: one["same"])[0]]
    rows.append(row)
  return header, rows


def weights(found: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows: the loss of each model, and its weights.

  `over retrieval` is the loss minus that of retrieval on the same prompts.
  """
  header = ["model", "M", "prompts", "loss", "error", "over retrieval"]
  header += ["error of over", *PREDICTORS, "left"]
  rows = []
  for name, group in _grouped(found).items():
    row: list = [*name, *_over_seeds(group, lambda one: one["loss"][-1])]
    row += _over_seeds(
      group, lambda one: one["loss"][-1] - one["losses"]["retrieval"]
    )
    means, _ = _mean_weights(group, "weights")
    row += means
    row += [_over_seeds(group, lambda one: one["left"][-1])[0]]
    rows.append(row)
  return header, rows


def four_weights(found: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows: the weights of `FOUR`, with their errors."""
  header = ["model", "M", "prompts", *FOUR, *(f"error of {n}" for n in FOUR)]
  rows = []
  for name, group in _grouped(found).items():
    means, errors = _mean_weights(group, "four")
    rows.append([*name, *means, *errors])
  return header, rows


def graph(found: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows: edges and parent attention at the end, by M."""
  header = ["model", "M", "edges found", "error", "parent attention"]
  header += ["error of attention"]
  rows = []
  for (model, M, prompts), group in _grouped(found).items():
    if prompts == POOL:
      edges = _over_seeds(
        group, lambda one: one["recovered"][-1] / one["edges"]
      )
      attention = _over_seeds(group, lambda one: one["attention"][-1])
      rows.append([model, M, *edges, *attention])
  return header, rows


def phases(found: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows: the phase of the largest weight along the training.

  On prompts of the pool, after parts of the training, with the weight. With one
  kernel both retrievals are the same predictor, `Mem`.
  """
  header = ["model", "M", *(f"after {part}" for part in _PARTS)]
  rows = []
  for (model, M, prompts), group in _grouped(found).items():
    if prompts == POOL:
      rows.append([model, M, *(_phase(group, p) for p in _PARTS.values())])
  return header, rows


def _phase(group: Sequence[Mapping], part: float) -> str:
  """The phase at the checkpoint closest to a part of the training."""
  steps, names_of = np.array(group[0]["steps"]), dict(PHASES)
  k = int(np.abs(steps - part * steps[-1]).argmin())
  if group[0]["M"] == 1:
    names_of["Mem"] = names_of.pop("1-Mem") + names_of.pop("2-Mem")
  total = {
    phase: np.mean([one["weights"][name][k] for one in group for name in names])
    * len(names)
    for phase, names in names_of.items()
  }
  phase = max(total, key=lambda name: total[name])
  return f"{phase} {total[phase]:.2f}"


def takeovers(found: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows: the number of kernels at which a share passes 1/2.

  On prompts of the pool, at the end of the training. `edge posterior over
  retrieval`: of the weights of these two among `FOUR`. `generalises`: of the
  weights of the predictors that know no pool among all but the uniform one. A
  share of at least 1/2 has to hold for all larger pools; M is interpolated in
  log M for each seed, and the error is over seeds.
  """
  header = ["model", "share", "seeds", "reached", "M", "factor of error"]
  header += ["each seed"]
  rows = []
  for model in dict.fromkeys(one["model"] for one in found):
    for name, share in (
      ("edge posterior over retrieval", edge_share),
      ("generalises", general_share),
    ):
      each = [_crossing(group, share) for group in _by_seed(found, model)]
      reached = [math.log(M) for M in each if not math.isnan(M)]
      middle = factor = None
      if len(reached) == len(each) > 1:
        mean, error = metrics.mean_and_standard_error(np.array(reached))
        middle, factor = math.exp(mean), math.exp(error)
      shown = ", ".join("-" if math.isnan(M) else f"{M:.1f}" for M in each)
      rows.append([model, name, len(each), len(reached), middle, factor, shown])
  return header, rows


TABLES = {
  "predictors": predictors,
  "weights": weights,
  "four": four_weights,
  "graph": graph,
  "phases": phases,
  "takeover": takeovers,
}


def panels(found: Sequence[Mapping]) -> tuple[dict, dict, list[int]]:
  """The arguments of `plotting.diversity.weights`."""
  by_row: dict[str, dict] = {}
  for (model, M, prompts), group in _grouped(found).items():
    of_row = by_row.setdefault(f"{model}\n{prompts} prompts", {})
    means = {
      name: np.mean([one["weights"][name] for one in group], axis=0)
      for name in PREDICTORS
    }
    of_row[M] = group[0]["steps"], means
  sizes = sorted({one["M"] for one in found})
  of_graph = {}
  for model in dict.fromkeys(one["model"] for one in found):
    groups = _by_seed(found, model)
    of_graph[model] = {
      "edges": np.array(
        [[one["recovered"][-1] / one["edges"] for one in g] for g in groups]
      ),
      "attention": np.array(
        [[one["attention"][-1] for one in g] for g in groups]
      ),
    }
  return by_row, of_graph, sizes


def edge_share(one: Mapping) -> float:
  """The weight of the edge posterior in `four`, relative to retrieval."""
  edge, retrieval = (
    one["four"][name][-1] for name in ("edge posterior", "retrieval")
  )
  return edge / (edge + retrieval)


def general_share(one: Mapping) -> float:
  """The weight of predictors that know no pool, without the uniform one."""
  total = sum(one["weights"][name][-1] for name in PREDICTORS[1:])
  names = PHASES["1-Gen"] + PHASES["2-Gen"]
  return sum(one["weights"][name][-1] for name in names) / total


def _crossing(ordered: Sequence[Mapping], share: Callable) -> float:
  return samples.crossing(
    np.array([share(one) for one in ordered]),
    np.array([one["M"] for one in ordered]),
    0.5,
  )


def _by_seed(found: Sequence[Mapping], model: str) -> list[list[Mapping]]:
  """The lines of a model on prompts of its pool, by seed and then by M."""
  of_seed: dict[int, list[Mapping]] = {}
  for one in sorted(found, key=lambda one: one["M"]):
    if (one["model"], one["prompts"]) == (model, POOL):
      of_seed.setdefault(one["seed"], []).append(one)
  return [of_seed[seed] for seed in sorted(of_seed)]


def _mean_weights(group: Sequence[Mapping], field: str):
  """The means of the weights at the end, and their errors."""
  pairs = [
    _over_seeds(group, lambda one, n=name: one[field][n][-1])
    for name in group[0][field]
  ]
  return zip(*pairs, strict=True)


def _grouped(found: Sequence[Mapping]) -> dict[tuple, list[Mapping]]:
  """The lines of each model, pool size and kind of prompts."""
  groups: dict[tuple, list[Mapping]] = {}
  for one in found:
    name = one["model"], one["M"], one["prompts"]
    groups.setdefault(name, []).append(one)
  return groups


def _over_seeds(group: Sequence[Mapping], value: Callable):
  """The mean over seeds and its standard error."""
  numbers = [{"seed": one["seed"], "value": value(one)} for one in group]
  mean = verdicts.mean_over(numbers, "value", "seeds")
  return mean.value, mean.error
