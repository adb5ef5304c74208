"""Baselines for a latent graph, and the closed-form transformer that selects.

In every prompt a graph is drawn from a list (configs/latent.py). The tasks are
`lags`, with a known kernel; `fresh`, lags with a kernel that is new in every
prompt; and `trees`, with the known kernel. The lines are

- `uniform`; `even mixture`, the mean over graphs of their predictions; `most
  likely graph`; `logits averaged`, the softmax of the log-predictions, averaged
  by the exact posterior; `Bayes`, the predictions averaged by it; `graph
  known`; and `entropy`, graph and kernel known;
- in `lags`, the transformer of Proposition 1 of D'Angelo et al. (2025),
  `beta = ..`, whose scores are means over positions, and ours, `c = ..`, whose
  scores are sums (`constructions.selective`). Both are evaluated by their
  formula, `latent.selective`; the row `rounding` has the largest difference.

`loss` is the mean over the positions after a token with a parent whose next
token has a parent: for lags, position max(lags) + 1, counted from 1, and all
later ones. `last` is the loss at the last position, `gap` what exceeds Bayes.
Losses in nats, standard errors over prompts, paired for gaps.

The rows `calibration` test E[w_true] = E[sum_m w_m^2], which holds for the
weights w of an exact posterior: `loss` and `last` are the two sides, averaged
over these positions, `gap` is their difference, and the verdict is whether it
is within two standard errors. The verdict of the largest c is whether its gap
is at most `asked`. The rows `kernels` have the gap on other kernels; their
standard errors are over kernels. Half a minute on two cores.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import bayes
from icl_causal import constructions
from icl_causal import graphs
from icl_causal import latent
from icl_causal import priors
from icl_causal import running
from icl_causal import sampling
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph
from icl_causal.plotting import positions as plots

FIELDS = {
  "lags": fields.tuple_of(fields.at_least(1)),
  "lengths": fields.tuple_of(fields.at_least(2)),
  "kernel": fields.TUPLE,
  "fresh_lags": fields.tuple_of(fields.at_least(1)),
  # (S, alpha, T)
  "fresh": fields.tuple_of(
    (fields.at_least(2), fields.ALPHA, fields.at_least(2))
  ),
  "num_examples": fields.at_least(0),
  "length": fields.at_least(2),
  "strengths": fields.tuple_of(fields.POSITIVE),
  "mean_strengths": fields.tuple_of(fields.POSITIVE),
  "num_prompts": fields.at_least(2),
  "batch_size": fields.at_least(1),
  "num_kernels": fields.at_least(2),
  "kernel_alpha": fields.ALPHA,
  "kernel_prompts": fields.at_least(2),
  "asked": fields.POSITIVE,
}


def _divides(config: build.Config) -> str | None:
  for name in ("num_prompts", "kernel_prompts"):
    if config[name] % config.batch_size:
      return (
        f"{name} = {config[name]}: must be a multiple of batch_size = "
        f"{config.batch_size}"
      )
  return None


NEEDS = (_divides,)


_ROUNDING = 2e-5
_BASELINES = ("even mixture", "most likely graph", "Bayes", "graph known")


class Task(NamedTuple):
  """Prompts on a list of graphs.

  Attributes:
    name: of the task.
    graphs_M: M graphs along a leading axis.
    prior: of the kernel.
    S: states.
    law: the kernel if it is known, else alpha.
  """

  name: str
  graphs_M: Graph
  prior: priors.Prior
  S: int
  law: jax.Array | float


class Losses(NamedTuple):
  """Losses of L lines on N prompts, and the posterior of the graph.

  Attributes:
    mean_NxL: over the positions that count.
    last_NxL: at the last position.
    positions_LxT: at every position, averaged over prompts.
    true_N: the posterior weight of the graph, mean over these positions.
    square_N: the sum of squared weights.
  """

  mean_NxL: jax.Array
  last_NxL: jax.Array
  positions_LxT: jax.Array
  true_N: jax.Array
  square_N: jax.Array


def check(config: build.Config) -> Outcome:
  """Losses of all lines, calibration, and the gap on other kernels."""
  rows, panels = [], []
  for n, task in enumerate(tasks(config)):
    key = jax.random.fold_in(jax.random.key(config.seed), n)
    names = [*predictors(config, task), "graph known", "entropy"]
    function = functools.partial(losses_of, config, task, config.num_prompts)
    losses = jax.tree.map(np.asarray, jax.jit(function)(key))
    rows += rows_of(config, task, names, losses)
    if task.name == "lags":
      rows.append(rounding(config, task, key))
    panels += panels_of(task, names, losses)
  rows += on_other_kernels(config)
  header = ["task", "S", "alpha", "T", "line", "loss", "error", "last"]
  header += ["error of last", "gap", "error of gap", "gap at the last"]
  header += ["error of gap at the last", "verdict"]
  return Outcome(header, rows, plots.by_position(panels, columns=4))


def tasks(config: build.Config) -> list[Task]:
  """The tasks of the check."""
  known = priors.fixed(jnp.asarray(config.kernel))
  S = len(config.kernel)
  kernel = known(jax.random.key(0), S, 1)
  lags = [
    Task("lags", graphs.lags(T, config.lags), known, S, kernel)
    for T in config.lengths
  ]
  fresh = [
    Task(
      "fresh",
      graphs.lags(T, config.fresh_lags),
      priors.dirichlet(alpha, "uniform"),
      states,
      alpha,
    )
    for states, alpha, T in config.fresh
  ]
  trees = graphs.tree_examples(config.num_examples, config.length)
  return [*lags, *fresh, Task("trees", trees, known, S, kernel)]


def predictors(config: build.Config, task: Task) -> dict[str, Callable]:
  """The lines but `graph known` and `entropy`: each maps x_T to f_TxS."""
  graphs_M, law, S = task.graphs_M, task.law, task.S

  def line(function, *arguments):
    return lambda x_T: function(x_T, graphs_M, law, S, *arguments, every=True)

  lines = {
    "uniform": lambda x_T: running.uniform(len(x_T), S),
    "even mixture": line(latent.even_mixture),
    "most likely graph": line(latent.most_likely_graph),
    "logits averaged": line(latent.logit_average),
    "Bayes": line(latent.model_average),
  }
  if task.name == "lags":
    for beta in config.mean_strengths:
      lines[f"beta = {beta:g}"] = line(latent.selective, beta, True)
    for c in config.strengths:
      lines[f"c = {c:g}"] = line(latent.selective, c)
  return lines


def counted(graphs_M: Graph) -> jax.Array:
  """The positions after a token with a parent whose next token has one."""
  graph = jax.tree.map(lambda a: a[0], graphs_M)
  has_parent_T = (graph.parents_TxK >= 0).any(axis=1)
  next_T = (graphs.next_parents(graph) >= 0).any(axis=1)
  return jnp.logical_or.accumulate(has_parent_T) & next_T


def losses_of(
  config: build.Config, task: Task, num_prompts: int, key
) -> Losses:
  """The losses on fresh prompts of the lines, graph known and entropy."""
  lines, graphs_M = predictors(config, task), task.graphs_M
  weight_T = counted(graphs_M) / counted(graphs_M).sum()

  def one(prompt: sampling.LatentPrompt):
    x_T, y_TxS, _, index = prompt
    known = jax.tree.map(lambda a: a[index][None], graphs_M)
    laws = [line(x_T) for line in lines.values()]
    laws.append(latent.model_average(x_T, known, task.law, task.S, every=True))
    loss_LxT = jnp.stack(
      [-special.xlogy(y_TxS, f_TxS).sum(axis=1) for f_TxS in laws]
      + [bayes.entropy(y_TxS)]
    )
    w_TxM = latent.graph_posterior(x_T, graphs_M, task.law, task.S, every=True)
    true, square = w_TxM[:, index], (w_TxM**2).sum(axis=1)
    return loss_LxT, true @ weight_T, square @ weight_T

  def batch(key):
    drawn = sampling.sample_latent_batch(
      key, graphs_M, task.prior, task.S, config.batch_size, every=True
    )
    loss_BxLxT, true_B, square_B = jax.vmap(one)(drawn)
    means = loss_BxLxT @ weight_T, loss_BxLxT[:, :, -1]
    return Losses(*means, loss_BxLxT.mean(axis=0), true_B, square_B)

  keys = jax.random.split(key, num_prompts // config.batch_size)
  found = jax.lax.map(batch, keys)
  joined = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found)
  return joined._replace(positions_LxT=found.positions_LxT.mean(axis=0))


def rows_of(
  config: build.Config, task: Task, names: list[str], losses: Losses
) -> list[list]:
  """The rows of a task."""
  alpha = None if np.ndim(task.law) else task.law
  cells = [task.name, task.S, alpha, task.graphs_M.parents_TxK.shape[1]]
  best = names.index("Bayes")
  gaps = [a - a[:, best : best + 1] for a in losses[:2]]
  rows = []
  for n, name in enumerate(names):
    of_line = [mean_and_error(a[:, n]) for a in (*losses[:2], *gaps)]
    verdict = _growing(config, name, of_line[2][0])
    numbers = [number for pair in of_line for number in pair]
    rows.append([*cells, name, *numbers, verdict])
  true, square = map(mean_and_error, (losses.true_N, losses.square_N))
  gap, error = mean_and_error(losses.true_N - losses.square_N)
  verdict = _verdict(abs(gap) <= 2 * error)
  calibration = [*true, *square, gap, error, None, None, verdict]
  return [*rows, [*cells, "calibration", *calibration]]


def rounding(config: build.Config, task: Task, key) -> list:
  """The row of the largest difference of the transformer and its formula."""
  c, T = config.strengths[-1], task.graphs_M.parents_TxK.shape[1]
  model, params = constructions.selective(config.lags, task.law, T, c)

  def difference(params, x_T):
    out: Any = model.apply({"params": params}, x_T)[1]
    f_TxS = latent.selective(
      x_T, task.graphs_M, task.law, task.S, c, every=True
    )
    return jnp.abs(out["logits_TxS"] - f_TxS)[max(config.lags) - 1 :].max()

  drawn = sampling.sample_latent_batch(
    key, task.graphs_M, task.prior, task.S, config.batch_size
  )
  differences = jax.jit(jax.vmap(difference, (None, 0)))
  largest = float(differences(params, drawn.x_T).max())
  verdict = _verdict(largest < _ROUNDING)
  cells = [task.name, task.S, None, T, "rounding", largest]
  return [*cells, *[None] * 7, verdict]


def on_other_kernels(config: build.Config) -> list[list]:
  """The gap of the transformer, on kernels drawn from a Dirichlet law."""
  T, S = min(config.lengths), len(config.kernel)
  draw = priors.dirichlet(config.kernel_alpha, "uniform")
  key = jax.random.fold_in(jax.random.key(config.seed), len(tasks(config)))
  graphs_M = graphs.lags(T, config.lags)

  def task_of(kernel) -> Task:
    return Task("lags", graphs_M, priors.fixed(kernel), S, kernel)

  def losses(key):
    draw_key, prompt_key = jax.random.split(key)
    task = task_of(draw(draw_key, S, 1))
    found = losses_of(config, task, config.kernel_prompts, prompt_key)
    return found.mean_NxL.mean(axis=0), found.last_NxL.mean(axis=0)

  keys = jax.random.split(key, config.num_kernels)
  lines = predictors(config, task_of(jnp.full((S + 1, S), 1 / S)))
  names = [*lines, "graph known", "entropy"]
  best, rows = names.index("Bayes"), []
  gaps = [
    np.asarray(loss_KxL - loss_KxL[:, best : best + 1])
    for loss_KxL in jax.jit(lambda keys: jax.lax.map(losses, keys))(keys)
  ]
  for n, name in enumerate(names):
    if name in ("Bayes", "uniform", "entropy"):
      continue
    pairs = [mean_and_error(gap_KxL[:, n]) for gap_KxL in gaps]
    numbers = [*[None] * 4, *(number for pair in pairs for number in pair)]
    cells = ["kernels", S, config.kernel_alpha, T, name, *numbers]
    rows.append([*cells, _growing(config, name, pairs[0][0])])
  return rows


def panels_of(
  task: Task, names: list[str], losses: Losses
) -> list[plots.Panel]:
  """The loss of the baselines by position, and the gap of the other lines."""
  is_counted_T = np.asarray(counted(task.graphs_M))
  x = 1 + np.flatnonzero(is_counted_T)
  by_name = dict(zip(names, losses.positions_LxT[:, is_counted_T], strict=True))
  best = by_name["Bayes"]
  simple = [name for name in names if name in _BASELINES]
  others = [name for name in names if "=" in name]
  above = ["most likely graph", "logits averaged", *others]
  kernel = "one kernel" if np.ndim(task.law) else f"alpha = {task.law:g}"
  title = f"{task.name}: S = {task.S}, {kernel}, T = {len(is_counted_T)}"
  return [
    plots.Panel(
      title, "loss (nats)", {name: (x, by_name[name], None) for name in simple}
    ),
    plots.Panel(
      title,
      "loss - Bayes (nats)",
      {name: (x, by_name[name] - best, None) for name in above},
    ),
  ]


def mean_and_error(values_N) -> tuple[float, float]:
  """The mean and its standard error."""
  return float(np.mean(values_N)), float(stats.sem(values_N))


def _growing(config: build.Config, name: str, gap: float) -> str | None:
  """The verdict on the gap of the largest c; None for other lines."""
  if name != f"c = {config.strengths[-1]:g}":
    return None
  return _verdict(gap <= config.asked)


def _verdict(holds) -> str:
  return "yes" if holds else "no"
