"""Measures how a run with a latent graph selects it; lines and their table."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import jax
from jax import numpy as jnp
import numpy as np

from experiments.harness import verdicts
from icl_causal import latent
from icl_causal import metrics
from icl_causal import models
from icl_causal import runs
from icl_causal import training
from icl_causal.analysis import selection
from icl_causal.config import build
from icl_causal.config import streams
from icl_causal.graphs import Graph

# Of a line that is recorded under results/.
FIELDS: dict[str, Any] = {
  "model": str,
  "run": str,
  "T": int,
  "stage": str,
  "seed": int,
  "heads": str,
  "gap": float,
  "gap_error": float,
  "last": float,
  "last_error": float,
  "bayes": float,
  "correlation": float | None,
  "last_correlation": float | None,
  "on_true": float,
  "evidence": float | None,
  "probes": list,
  "positions": list,
  "gap_by_position": list,
  "slope_by_position": list,
  "levels": list,
  "calibration": list,
}
_LEVELS = np.array([0, 0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95])
_LEVELS = np.append(_LEVELS, [0.99, 1])


def line(run: runs.Run, num_prompts: int) -> dict:
  """The measures of a run on its first test prompts.

  `gap` is the loss minus that of the Bayes predictor, averaged over positions:
  those from which on every graph has had a parent to show, and whose next token
  has one; `last` is the gap at the last position. Their errors are over
  prompts. `correlation` is between the attention of the last layer and the
  weights with which the Bayes predictor averages tokens, over prompts,
  positions and candidates; `last_correlation` is that at the last position.
  Attention is the mean over heads, or their average by the gate of a mixture.
  These weights are `selection.parent_posterior`, or `successor_posterior` if
  the kernel is new. `on_true` is the attention on what the true graph copies.
  `slope_by_position` is of the logarithms of attention and weight, and
  `calibration` the mean attention by level of the weight. `evidence` is the
  share of variance of the log-likelihoods of the next token's parents that
  layer 2 explains at the last position, or None with fewer than three layers.
  `probes` are the shares of a linear probe of the stream after each layer but
  the last, fitted on half of the prompts; none without relative positions. A
  correlation or slope of constant values, and a level without entries, is None.
  """
  total, gaps, streams, targets = None, [], [], []
  size, x_NxT = run.config.eval.batch_size, run.prompts(num_prompts)
  for start in range(0, num_prompts, size):
    part = jax.tree.map(lambda a: a[start : start + size], x_NxT)  # noqa: B023
    found, gap_BxT, streams_B, log_BxT = _measures(run, part)
    gaps.append(np.asarray(gap_BxT))
    streams.append(streams_B)
    targets.append(log_BxT)
    found = jax.tree.map(lambda a: np.asarray(a, float), found)
    total = found if total is None else jax.tree.map(np.add, total, found)
  assert total is not None
  positions = _positions(run)
  gap_NxT = np.concatenate(gaps)[:, positions]
  gap, gap_error = metrics.mean_and_standard_error(gap_NxT.mean(axis=1))
  last, last_error = metrics.mean_and_standard_error(gap_NxT[:, -1])
  weights, logs = total["weights"], total["logs"]
  rows = jax.tree.map(lambda a_T: a_T[positions], weights)
  every = selection.Moments(*(a_T.sum() for a_T in rows))
  slope_T, _ = selection.slope_and_correlation(logs)
  _, correlation_T = selection.slope_and_correlation(weights)
  y_NxT = np.concatenate(targets)
  counts, at_level = total["level_counts"], total["level_attention"]
  calibration = np.where(counts, at_level / np.maximum(counts, 1), np.nan)
  return {
    "run": run.path.name,
    "T": run.graph.parents_TxK.shape[-2],
    "stage": "trained",
    "seed": run.config.seed,
    "heads": str(tuple(run.config.model.heads)),
    "gap": gap,
    "gap_error": gap_error,
    "last": last,
    "last_error": last_error,
    "bayes": float(total["bayes"][positions].mean() / num_prompts),
    "correlation": _numbers(selection.slope_and_correlation(every)[1]),
    "last_correlation": _numbers(correlation_T[-1]),
    "on_true": float(total["on_true"][positions].mean() / num_prompts),
    "evidence": _explained(total),
    "probes": [
      round(selection.linear_probe(np.concatenate(h), y_NxT), 5)
      for h in zip(*streams, strict=True)
    ],
    "positions": positions.tolist(),
    "gap_by_position": _numbers(gap_NxT.mean(axis=0, dtype=float)),
    "slope_by_position": _numbers(slope_T[positions]),
    "levels": (0.5 * (_LEVELS[1:] + _LEVELS[:-1])).tolist(),
    "calibration": _numbers(calibration),
  }


def at_length(run: runs.Run, T: int) -> runs.Run:
  """The same parameters for prompts of another length."""
  config = run.config.copy_and_resolve_references()
  config.graph.T = T
  graph = build.graph(config)
  return run._replace(config=config, graph=graph, model=run.model.clone(T=T))


def trained_longer(run: runs.Run, settings: Any) -> runs.Run:
  """The run after a short training at its length, with a new optimizer.

  Args:
    run: of `at_length`.
    settings: `steps`, `batch_size` and `learning_rate`; the rest is as in the
      training of the run.
  """
  config = run.config.copy_and_resolve_references()
  config.train.update(
    steps=settings.steps, learning_rate=settings.learning_rate
  )
  optimizer = build.optimizer(config, run.model)
  state = training.TrainState(
    run.newest, optimizer.init(run.newest), jnp.int32(0)
  )
  train = functools.partial(
    training.train,
    num_steps=settings.steps,
    model=run.model,
    optimizer=optimizer,
    draw=build.sampler(config, run.graph, settings.batch_size),
  )
  # Other prompts than those of the training before.
  key = jax.random.fold_in(streams.key(config.seed, "data"), config.train.steps)
  state, _ = jax.jit(train)(state, key)
  return run._replace(params={settings.steps: state.params})


def table(lines: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows: means over the seeds of each model, with standard errors.

  Each seed has test prompts of its own, so the errors include both; all seeds
  share the kernel if it is fixed.
  """
  header = ["model", "heads", "T", "stage", "seeds", "Bayes"]
  for field in ("gap", "last"):
    header += [field, f"error of {field}", f"largest {field}"]
  rows = []
  for name, group in _grouped(lines).items():
    row = [*name, len(group), verdicts.mean_over(group, "bayes", "seeds").value]
    for field in ("gap", "last"):
      found = verdicts.mean_over(group, field, "seeds")
      row += [found.value, found.error, max(one[field] for one in group)]
    rows.append(row)
  return header, rows


