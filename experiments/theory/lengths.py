"""Longer prompts than in training: relative against absolute positions.

Two layers of one head train on chains (`graphs.kgram(T, 1)`) with a kernel that
is new in every prompt, and predict at every position. `relative` is
`models.Relative`, with `reach` scores of distances in each layer, `absolute`
the disentangled transformer, whose parameters have a row for each position and
so apply to the length of training alone. Adam with a cosine schedule, gradients
of norm at most 1.

`excess` is the loss minus that of the edge posterior of the same length and
position (`running.edge_posterior`), over all positions but the first, whose
edge posterior is uniform; `excess at the last` is at the last position.
`parent attention` is the mean over positions of layer-1 attention on the
previous position. `top distance` is the
distance with the largest score in U1, averaged over tokens.

The step of a position is the one at which its attention on the parent crosses
1/2; position 2, which starts at 1/2, is left out. With absolute positions it
grows in proportion to the position (`times`); with relative positions one score
serves all rows. `learned` is the share of positions that cross it, `rank` is
Spearman's correlation of step and position, `slope` that of log step in log
position, `first` and `last` are the steps of positions 3 and T.

Losses in nats; means and standard errors are over seeds of data, start and test
prompts. Two minutes on two cores.
"""

import functools
from typing import NamedTuple

import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np
import optax
from scipy import stats

from experiments.theory import learned
from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import running
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import dynamics
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.plotting import positions as plots

_FEWEST = 3  # edges for a slope
_ABSOLUTE = 0  # the reach that stands for absolute positions

FIELDS = {
  "T": fields.at_least(4),
  "lengths": fields.tuple_of(fields.at_least(2)),
  "alpha": fields.ALPHA,
  # (S, reach, learning rate), and a reach of 0 is the absolute model
  "cases": fields.tuple_of(
    (fields.at_least(2), fields.at_least(0), fields.POSITIVE)
  ),
  "steps": fields.at_least(1),
  "measured_every": fields.at_least(1),
  "batch_size": fields.at_least(1),
  "b2": fields.BELOW_ONE,
  "max_norm": fields.POSITIVE,
  "noise": fields.POSITIVE,
  "num_seeds": fields.at_least(2),
  "test_size": fields.at_least(2),
  "map_prompts": fields.at_least(1),
}


def _divides(config: build.Config) -> str | None:
  if config.steps % config.measured_every:
    return (
      f"steps = {config.steps}: must be a multiple of measured_every = "
      f"{config.measured_every}"
    )
  return None


NEEDS = (_divides,)


class Tested(NamedTuple):
  """A trained model on prompts of length L, at every position.

  Attributes:
    loss_L: in nats.
    excess_L: over the edge posterior.
    attention_L: of layer 1 on the previous position; 1 at the first position.
  """

  loss_L: jax.Array
  excess_L: jax.Array
  attention_L: jax.Array


def check(config: build.Config) -> Outcome:
  """Excess by length, and steps by position, of each case."""
  rows, excess, steps = [], {}, {}
  seeds = config.seed + jnp.arange(config.num_seeds)
  for S, reach, rate in config.cases:
    model = model_of(config, S, reach)
    train = functools.partial(trained, config, model, rate)
    params, curve_RxNxT = jax.jit(jax.vmap(train))(seeds)
    step_RxE = steps_of(config, np.asarray(curve_RxNxT))
    name = "absolute" if reach == _ABSOLUTE else f"relative, reach {reach}"
    for L in config.lengths if reach else (config.T,):
      test = functools.partial(tested, config, model.clone(T=L))
      found = jax.jit(jax.vmap(test))(params, seeds)
      found = jax.tree.map(np.asarray, found)
      cells = [name.split(",")[0], S, reach or None, L]
      cells += summary(found, params.get("U1"))
      is_trained = L == config.T
      rows.append([*cells, *(times(step_RxE) if is_trained else [None] * 7)])
      excess[S, name, L] = found.excess_L
    steps[S, name] = step_RxE
  header = ["model", "S", "reach", "T", "loss", "excess", "error"]
  header += ["excess at the last", "error of last", "parent attention"]
  header += ["error of attention", "top distance", "learned", "rank"]
  header += ["error of rank"]
  header += ["slope", "error of slope", "first", "last"]
  return Outcome(header, rows, figure(config, excess, steps))


def model_of(config: build.Config, S: int, reach: int):
  """The model of a case."""
  arguments = {"noise": config.noise, "every": True}
  if reach == _ABSOLUTE:
    return models.Disentangled(S, config.T, (1, 1), **arguments)
  return models.Relative(S, config.T, (1, 1), reach, **arguments)


def sampler(config: build.Config, S: int, L: int, size: int):
  """Maps a key to prompts of length L."""
  graph, prior = graphs.kgram(L, 1), priors.dirichlet(config.alpha, "uniform")
  return lambda key: sampling.sample_batch(key, graph, prior, S, size, True)


def trained(config: build.Config, model, learning_rate, seed):
  """The parameters, and N x T attention on the parent during training."""
  init_key, data_key, map_key = jax.random.split(jax.random.key(seed), 3)
  draw = sampler(config, model.S, config.T, config.batch_size)
  x_NxT = sampler(config, model.S, config.T, config.map_prompts)(map_key).x_T
  rate = optax.cosine_decay_schedule(learning_rate, config.steps)
  optimizer = optax.chain(
    optax.clip_by_global_norm(config.max_norm), optax.adam(rate, b2=config.b2)
  )

  def advance(state, _):
    attention_T = parent_attention(model, state.params, x_NxT)
    state, _ = training.train(
      state,
      data_key,
      num_steps=config.measured_every,
      model=model,
      optimizer=optimizer,
      draw=draw,
    )
    return state, attention_T

  num = config.steps // config.measured_every
  start = training.init(init_key, model, optimizer)
  state, curve_NxT = jax.lax.scan(advance, start, length=num)
  last_T = parent_attention(model, state.params, x_NxT)
  return state.params, jnp.concatenate([curve_NxT, last_T[None]])


