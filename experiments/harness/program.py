"""A run as pure functions, for one run or for many in one compiled program.

Runs share a program if they differ only in the arrays of their graph and in the
fields of `traced.FIELDS`. Those are arguments; everything else is compiled in.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
from jax import numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from experiments.harness import traced
from experiments.harness.traced import RunInputs
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import parallel
from icl_causal import phases
from icl_causal import training
from icl_causal.config import build
from icl_causal.config import streams
from icl_causal.graphs import Graph

# Programs that a process keeps.
MOST_KEPT = 8
# Test prompts whose outputs a run records.
NUM_SHOWN = 4


class Test(NamedTuple):
  """The test set of a run, drawn once.

  Attributes:
    x_NxT: the tokens of the test prompts.
    y_NxS: their targets; y_NxTxS if the model predicts at every position.
    baselines: losses of the baselines on each prompt, by name.
    index_N: which graph each prompt is drawn from, or None if there is one.
  """

  x_NxT: jax.Array
  y_NxS: jax.Array
  baselines: dict[str, jax.Array]
  index_N: jax.Array | None


class Program(NamedTuple):
  """The functions of a run, not compiled yet; the first argument is RunInputs.

  Attributes:
    start: the state before the first step.
    take_steps: (state, Steps) after more steps: a number, by default and at
      most `train.eval_every`.
    draw_test: the test set.
    evaluate: the model of a state on the first batches of the test set: a
      number, by default all.
    exact: the exact posterior and its losses on the first
      `eval.posterior_prompts` test prompts, or on all if there are fewer; or
      on a block of them, by its number, of `num_blocks`.
    draw_baselines: the predictors with which phases compare the model, on the
      first `eval.batch_size` test prompts; the exact posterior is one of them
      if it is given, is computed on all these prompts and has enough effective
      samples.
    phase: of an evaluation, compared with these predictors.
  """

  start: Callable[[RunInputs], training.TrainState]
  take_steps: Callable[..., tuple[training.TrainState, training.Steps]]
  draw_test: Callable[[RunInputs], Test]
  evaluate: Callable[..., training.Evaluation]
  exact: Callable[..., metrics.ExactLosses]
  draw_baselines: Callable[..., phases.Baselines]
  phase: Callable[..., phases.Phase]


def program(config: build.Config, mesh: Mesh | None = None) -> Program:
  """The program of a config, and of all that differ in their `RunInputs` alone.

  These configs get the same functions, so that jax compiles them once in a
  process.

  Args:
    config: checked.
    mesh: of devices that share the prompts of every batch.
  """
  return _program(traced.Key(config), mesh)


@functools.lru_cache(maxsize=MOST_KEPT)
def _program(key: traced.Key, mesh: Mesh | None) -> Program:
  config = key.config

  def built(inputs: RunInputs):
    filled = traced.fill(config, inputs.values)
    model = build.model(filled, inputs.graph)
    return filled, model, build.optimizer(filled, model)

  def start(inputs: RunInputs):
    filled, model, optimizer = built(inputs)
    return training.init(streams.key(filled.seed, "init"), model, optimizer)

  def take_steps(
    inputs: RunInputs,
    state,
    num_steps: ArrayLike = config.train.eval_every,
  ):
    filled, model, optimizer = built(inputs)
    batch_size, num_devices = config.train.batch_size, mesh.size if mesh else 1
    return training.train(
      state,
      streams.key(filled.seed, "data"),
      num_steps=num_steps,
      model=model,
      optimizer=optimizer,
      draw=build.sampler(filled, inputs.graph, batch_size, mesh),
      epsilon=filled.train.epsilon,
      chunk_size=parallel.chunk_size(batch_size // num_devices, model),
      mesh=mesh,
      max_steps=config.train.eval_every,
    )

  def evaluate(
    inputs: RunInputs,
    state,
    test: Test,
    num_batches: ArrayLike | None = None,
  ):
    filled, model, _ = built(inputs)
    batch_size = config.eval.batch_size
    split = mesh if mesh and batch_size % mesh.size == 0 else None
    share = batch_size // (split.size if split else 1)
    return training.evaluate(
      state.params,
      model,
      test.x_NxT,
      test.y_NxS,
      batch_size,
      filled.train.epsilon,
      num_batches,
      min(NUM_SHOWN, share),
      parallel.chunk_size(share, model),
      split,
    )

  return Program(
    start,
    take_steps,
    functools.partial(_draw_test, config, mesh),
    evaluate,
    functools.partial(_exact, config, mesh),
    functools.partial(_draw_baselines, config),
    functools.partial(_phase, config),
  )


def _draw_test(
  config: build.Config, mesh: Mesh | None, inputs: RunInputs
) -> Test:
  """`Program.draw_test`."""
  filled = traced.fill(config, inputs.values)
  draw = build.sampler(filled, inputs.graph, config.eval.test_size, mesh)
  batch = draw(streams.key(filled.eval.seed, "test"))
  index_N = getattr(batch, "graph_index", None)
  baselines = metrics.predictor_losses(
    batch.x_T,
    batch.y_S,
    _graph_of_prompts(inputs.graph, index_N),
    filled.prior.alpha,
    filled.prior.root_law,
  )
  if not build.is_dirichlet(config):
    baselines["dirichlet_edge_posterior"] = baselines.pop("edge_posterior")
  return Test(batch.x_T, batch.y_S, baselines, index_N)


def _graph_of_prompts(graph: Graph, index_N) -> Graph:
  """The graph of each prompt along a leading axis; or the graph of all."""
  if index_N is None:
    return graph
  return jax.tree.map(lambda a: a[index_N], graph)


def _exact(
  config: build.Config,
  mesh: Mesh | None,
  inputs: RunInputs,
  test: Test,
  block: ArrayLike | None = None,
) -> metrics.ExactLosses:
  """`Program.exact`."""
  seed = traced.fill(config, inputs.values).eval.seed
  num = _num_exact(config)
  keys_M = jax.random.split(streams.key(seed, "posterior"), num)
  start, size = 0, num
  if block is not None:
    size = num // num_blocks(config, mesh)
    start = block * size

  def part(a):
    return jax.lax.dynamic_slice_in_dim(a, start, size)

  losses = _exact_losses(config, mesh)
  return losses(part(keys_M), part(test.x_NxT), part(test.y_NxS), inputs)


def num_blocks(config: build.Config, mesh: Mesh | None = None) -> int:
  """The number of blocks in which the exact posterior may be computed.

  A block has `eval.batch_size` prompts, which `Program.draw_baselines` needs.
  There is one block of all prompts if they do not divide into such blocks, or a
  block does not divide over the devices.
  """
  num, size = _num_exact(config), config.eval.batch_size
  return 1 if num % size or size % (mesh.size if mesh else 1) else num // size


def _num_exact(config: build.Config) -> int:
  """The number of prompts of the exact posterior."""
  return min(config.eval.posterior_prompts, config.eval.test_size)


def _draw_baselines(
  config: build.Config,
  inputs: RunInputs,
  test: Test,
  exact: metrics.ExactLosses | None,
) -> phases.Baselines:
  """`Program.draw_baselines`."""
  filled, graph = traced.fill(config, inputs.values), inputs.graph
  num, exact_BxS = config.eval.batch_size, None
  if exact is not None and len(exact.loss_M) >= num:
    assert exact.law_MxS is not None
    effective = 1 / (1 / exact.effective_M[:num]).mean()
    is_reliable = effective >= metrics.MIN_EFFECTIVE_SAMPLES
    exact_BxS = jnp.where(is_reliable, exact.law_MxS[:num], 0)
  wrong_graph = None
  if test.index_N is None:
    wrong_key = streams.key(filled.eval.seed, "wrong_graph")
    wrong_graph = graphs.rewire(wrong_key, graph)
  else:
    graph = _graph_of_prompts(graph, test.index_N[:num])
  return phases.baselines(
    test.x_NxT[:num],
    test.y_NxS[:num],
    graph,
    wrong_graph,
    filled.prior.alpha,
    exact_BxS,
    filled.prior.root_law,
  )


def _phase(
  config: build.Config,
  inputs: RunInputs,
  found: training.Evaluation,
  of: phases.Baselines,
) -> phases.Phase:
  """`Program.phase`."""
  prior = traced.fill(config, inputs.values).prior
  maps_HxTxT = found.attention["attention_1"]
  law_BxS = found.law_NxS[: config.eval.batch_size]
  return phases.phase(
    *(law_BxS, maps_HxTxT, of, inputs.graph, prior.alpha, prior.root_law)
  )


def _exact_losses(config: build.Config, mesh: Mesh | None):
  """Maps keys, prompts and inputs to `metrics.exact_posterior_losses`."""

  def losses(keys, x_NxT, y_NxS, inputs: RunInputs):
    posterior = build.posterior(
      traced.fill(config, inputs.values), inputs.graph
    )
    return metrics.exact_posterior_losses(posterior, keys, x_NxT, y_NxS)

  if mesh is None:
    return losses
  split = parallel.batch_sharding(mesh).spec
  full = parallel.replicated(mesh).spec
  return jax.shard_map(
    losses,
    mesh=mesh,
    in_specs=(split, split, split, full),
    out_specs=split,
    check_vma=False,
  )