def inside(lines: Sequence[Mapping]) -> tuple[list[str], list[list]]:
  """Header and rows of what the layers hold: means over seeds, with errors."""
  fields = ("correlation", "last correlation", "evidence")
  fields += ("probe 1", "probe 2", "probe 3")
  header = ["model", "heads", "T", "stage"]
  for field in fields:
    header += [field, f"error of {field}"]
  rows = []
  for name, group in _grouped(lines).items():
    row: list = [*name]
    numbers = [_named(one) for one in group]
    for field in fields:
      if any(one.get(field) is None for one in numbers):
        row += [None, None]
      else:
        found = verdicts.mean_over(numbers, field, "seeds")
        row += [found.value, found.error]
    rows.append(row)
  return header, rows


def _grouped(lines: Sequence[Mapping]) -> dict[tuple, list[Mapping]]:
  """The lines of each model, length and stage."""
  groups: dict[tuple, list[Mapping]] = {}
  for one in lines:
    name = tuple(one[field] for field in ("model", "heads", "T", "stage"))
    groups.setdefault(name, []).append(one)
  return groups


def _named(line: Mapping) -> dict:
  """The numbers of `inside` by the names of its columns."""
  probes = {f"probe {n}": share for n, share in enumerate(line["probes"], 1)}
  of_line = {
    name: line[name.replace(" ", "_")]
    for name in ("seed", "correlation", "last correlation", "evidence")
  }
  return of_line | probes


def _measures(run: runs.Run, prompts) -> tuple:
  """`_measure` of a run."""
  prior, law = run.config.prior, jnp.asarray(build.known_law(run.config))
  return _measure(
    run.newest, prompts, run.graph, law, run.model, prior.S, prior.root_law
  )