def parent_attention(model, params, x_NxT) -> jax.Array:
  """Layer-1 attention on the previous position, mean over prompts, T."""

  def one(x_T):
    _, out = model.apply({"params": params}, x_T)
    return previous(out["attention_1"][0])

  return jax.vmap(one)(x_NxT).mean(axis=0)


def previous(att_TxT) -> jax.Array:
  """The entries (i, i - 1), after a 1 for the first position."""
  return jnp.pad(jnp.diagonal(att_TxT, -1), (1, 0), constant_values=1)


def tested(config: build.Config, model, params, seed) -> Tested:
  """The model on fresh prompts of its length, others for each seed."""
  S, L = model.S, model.T
  key = jax.random.fold_in(jax.random.key(seed + 2**16), L)
  batch = sampler(config, S, L, config.test_size)(key)
  graph = graphs.kgram(L, 1)

  def one(prompt):
    x_T, y_TxS, _ = prompt
    f_TxS, out = model.apply({"params": params}, x_T)
    edge_TxS = running.edge_posterior(x_T, graph, config.alpha, S)
    loss_T, edge_T = (
      -special.xlogy(y_TxS, law).sum(axis=1) for law in (f_TxS, edge_TxS)
    )
    return Tested(loss_T, loss_T - edge_T, previous(out["attention_1"][0]))

  found = jax.lax.map(one, batch, batch_size=32)
  return jax.tree.map(lambda a: a.mean(axis=0), found)


def steps_of(config: build.Config, curve_RxNxT: np.ndarray) -> np.ndarray:
  """The step of positions 3 to T, counted from 1, for each seed."""
  graph, T = graphs.kgram(config.T, 1), config.T
  steps = []
  for curve_NxT in curve_RxNxT:
    maps_NxTxT = np.zeros((len(curve_NxT), T, T))
    maps_NxTxT[:, np.arange(1, T), np.arange(T - 1)] = curve_NxT[:, 1:]
    steps.append(dynamics.crossing(maps_NxTxT, graph)[1:])
  return config.measured_every * np.array(steps)


def summary(found: Tested, U1) -> list:
  """The cells of a length, over seeds."""
  excess_R = found.excess_L[:, 1:].mean(axis=1)
  attention_R = found.attention_L[:, 1:].mean(axis=1)
  top = None
  if U1 is not None:  # R x H x D x reach
    tops_R = np.asarray(U1)[:, 0].mean(axis=1).argmax(axis=1)
    top = int(tops_R[0]) if np.ptp(tops_R) == 0 else None
  return [
    float(found.loss_L[:, 1:].mean()),
    *mean_and_error(excess_R),
    *mean_and_error(found.excess_L[:, -1]),
    *mean_and_error(attention_R),
    top,
  ]


def times(step_RxE: np.ndarray) -> list:
  """The cells of the steps; an edge that is not learned is last in rank."""
  position_E = 3 + np.arange(step_RxE.shape[1])
  is_learned_RxE = np.isfinite(step_RxE) & (step_RxE > 0)
  share = float(np.isfinite(step_RxE).mean())
  if (is_learned_RxE.sum(axis=1) < _FEWEST).any():
    return [share, *[None] * 6]
  ranks_R, slopes_R = [], []
  for step_E, is_learned_E in zip(step_RxE, is_learned_RxE, strict=True):
    ranks_R.append(learned.rank_correlation(step_E, position_E))
    logs = np.log(position_E[is_learned_E]), np.log(step_E[is_learned_E])
    slopes_R.append(np.polyfit(*logs, 1)[0])
  ends = [
    float(step_RxE[:, e].mean()) if is_learned_RxE[:, e].all() else None
    for e in (0, -1)
  ]
  return [share, *mean_and_error(ranks_R), *mean_and_error(slopes_R), *ends]


def figure(config: build.Config, excess: dict, steps: dict) -> plots.Figure:
  """By S: the excess by position at the largest length, and the steps."""
  panels, longest = [], max(config.lengths)
  for S in dict.fromkeys(S for S, _, _ in config.cases):
    curves = {}
    for (states, name, L), excess_RxL in excess.items():
      if states == S and L == (longest if "reach" in name else config.T):
        mean_L, error_L = excess_RxL.mean(axis=0), stats.sem(excess_RxL)
        curves[name] = (1 + np.arange(1, L), mean_L[1:], error_L[1:])
    panels.append(
      plots.Panel(
        f"S = {S}, prompts of {longest} tokens",
        "loss - edge posterior (nats)",
        curves,
        {"length of training": config.T},
      )
    )
    by_position = {}
    for (states, name), step_RxE in steps.items():
      if states == S:
        step_RxE = np.where(np.isfinite(step_RxE), step_RxE, np.nan)
        mean_E, error_E = step_RxE.mean(axis=0), stats.sem(step_RxE)
        by_position[name] = (3 + np.arange(config.T - 2), mean_E, error_E)
    title = f"S = {S}: attention on the parent crosses 1/2"
    panels.append(plots.Panel(title, "step", by_position))
  return plots.by_position(panels)


def mean_and_error(values_R) -> tuple[float, float]:
  """The mean and its standard error."""
  return float(np.mean(values_R)), float(stats.sem(values_R))
