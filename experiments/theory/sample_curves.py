"""Additive scores of theory:samples: shares of edges, predictions and bounds.

All scores of a graph are summed over the same prompts, so one pass gives their
row argmax at every number of prompts.
"""

import functools
from typing import NamedTuple

import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal import parallel
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import bounds
from icl_causal.analysis import information
from icl_causal.analysis import likelihood
from icl_causal.analysis import samples
from icl_causal.config import build
from icl_causal.graphs import Graph
from icl_causal.sampling import Prompt

SOFT = "gradient, soft label"
HARD = "gradient, hard label"
SOFTMAX = "gradient through a softmax"
QUERY_ROW = "likelihood of the query's row"
QUERY_MOMENT = "chi-squared of the query's row"
MOMENT = "chi-squared, kernel known"
BEST = "best possible"
GENIE = "genie, soft label"
GENIE_HARD = "genie, hard label"
SCORES = (SOFT, HARD, SOFTMAX, QUERY_MOMENT, QUERY_ROW, MOMENT, BEST)
SCORES += (GENIE, GENIE_HARD)

_AT_ONCE = 4  # graphs per device


class Setting(NamedTuple):
  """States, concentration of the prior, positions and number of graphs."""

  S: int
  alpha: float
  T: int
  num_graphs: int


class Measured(NamedTuple):
  """The scores on N prompts of G graphs.

  Attributes:
    hits_GxNxM: number of edges found by each of `SCORES`.
    rooted_GxN: by the best possible method that does not know the roots.
    false_GxN: number of roots to which that method gives a parent.
  """

  hits_GxNxM: np.ndarray
  rooted_GxN: np.ndarray
  false_GxN: np.ndarray


class Predicted(NamedTuple):
  """Predictions for G graphs.

  Attributes:
    shares: of the gradient, each G x T x N (`samples.predicted_shares`).
    information_GxT: of one prompt about the parent, in nats.
    B_GxTxT: `information.bhattacharyya`, averaged over kernels.
  """

  shares: samples.Shares
  information_GxT: np.ndarray
  B_GxTxT: np.ndarray


def forests(config: build.Config, setting: Setting) -> list[Graph]:
  """The graphs of a setting."""
  keys = jax.random.split(jax.random.key(config.seed), setting.num_graphs)
  draw = jax.jit(graphs.random_forest, static_argnums=(1, 2))
  return [draw(key, setting.T, config.root_probability) for key in keys]


def prompts(config: build.Config, setting: Setting, graph, number, alpha):
  """The prompts of a graph, on which all methods are compared."""
  key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
  sizes = config.num_prompts, config.estimate_prompts
  num = max(*map(max, sizes), *config.ascent_prompts, *config.trained_prompts)
  prior = priors.dirichlet(alpha)
  return sampling.sample_batch(key, graph, prior, setting.S, num)


def measure(config: build.Config, setting: Setting, forests_G) -> Measured:
  """All scores on the prompts of each graph."""
  function = functools.partial(_measure, config, setting)
  return Measured(*over(function, setting, forests_G, _AT_ONCE))


def predict(config: build.Config, setting: Setting, forests_G) -> Predicted:
  """Predictions from prompts and kernels independent of those of `measure`."""
  function = functools.partial(_predict, config, setting)
  return Predicted(*over(function, setting, forests_G, 1))


def _query_moment(x_T, kernel, epsilon):
  """The soft-label gradient, with the root law for the shares of the tokens."""
  mu_S = kernel[-1]
  v_S = information.ratio(kernel[x_T[-1]], mu_S + epsilon)
  gain_T = v_S[x_T] - v_S @ mu_S
  return gain_T[:, None] * (x_T == x_T[-1])[None, :]


def over(function, setting: Setting, forests_G, at_once: int):
  """Maps (graph, number of the graph, alpha) over the graphs."""
  alpha = np.float32(setting.alpha)
  numbered = [(g, np.int32(n), alpha) for n, g in enumerate(forests_G)]
  return over_runs(function, numbered, at_once)


def over_runs(function, runs_R: list, at_once: int):
  """Maps a function over runs, `at_once` a device; the result is in numpy."""
  mesh = parallel.runs_mesh()
  mapped = jax.jit(parallel.over_runs(function, mesh, at_once))
  result = mapped(*parallel.stack(runs_R, mesh, at_once))
  return jax.tree.map(lambda a: np.asarray(a)[: len(runs_R)], result)


def hard_labels(config: build.Config, number, y_NxS):
  """A one-hot draw from each target."""
  key = jax.random.fold_in(jax.random.key(config.seed + 2), number)
  drawn_N = jax.random.categorical(key, jnp.log(y_NxS))
  return jax.nn.one_hot(drawn_N, y_NxS.shape[1])