@functools.partial(jax.jit, static_argnames=("model", "S", "root_law"))
def _measure(
  params, prompts, graph: Graph, law, model, S: int, root_law
) -> tuple:
  """Measures of a batch of prompts; `law` is as in `latent`.

  Returns:
    Sums over prompts; the gap to Bayes, B x T; the streams at the last position
    after each layer but the last, B x D; and there the log-likelihoods of
    the candidates for the next token's parent, B x T.
  """
  is_new = law.ndim == 0
  can_be_TxT = selection.candidates(graph)
  last = f"attention_{len(model.heads)}"
  loss = jax.vmap(metrics.loss)

  def one(x_T, y_TxS, graph_index):
    f_TxS, out = model.apply({"params": params}, x_T)
    given = (x_T, graph, law, S, root_law, True)
    bayes_TxS = latent.model_average(*given)
    w_TxM = latent.graph_posterior(*given)
    true_TxM = jnp.zeros_like(w_TxM).at[:, graph_index].set(1)
    parent_TxT = selection.parent_posterior(w_TxM, graph)
    log_TxT = selection.contrasts(parent_TxT, can_be_TxT)
    if is_new:
      weight_TxT, true_TxT = (
        selection.successor_posterior(x_T, w, graph) for w in (w_TxM, true_TxM)
      )
      mask_TxT = weight_TxT > 0
    else:
      weight_TxT = parent_TxT
      true_TxT = selection.parent_posterior(true_TxM, graph)
      mask_TxT = can_be_TxT
    att_TxT = jnp.einsum("th,htj->tj", gate_of(out, last), out[last])
    bayes_T = loss(bayes_TxS, y_TxS)
    level_TxT = jnp.digitize(weight_TxT, jnp.asarray(_LEVELS[1:-1]))
    level_TxTxC = jax.nn.one_hot(level_TxT, len(_LEVELS) - 1)
    level_TxTxC *= mask_TxT[..., None]
    found = {
      "weights": selection.moments(weight_TxT, att_TxT, mask_TxT),
      "logs": selection.moments(
        selection.contrasts(weight_TxT, mask_TxT),
        selection.contrasts(att_TxT, mask_TxT),
        mask_TxT,
      ),
      "bayes": bayes_T,
      "on_true": (att_TxT * (true_TxT > 0)).sum(axis=1),
      "level_counts": level_TxTxC.sum(axis=(0, 1)),
      "level_attention": (level_TxTxC * att_TxT[..., None]).sum(axis=(0, 1)),
      **_second_layer(graph, out, parent_TxT),
    }
    streams = []
    if isinstance(model, models.Relative):
      streams = [h_TxD[-1] for h_TxD in model.streams(x_T, out)[1:]]
    return found, loss(f_TxS, y_TxS) - bayes_T, streams, log_TxT[-1]

  found, *each = jax.vmap(one)(prompts.x_T, prompts.y_S, prompts.graph_index)
  return jax.tree.map(lambda a: a.sum(axis=0), found), *each


def gate_of(out: Mapping, last: str) -> jax.Array:
  """The weights of the heads of the last layer, T x H: even without a gate."""
  H, T, _ = out[last].shape
  return out.get("gate", jnp.full((T, H), 1 / H))


def _second_layer(graph: Graph, out: Mapping, parent_TxT) -> dict:
  """Sums for `_explained`: products of evidence and log-likelihoods."""
  if "attention_3" not in out:
    return {}
  on_parent_TxM = selection.attention_on_graphs(parent_TxT, graph)
  M = on_parent_TxM.shape[1]
  maps = (out["attention_1"], out["attention_2"][:, -1:])
  collected_HxM = selection.evidence(*maps, graph)[..., 0, :].reshape(-1, M)
  x_HxM = collected_HxM - collected_HxM.mean(axis=1, keepdims=True)
  y_M = selection.contrasts(on_parent_TxM[-1], jnp.ones(M, bool))
  return {"xx": x_HxM @ x_HxM.T, "xy": x_HxM @ y_M, "yy": y_M @ y_M}


def _explained(total: Mapping) -> float | None:
  """The share of variance of log-likelihoods that layer 2 explains.

  By least squares with a coefficient for each head of layer 1 and each of layer
  2, over prompts and graphs.
  """
  if "xx" not in total:
    return None
  coefficients = np.linalg.lstsq(total["xx"], total["xy"])[0]
  return float(coefficients @ total["xy"] / total["yy"])


def _numbers(values: np.ndarray) -> Any:
  """A number or a list of numbers with five decimals, with None for NaN."""
  numbers = np.asarray(np.round(values, 5), object)
  numbers[np.isnan(values)] = None
  return numbers.tolist()


def _positions(run: runs.Run) -> np.ndarray:
  """The positions after the first child whose next token has a parent."""
  has_next_T = np.asarray(selection.next_parents(run.graph) >= 0).all(axis=0)
  is_child_T = (np.asarray(run.graph.parents_TxK) >= 0).any(axis=(0, 2))
  return np.flatnonzero(has_next_T & (np.cumsum(is_child_T) > 0))
