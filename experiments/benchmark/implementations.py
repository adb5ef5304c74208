"""The work of a training step, by the textbook version and by the library.

Each kind of work is a loop inside one compiled program, so that the time per
step excludes Python calls and memory allocation. Each step depends on the
result of the step before, so the compiler can't move work out of the loop.
"""

from collections.abc import Callable
import time
import types
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.sharding import Mesh
import optax

from configs import single_parent
from experiments.benchmark import textbook
from icl_causal import graphs
from icl_causal import models
from icl_causal import parallel
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import recovery
from icl_causal.config import build
from icl_causal.graphs import Graph
from icl_causal.priors import Prior
from icl_causal.sampling import Prompt

ALPHA = 0.1
KINDS = ("sampling", "forward", "gradient", "training step")


class Case(NamedTuple):
  """A problem size of the disentangled transformer on a chain.

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
  """A loop to be timed.

  Attributes:
    step: maps (carry, data) to the next carry.
    carry: the first carry.
    data: an input of every step.
  """

  step: Callable[[Any, Any], Any]
  carry: Any
  data: Any


class Implementation(NamedTuple):
  """A sampler and a model.

  Attributes:
    draw: maps a key to a batch of prompts.
    model: has a method `apply`, as `training.train` requires it.
    mesh: of devices that share a batch, or None.
    chunk_size: as for `training.train`.
  """

  draw: Callable[[jax.Array], Prompt]
  model: Any
  mesh: Mesh | None
  chunk_size: int | None


def from_textbook(case: Case) -> Implementation:
  """The textbook version, on one device."""
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
  """The library, on as many devices as `experiments.train` would use."""
  config: build.Config = single_parent.get_config("chain")
  config.graph.T, config.prior.S, config.prior.alpha = case.T, case.S, ALPHA
  num = parallel.num_cores(case.batch_size, (), jax.device_count())
  mesh = parallel.batch_mesh(num)
  draw = build.sampler(config, build.graph(config), case.batch_size, mesh)
  model = _model(case)
  chunk_size = parallel.chunk_size(case.batch_size // num, model)
  return Implementation(draw, model, mesh, chunk_size)


def loop(
  kind: str, case: Case, implementation: Implementation, data=None
) -> Loop:
  """The loop of one kind of work.

  Args:
    kind: one of `KINDS`.
    case: the size.
    implementation: the sampler and the model.
    data: prompts for `forward` and `gradient`; by default new ones are drawn.
  """
  optimizer = optax.adamw(0.01)
  state = training.init(jax.random.key(1), _model(case), optimizer)
  params = jax.tree.map(
    lambda leaf: 0.1 * jax.random.normal(jax.random.key(2), leaf.shape),
    state.params,
  )
  state = state._replace(params=params)
  if data is None:
    data = jax.jit(implementation.draw)(jax.random.key(3))
    data = data._replace(kernel=None)
  key = jax.random.key(4)
  if mesh := implementation.mesh:
    data = jax.device_put(data, parallel.batch_sharding(mesh))
    state, key = jax.device_put((state, key), parallel.replicated(mesh))
  zero = jnp.zeros(())
  train = _training_step(implementation, optimizer, key)
  return {
    "sampling": Loop(_sampling(implementation.draw), (key, zero), None),
    "forward": Loop(_forward(implementation), (state.params, zero), data),
    "gradient": Loop(_gradient(implementation), state.params, data),
    "training step": Loop(train, state, None),
  }[kind]


def sampling_timer(
  graph: Graph, prior: Prior, S: int, batch_size: int
) -> Callable[[], float]:
  """`timer` of drawing prompts, without their kernels, on one device."""

  def draw(key):
    return sampling.sample_batch(key, graph, prior, S, batch_size)

  drawn = Loop(_sampling(draw), (jax.random.key(4), jnp.zeros(())), None)
  return timer(drawn, compiled(drawn))


def _sampling(draw: Callable[[jax.Array], Prompt]):
  def step(carry, _):
    key, total = carry
    batch = draw(key)
    total += batch.x_T.sum() + batch.y_S.sum()
    return jax.random.fold_in(key, 0), total

  return step


def _forward(implementation: Implementation):
  def step(carry, data):
    params, total = carry
    found = training.evaluate(
      params,
      implementation.model,
      data.x_T,
      data.y_S,
      len(data.x_T),
      chunk_size=implementation.chunk_size,
      mesh=implementation.mesh,
    )
    total += found.loss_N.mean()
    return jax.tree.map(lambda leaf: leaf * 0.999, params), total

  return step


def _gradient(implementation: Implementation):
  def step(params, data):
    _, gradient = training.loss_and_gradient(
      params,
      data,
      model=implementation.model,
      chunk_size=implementation.chunk_size,
      mesh=implementation.mesh,
    )
    return jax.tree.map(lambda leaf, g: leaf - 1e-3 * g, params, gradient)

  return step


def _training_step(implementation: Implementation, optimizer, key):
  def step(state, _):
    return training.train(
      state,
      key,
      num_steps=1,
      model=implementation.model,
      optimizer=optimizer,
      draw=implementation.draw,
      chunk_size=implementation.chunk_size,
      mesh=implementation.mesh,
    )[0]

  return step


def seconds_to_all_edges(
  implementation: Implementation, config: build.Config
) -> float:
  """Seconds of training until every edge is recovered.

  Includes compilation, but not the start of Python. Evaluates the layer-1
  attention on one batch after every `train.eval_every` steps.

  Args:
    implementation: the sampler and the model.
    config: as for `experiments.train`.
  """
  started = time.perf_counter()
  graph = build.graph(config)
  model = build.model(config, graph)
  optimizer = build.optimizer(config, model)
  state = training.init(jax.random.key(0), model, optimizer)

  @jax.jit
  def steps(state):
    state, _ = training.train(
      state,
      jax.random.key(1),
      num_steps=config.train.eval_every,
      model=implementation.model,
      optimizer=optimizer,
      draw=implementation.draw,
    )
    batch = implementation.draw(jax.random.key(2))
    _, out = jax.vmap(implementation.model.apply, (None, 0))(
      {"params": state.params}, batch.x_T
    )
    return state, out["attention_1"].mean(axis=0)

  for _ in range(config.train.steps // config.train.eval_every):
    state, attention_HxTxT = steps(state)
    edges = recovery.compare(attention_HxTxT, graph, include_self=True)
    if edges.recovered == edges.edges:
      return time.perf_counter() - started
  raise ValueError(f"{config.train.steps} steps do not recover every edge")


def compiled(loop: Loop):
  """Compiles the function of (carry, data, n) to the carry after n steps."""

  def take_steps(carry, data, n):
    return jax.lax.fori_loop(0, n, lambda _, c: loop.step(c, data), carry)

  return jax.jit(take_steps).lower(loop.carry, loop.data, 1).compile()


def timer(loop: Loop, run) -> Callable[[], float]:
  """A function that measures the seconds per step.

  Each call takes as many steps as fit in about a tenth of a second. If that is
  more than one, a call that is not timed precedes it: the first call after
  other work can take twice as long.

  Args:
    loop: the loop.
    run: its `compiled` function.
  """

  def seconds(n: int) -> float:
    started = time.perf_counter()
    jax.block_until_ready(run(loop.carry, loop.data, n))
    return (time.perf_counter() - started) / n

  def warm_seconds() -> float:
    if n > 1:
      seconds(n)
    return seconds(n)

  seconds(1)
  n = max(1, round(0.1 / seconds(1)))
  return warm_seconds


def _model(case: Case) -> models.Disentangled:
  return models.Disentangled(case.S, case.T, case.heads)
