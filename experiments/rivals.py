"""The same work done as a textbook has it and as the library does it.

Each is a loop whose steps depend on each other, with nothing between them but
the work: what a step costs in training, where memory is at hand and Python has
no part in it.
"""

from collections.abc import Callable
import functools
import time
import types
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.sharding import Mesh
import optax

from experiments import build
from experiments import textbook
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal import recovery
from icl_causal import sampling
from icl_causal import training
from icl_causal.sampling import Prompt

ALPHA = 0.1
KINDS = ("sampling", "forward", "gradient", "training step")


class Case(NamedTuple):
  """A size: the disentangled transformer on a chain.

  Attributes:
    S: states.
    T: positions.
    batch_size: prompts.
    heads: of each layer.
  """

  S: int
  T: int
  batch_size: int
  heads: tuple[int, ...] = (1, 1)


class Loop(NamedTuple):
  """Steps that are to be timed.

  Attributes:
    step: (carry, data) to the next carry.
    carry: the first one.
    data: what every step reads.
  """

  step: Callable[[Any, Any], Any]
  carry: Any
  data: Any


class Implementation(NamedTuple):
  """How prompts are drawn and read.

  Attributes:
    draw: a batch of prompts from a key.
    model: with a method `apply`, as `training.train` takes it.
    mesh: of devices that share a batch, or None.
    chunk_size: prompts that are worked on at a time, or None for all.
  """

  draw: Callable[[jax.Array], Prompt]
  model: Any
  mesh: Mesh | None
  chunk_size: int | None


def from_textbook(case: Case) -> Implementation:
  """The textbook's, on one device."""
  parents_T = graphs.chain(case.T).parents_TxK[:, 0]

  def draw(key):
    keys_B = jax.random.split(key, case.batch_size)
    x_BxT, y_BxS = jax.vmap(
      lambda key: textbook.sample_prompt(key, parents_T, ALPHA, case.S)
    )(keys_B)
    return Prompt(x_BxT, y_BxS, kernel=jnp.zeros(()))

  def apply(variables, x_T):
    f_S, maps = textbook.disentangled(variables["params"], x_T, case.S)
    return f_S, {"attention_1": maps[0]}

  return Implementation(draw, types.SimpleNamespace(apply=apply), None, None)


def from_library(case: Case) -> Implementation:
  """The library's, over as many devices as `experiments.train` would take."""
  graph, prior = graphs.chain(case.T), priors.dirichlet(ALPHA)
  num = build.num_cores(case.batch_size, (), jax.device_count())
  mesh = build.mesh(num)

  def draw(key):
    batch = sampling.sample_batch(key, graph, prior, case.S, case.batch_size)
    return jax.lax.with_sharding_constraint(batch, build.by_prompt(mesh))

  model = _model(case)
  chunk_size = build.chunk_size(case.batch_size // num, model)
  return Implementation(draw, model, mesh, chunk_size)


def loop(kind: str, case: Case, made: Implementation, data=None) -> Loop:
  """One of `KINDS` of work by one of the implementations.

  Args:
    kind: of work.
    case: its size.
    made: the implementation.
    data: prompts, where some are at hand.
  """
  optimizer = optax.adamw(0.01)
  state = training.init(jax.random.key(1), _model(case), optimizer)
  params = jax.tree.map(
    lambda leaf: 0.1 * jax.random.normal(jax.random.key(2), leaf.shape),
    state.params,
  )
  state = state._replace(params=params)
  if data is None:
    data = jax.jit(made.draw)(jax.random.key(3))._replace(kernel=None)
  key = jax.random.key(4)
  if made.mesh:
    data = jax.device_put(data, build.by_prompt(made.mesh))
    state, params, key = jax.device_put(
      (state, params, key), build.whole(made.mesh)
    )
  loss_and_gradient = functools.partial(
    training.loss_and_gradient,
    model=made.model,
    chunk_size=made.chunk_size,
    mesh=made.mesh,
  )

  def sample(carry, _):
    key, total = carry
    batch = made.draw(key)
    total += batch.x_T.sum() + batch.y_S.sum()
    return jax.random.fold_in(key, 0), total

  def forward(carry, data):
    params, total = carry
    f_BxS, _ = jax.vmap(made.model.apply, (None, 0))(
      {"params": params}, data.x_T
    )
    total += jax.vmap(metrics.loss)(f_BxS, data.y_S).mean()
    return jax.tree.map(lambda leaf: leaf * 0.999, params), total

  def gradient(params, data):
    _, slopes = loss_and_gradient(params, data)
    return jax.tree.map(lambda leaf, g: leaf - 1e-3 * g, params, slopes)

  def train(state, _):
    return training.train(
      state,
      key,
      1,
      made.model,
      optimizer,
      made.draw,
      chunk_size=made.chunk_size,
      mesh=made.mesh,
    )[0]

  return {
    "sampling": Loop(sample, (key, jnp.zeros(())), None),
    "forward": Loop(forward, (params, jnp.zeros(())), data),
    "gradient": Loop(gradient, params, data),
    "training step": Loop(train, state, None),
  }[kind]


def seconds_to_all_edges(made: Implementation, config: build.Config) -> float:
  """Training by a config of `experiments.train` until every edge is found.

  Compilation is part of it, the start of Python is not. Looks at the layer-1
  attention on one batch after every `train.eval_every` steps.
  """
  started = time.perf_counter()
  graph, optimizer = build.graph(config), build.optimizer(config)
  state = training.init(
    jax.random.key(0), build.model(config, graph), optimizer
  )

  @jax.jit
  def steps(state):
    state, _ = training.train(
      state,
      jax.random.key(1),
      config.train.eval_every,
      made.model,
      optimizer,
      made.draw,
    )
    batch = made.draw(jax.random.key(2))
    _, out = jax.vmap(made.model.apply, (None, 0))(
      {"params": state.params}, batch.x_T
    )
    return state, out["attention_1"].mean(axis=0)

  for _ in range(config.train.steps // config.train.eval_every):
    state, attention_HxTxT = steps(state)
    edges = recovery.compare(attention_HxTxT, graph, include_self=True)
    if edges.recovered == edges.edges:
      return time.perf_counter() - started
  raise ValueError("the config's steps do not find every edge")


def compiled(loop: Loop):
  """(carry, data, n) to the carry after n steps."""

  def many(carry, data, n):
    return jax.lax.fori_loop(0, n, lambda _, c: loop.step(c, data), carry)

  return jax.jit(many).lower(loop.carry, loop.data, 1).compile()


def timer(loop: Loop, run) -> Callable[[], float]:
  """Seconds a step, by so many steps that they take a tenth of a second."""

  def seconds(n: int) -> float:
    started = time.perf_counter()
    jax.block_until_ready(run(loop.carry, loop.data, n))
    return (time.perf_counter() - started) / n

  seconds(1)
  n = max(1, round(0.1 / seconds(1)))
  return lambda: seconds(n)


def _model(case: Case) -> models.Disentangled:
  return models.Disentangled(case.S, case.T, case.heads)