def scores(prompt: Prompt, label_S, graph: Graph, alpha, epsilon):
  """`SCORES` of one prompt, M x T x T."""
  x_T, y_S, kernel = prompt
  S = len(y_S)
  mu_SxS = jnp.broadcast_to(kernel[S] + epsilon, (S, S))
  lift_SxS = information.ratio(kernel[:S], mu_SxS)
  by_name = {
    SOFT: information.label_score(x_T, y_S, epsilon),
    HARD: information.label_score(x_T, label_S, epsilon),
    SOFTMAX: information.label_score(x_T, y_S, read_out="softmax"),
    QUERY_MOMENT: _query_moment(x_T, kernel, epsilon),
    QUERY_ROW: likelihood.query_row_score(x_T, kernel),
    MOMENT: lift_SxS[x_T[None, :], x_T[:, None]],
    BEST: likelihood.likelihood_score(x_T, kernel),
    GENIE: likelihood.left_out_score(x_T, y_S, graph, alpha),
    GENIE_HARD: likelihood.left_out_score(x_T, label_S, graph, alpha, False),
  }
  return jnp.stack([by_name[name] for name in SCORES])


def _measure(config, setting: Setting, graph: Graph, number, alpha):
  grid_N = jnp.array((0, *config.num_prompts))
  batch = prompts(config, setting, graph, number, alpha)
  label_NxS = hard_labels(config, number, batch.y_S)
  parents_T = graph.parents_TxK[:, 0]
  best = SCORES.index(BEST)

  def add(n, total):
    prompt, label_S = jax.tree.map(lambda a: a[n], (batch, label_NxS))
    each = scores(prompt, label_S, graph, alpha, config.epsilon)
    mu_S = prompt.kernel[setting.S]
    root_T = jnp.log(jnp.maximum(mu_S, likelihood.FLOOR))[prompt.x_T]
    return total[0] + each, total[1] + root_T

  def until(total, bounds):
    total = jax.lax.fori_loop(bounds[0], bounds[1], add, total)
    hit_MxT = jax.vmap(samples.hits, (0, None))(total[0], graph)
    chosen_T = _decide(total[0][best], total[1], config.root_probability)
    is_true_T = (chosen_T == parents_T) & (parents_T >= 0)
    is_false_T = (chosen_T >= 0) & (parents_T < 0)
    return total, (
      hit_MxT.sum(axis=1),
      is_true_T.sum(),
      is_false_T[1:-1].sum(),
    )

  T = setting.T
  start = jnp.zeros((len(SCORES), T, T)), jnp.zeros(T)
  return jax.lax.scan(until, start, (grid_N[:-1], grid_N[1:]))[1]


def _decide(score_TxT, root_T, root_probability):
  """The most likely parent, or -1 if the position is more likely a root."""
  T = len(root_T)
  masked_TxT = jnp.where(jnp.tri(T, k=-1, dtype=bool), score_TxT, -jnp.inf)
  # Log prior odds of a root against each of i parents.
  i_T = jnp.maximum(jnp.arange(T), 1)
  odds_T = jnp.log(root_probability * i_T) - jnp.log1p(-root_probability)
  is_parent_T = masked_TxT.max(axis=1) > root_T + odds_T
  return jnp.where(is_parent_T, masked_TxT.argmax(axis=1), graphs.NO_PARENT)


def _predict(config, setting: Setting, graph: Graph, number, alpha):
  key = jax.random.fold_in(jax.random.key(config.seed + 3), number)
  prompt_key, draw_key, kernel_key = jax.random.split(key, 3)
  prior = priors.dirichlet(alpha)
  batch = sampling.sample_batch(
    prompt_key, graph, prior, setting.S, config.num_moments
  )
  score_NxTxT = jax.vmap(information.label_score, (0, 0, None))(
    batch.x_T, batch.y_S, config.epsilon
  )
  shares = samples.predicted_shares(
    draw_key, score_NxTxT, graph, config.num_prompts, config.num_draws
  )

  def gain(x_T, kernel):
    score_TxT = likelihood.likelihood_score(x_T, kernel)
    return bounds.parent_information(score_TxT, graph)

  information_T = jax.vmap(gain)(batch.x_T, batch.kernel).mean(axis=0)
  B_TxT, _ = information.expected(
    kernel_key,
    graph,
    prior,
    setting.S,
    information.bhattacharyya,
    config.num_kernels,
  )
  return shares, information_T, B_TxT
