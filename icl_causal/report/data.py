"""The data of a run's page: JSON, with arrays of shares in base64."""

import base64
from collections.abc import Sequence
import json
from typing import Any

import jax
import numpy as np

from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import runs
from icl_causal.analysis import recovery
from icl_causal.config import build
from icl_causal.config import record
from icl_causal.config import streams
from icl_causal.report import circuits
from icl_causal.report import phases
from icl_causal.report import summary

# Bytes of the arrays of a page. If the maps would take more than the first
# number, they are rounded to a byte, and steps are left out. If all arrays
# would take more than the second, prompts are left out.
_MAX_MAPS = 500_000
_MAX_ARRAYS = 1_300_000
_COLUMNS = {
  "step": "step",
  "loss": "loss",
  "excess_loss": "excess",
  "edges_recovered": "edges",
  "false_parents": "false_parents",
  "parent_attention_mean": "attention",
  "parent_attention_min": "lowest",
  "train_loss": "train_loss",
  "gradient_norm": "gradient",
  "wall_seconds": "seconds",
}


def of_run(run: runs.Run) -> dict[str, Any]:
  """The data of the page of a finished run."""
  assert run.result is not None
  entries = _lower(run)[0].size * run.model.first_layer_heads
  levels = 2**16 - 1 if 2 * entries * len(run.snapshots) <= _MAX_MAPS else 255
  steps = thinned(list(run.snapshots), max(2, _MAX_MAPS // entries))
  return {
    "title": title(run),
    **_task(run),
    **_training(run, steps, levels),
    "phases": _phases(run, steps),
    "prompts": _prompts(run, steps, levels),
    "circuits": circuits.of_run(run, steps),
    "baselines": summary.baselines(run.result),
    "history": [
      {short: row[name] for name, short in _COLUMNS.items() if name in row}
      for row in run.history
    ],
    "summary": summary.rows(run.result),
    "files": {
      "config.json": record.canonical(run.config.to_dict()),
      "environment.json": record.canonical(runs.read_environment(run.path)),
      "result.json": json.dumps(run.result, indent=2, sort_keys=True),
    },
  }


def title(run: runs.Run) -> str:
  """A title of the run's page."""
  T = run.graph.parents_TxK.shape[-2]
  return f"{run.config.graph.name}, S = {run.config.prior.S}, T = {T}"


def thinned(steps: Sequence[int], num: int) -> list[int]:
  """At most `num` of the steps, with both ends, evenly on a log axis."""
  if len(steps) <= num:
    return list(steps)
  places = np.log2(1 + np.asarray(steps))
  chosen: list[int] = []
  for n, place in enumerate(np.linspace(places[0], places[-1], num)):
    free = range(chosen[-1] + 1 if chosen else 0, len(steps) - (num - 1 - n))
    chosen.append(min(free, key=lambda k, at=place: abs(places[k] - at)))
  return [steps[k] for k in chosen]


def _task(run: runs.Run) -> dict[str, Any]:
  """The sizes and the graph."""
  graph = graphs.shared(run.graph)
  T, K = graph.parents_TxK.shape
  kernels = build.pool(run.config, K)
  return {
    "S": run.config.prior.S,
    "kernels": None if kernels is None else len(kernels),
    "T": T,
    "parents": K,
    "graphs": run.graph.parents_TxK[..., 0, 0].size,
    "edges": graphs.edges(graph),
    "roots": [i for i in range(T) if (graph.parents_TxK[i] < 0).all()],
    "target": [i for i in _target(run) if i is not None],
  }


def _training(run: runs.Run, steps: list[int], levels: int) -> dict[str, Any]:
  """The losses, the layer-1 maps and the edges that they recover, by step."""
  maps_KxHxTxT = np.stack([run.snapshots[step].attention for step in steps])
  edges = [
    recovery.compare(maps_HxTxT, run.graph, include_self=True)
    for maps_HxTxT in maps_KxHxTxT
  ]
  # The maps of a run are rounded: at a tie, they have another largest entry.
  recovered = {row["step"]: row["edges_recovered"] for row in run.history}
  losses, estimates = summary.losses(run)
  every, slots = losses | estimates, edges[-1].head_of_slot
  return {
    "steps": steps,
    "losses": [every[step] for step in steps],
    "estimated": [step in estimates for step in steps],
    "recovered": [
      recovered.get(step, one.recovered)
      for step, one in zip(steps, edges, strict=True)
    ],
    "attention": [
      float(np.mean(one.edge_scores)) if one.edges else None for one in edges
    ],
    "heads": maps_KxHxTxT.shape[1],
    # The parent of the target that each head has found, for a last layer that
    # compares copies with it.
    "sought": [
      _target(run)[slots.index(head)] if head in slots else None
      for head in range(maps_KxHxTxT.shape[1])
    ],
    "levels": levels,
    "maps": _packed(maps_KxHxTxT[..., *_lower(run)], levels),
  }


def _phases(run: runs.Run, steps: list[int]) -> dict[str, Any]:
  """The phases by step, with four digits, and in words."""
  of = phases.curves(run, steps)

  def rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]

  return {
    "weights": {name: rounded(w) for name, w in of.weights.items()},
    "left": rounded(of.left),
    "layer_1": rounded(of.layer_1),
    "layer_2": rounded(of.layer_2),
    "text": phases.in_words(
      phases.curves(run, list(run.snapshots)),
      is_latent=run.graph.parents_TxK.ndim == 3,
    ),
  }


def _prompts(
  run: runs.Run, steps: list[int], levels: int
) -> dict[str, Any] | None:
  """The recorded prompts: tokens, predictions and attention by step."""
  outputs = [dict(run.snapshots[step].prompts) for step in steps]
  last = f"attention_{len(outputs[0]) - 1}"
  if "law" not in outputs[0] or last == "attention_1":
    return None
  if getattr(run.model, "every", False):
    for output in outputs:
      output[last] = output[last][..., -1, :]
  size = 2 if levels > 255 else 1
  lower = _lower(run)
  maps = size * lower[0].size * run.model.first_layer_heads
  others = size * sum(outputs[0][name][0].size for name in (last, "law"))
  room = (_MAX_ARRAYS // len(steps) - maps) // (maps + others)
  num = min(len(outputs[0]["law"]), room, run.config.eval.test_size)
  if num < 1:
    return None
  test = run.prompts(num, kernels=False)

  def stacked(name: str) -> np.ndarray:
    return np.stack([output[name][:num] for output in outputs])

  return {
    "tokens": np.asarray(test.x_T).tolist(),
    "laws": {
      **_predictors(run, test),
      "true law": _last(run, test.y_S),
    },
    "model": _packed(stacked("law"), levels),  # K x P x S
    "first": _packed(
      stacked("attention_1")[..., *lower], levels
    ),  # K x P x H x M
    "last": _packed(stacked(last), levels),  # K x P x H x T
    "last_layer": len(outputs[0]) - 1,
    "last_heads": outputs[0][last].shape[1],
  }


def _predictors(run: runs.Run, test) -> dict[str, list]:
  """The laws of the baselines on the prompts, P x S, by name."""
  config, S = run.config, run.config.prior.S
  laws = {}
  if build.is_dirichlet(config) and run.graph.parents_TxK.ndim == 2:
    edge = jax.jit(
      jax.vmap(bayes.edge_posterior, (0, None, None, None)), static_argnums=3
    )
    laws["edge posterior"] = edge(test.x_T, run.graph, config.prior.alpha, S)
  if num := min(config.eval.posterior_prompts, config.eval.test_size):
    posterior = build.posterior(config, run.graph)
    keys = jax.random.split(streams.key(config.eval.seed, "posterior"), num)
    P = min(num, len(test.x_T))
    found = jax.jit(jax.vmap(posterior))(keys[:P], test.x_T[:P])
    # With a small effective sample size, a law is mostly noise.
    if (
      P == len(test.x_T)
      and (found.effective >= metrics.MIN_EFFECTIVE_SAMPLES).all()
    ):
      laws["exact posterior"] = found.f_S
  return {name: _last(run, law) for name, law in laws.items()}


def _last(run: runs.Run, law) -> list:
  """Laws P x S, or the last ones of P x T x S, with four digits."""
  shape = (len(law), -1, run.config.prior.S)
  return np.asarray(law, float).reshape(shape)[:, -1].round(4).tolist()


def _target(run: runs.Run) -> list[int | None]:
  """The position of each parent of the target; None if there is none."""
  target_K = graphs.shared(run.graph).target_K
  return [None if i == graphs.NO_PARENT else int(i) for i in target_K]


def _lower(run: runs.Run) -> tuple[np.ndarray, np.ndarray]:
  """The indices of the lower triangle of a T x T map."""
  return np.tril_indices(run.graph.parents_TxK.shape[-2])


def _packed(shares, levels: int) -> str:
  """Shares in [0, 1] in steps of 1 / levels, of one or two bytes, in base64."""
  whole = np.rint(levels * np.clip(shares, 0, 1))
  kind = "<u2" if levels > 255 else np.uint8
  return base64.b64encode(whole.astype(kind).tobytes()).decode()
