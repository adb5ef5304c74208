"""The models of theory:kgrams, their training, and the k'-gram predictors."""

import functools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np
import optax

from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal import running
from icl_causal import sampling
from icl_causal import training
from icl_causal.config import build

DISTANCES, POSITIONS, MLP = MODELS = ("distances", "positions", "MLP")


class Case(NamedTuple):
  """A model, and how it is trained."""

  k: int
  model: str
  heads: int
  layers: int
  learning_rate: float
  rounds: int


class Course(NamedTuple):
  """The training of a case, for R seeds.

  Attributes:
    params: at the end.
    loss_RxN: on test prompts at N steps, over positions >= k.
    norm_RxN: of the gradient.
    lines_RxL: the losses of the k'-gram predictors, k' = 0, .., k.
    last_R: the loss at the last position minus that of the k-gram predictor.
    weight_R: of the k-gram predictor at the last position, at the end.
  """

  params: Any
  loss_RxN: Any
  norm_RxN: Any
  lines_RxL: Any
  last_R: Any
  weight_R: Any


def model_of(config: build.Config, case: Case):
  """The model of a case; layers after the first have one head."""
  S, T = config.S, config.T
  heads = (case.heads, *[1] * (case.layers - 1))
  if case.model == DISTANCES:
    return models.Relative(
      S, T, heads, config.reach, noise=config.noise, every=True
    )
  if case.model == POSITIONS:
    return models.Disentangled(S, T, heads, noise=config.noise, every=True)
  return models.Standard(
    S, T, heads, config.width, "residual", norm=True, scaled=True, every=True
  )


def measured_at(steps: int) -> np.ndarray:
  """Step 0, then four steps in each octave, and the last one."""
  powers = 2 ** np.arange(0, np.log2(steps), 0.25)
  return np.unique([0, *np.round(powers).astype(int), steps])


def sampler(config: build.Config, k: int, size: int):
  """Maps a key to prompts of order k."""
  graph = graphs.kgram(config.T, k)
  prior = priors.dirichlet(config.alpha, "uniform")
  return lambda key: sampling.sample_batch(
    key, graph, prior, config.S, size, True
  )


def trained(config: build.Config, case: Case, order: int) -> Course:
  """The training of a case on chains of some order, tested on order k."""
  seeds = config.seed + jnp.arange(config.num_seeds)
  course = functools.partial(_course, config, case, order)
  return Course(*jax.tree.map(np.asarray, jax.jit(jax.vmap(course))(seeds)))


def _course(config: build.Config, case: Case, order: int, seed) -> Course:
  model = model_of(config, case)
  init_key, data_key, test_key = jax.random.split(jax.random.key(seed), 3)
  test = sampler(config, case.k, config.test_size)(test_key)
  few = jax.tree.map(lambda a: a[: config.gradient_size], test)
  last_step = case.rounds * config.steps
  rate = optax.cosine_decay_schedule(case.learning_rate, last_step)
  optimizer = optax.chain(
    optax.clip_by_global_norm(config.max_norm), optax.adam(rate, b2=config.b2)
  )

  def mean_loss(params, batch):
    return jax.vmap(lambda p: loss_T(model, params, p)[case.k :].mean())(
      batch
    ).mean()

  def measure(params):
    norm = optax.tree.norm(jax.grad(mean_loss)(params, few))
    return mean_loss(params, test), norm

  def advance(state, num_steps):
    found = measure(state.params)
    state, _ = training.train(
      state,
      data_key,
      num_steps=num_steps,
      max_steps=last_step,
      model=model,
      optimizer=optimizer,
      draw=sampler(config, order, config.batch_size),
    )
    return state, found

  start = training.init(init_key, model, optimizer)
  between = jnp.asarray(np.diff(measured_at(last_step)))
  state, (loss_N, norm_N) = jax.lax.scan(advance, start, between)
  params: Any = state.params
  loss, norm = measure(params)
  law_LxNxTxS = predictors(config, case.k, test.x_T)
  lines_LxNxT = _losses(law_LxNxTxS, test.y_S[None])
  f_NxTxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
    test.x_T
  )
  w_L, _ = metrics.mixture_weights(f_NxTxS[:, -1], law_LxNxTxS[:, :, -1])
  last = (_losses(f_NxTxS, test.y_S) - lines_LxNxT[-1])[:, -1].mean()
  return Course(
    params,
    jnp.append(loss_N, loss),
    jnp.append(norm_N, norm),
    lines_LxNxT[..., case.k :].mean(axis=(1, 2)),
    last,
    w_L[-1],
  )


def loss_T(model, params, prompt: sampling.Prompt) -> jax.Array:
  """The loss at each position of one prompt."""
  f_TxS, _ = model.apply({"params": params}, prompt.x_T)
  return _losses(f_TxS, prompt.y_S)


def _losses(f, y) -> jax.Array:
  return -special.xlogy(jnp.broadcast_to(y, f.shape), f).sum(axis=-1)


def predictors(config: build.Config, k: int, x_NxT) -> jax.Array:
  """The laws of the k'-gram predictors, k' = 0, .., k: L x N x T x S."""

  def one(x_T):
    laws = [running.unigram(x_T, config.S)]
    for fewer in range(1, k + 1):
      graph = graphs.kgram(config.T, fewer)
      laws.append(running.edge_posterior(x_T, graph, config.alpha, config.S))
    return jnp.stack(laws)

  return jax.lax.map(one, x_NxT, batch_size=32).swapaxes(0, 1)
