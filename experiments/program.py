"""A run as pure functions, for one run or for many in one compiled program.

Runs share a program where they differ in nothing but their graph's arrays and
the fields of `TRACED`; those are arguments, and all else is compiled in.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import numpy as jnp
from jax.sharding import Mesh

from experiments import build
from icl_causal import metrics
from icl_causal import runs
from icl_causal import training
from icl_causal.graphs import Graph

TRACED = {
  "seed": jnp.uint32,
  "prior.alpha": jnp.float32,
  "prior.gamma": jnp.float32,
  "train.learning_rate": jnp.float32,
  "train.weight_decay": jnp.float32,
  "train.stride": jnp.float32,
  "train.second_learning_rate": jnp.float32,
  "train.first_steps": jnp.int32,
  "train.stop": jnp.float32,
  "train.epsilon": jnp.float32,
  "eval.seed": jnp.uint32,
}


class Member(NamedTuple):
  """What a run has of its own.

  Attributes:
    graph: the causal graph.
    values: scalars by the names of `TRACED` that the config has.
  """

  graph: Graph
  values: dict[str, jax.Array]


class Test(NamedTuple):
  """What a run is judged by, drawn once.

  Attributes:
    x_NxT: the tokens of the test prompts.
    y_NxS: their targets.
    predictors: losses of the predictors that need no training, by name.
  """

  x_NxT: jax.Array
  y_NxS: jax.Array
  predictors: dict[str, jax.Array]


class Program(NamedTuple):
  """The functions of a run, not compiled yet; the first argument is a Member.

  Attributes:
    start: the state before the first step.
    take_steps: (state, Steps) after `train.eval_every` more steps.
    draw_test: the test set.
    evaluate: the model of a state on the test set.
    exact: of the first `eval.posterior_prompts` of it, or of all if there are
      fewer, the losses of the exact posterior and the effective sample sizes.
  """

  start: Callable[[Member], training.TrainState]
  take_steps: Callable[
    [Member, training.TrainState], tuple[training.TrainState, training.Steps]
  ]
  draw_test: Callable[[Member], Test]
  evaluate: Callable[[Member, training.TrainState, Test], training.Evaluation]
  exact: Callable[[Member, Test], tuple[jax.Array, jax.Array]]


def member(config: build.Config, graph: Graph) -> Member:
  """The member that a config describes."""
  flat = runs.flatten(config.to_dict())
  return Member(
    jax.tree.map(jnp.asarray, graph),
    {
      name: jnp.asarray(flat[name], dtype)
      for name, dtype in TRACED.items()
      if name in flat
    },
  )


def program(config: build.Config, mesh: Mesh | None = None) -> Program:
  """The program of a config and of all that differ in `TRACED` or the graph.

  Args:
    config: checked.
    mesh: of devices that share the prompts of every batch.
  """

  def start(own: Member):
    mine, model, optimizer = parts(own)
    return training.init(build.key(mine.seed, "init"), model, optimizer)

  def take_steps(own: Member, state):
    mine, model, optimizer = parts(own)
    share = mine.train.batch_size // (mesh.size if mesh else 1)
    return training.train(
      state,
      build.key(mine.seed, "data"),
      mine.train.eval_every,
      model,
      optimizer,
      build.sampler(mine, own.graph, mine.train.batch_size, mesh),
      mine.train.epsilon,
      build.chunk_size(share, model),
      mesh,
    )

  def draw_test(own: Member):
    mine = parts(own)[0]
    draw = build.sampler(mine, own.graph, mine.eval.test_size, mesh)
    batch = draw(build.key(mine.eval.seed, "test"))
    return Test(
      batch.x_T,
      batch.y_S,
      metrics.predictor_losses(
        batch.x_T, batch.y_S, own.graph, mine.prior.alpha
      ),
    )

  def evaluate(own: Member, state, test: Test):
    mine, model, _ = parts(own)
    return training.evaluate(
      state.params,
      model,
      test.x_NxT,
      test.y_NxS,
      mine.eval.batch_size,
      mine.train.epsilon,
    )

  def exact(own: Member, test: Test):
    mine = parts(own)[0]
    num = min(mine.eval.posterior_prompts, mine.eval.test_size)
    keys = jax.random.split(build.key(mine.eval.seed, "posterior"), num)

    def losses(keys, x_NxT, y_NxS, graph, alpha):
      return metrics.exact_posterior_losses(
        keys,
        x_NxT,
        y_NxS,
        graph,
        alpha,
        mine.eval.posterior_samples,
        mine.prior.root_law,
      )

    if mesh:
      split, whole = build.by_prompt(mesh).spec, build.whole(mesh).spec
      losses = jax.shard_map(
        losses,
        mesh=mesh,
        in_specs=(split, split, split, whole, whole),
        out_specs=split,
        check_vma=False,
      )
    prompts = test.x_NxT[:num], test.y_NxS[:num]
    return losses(keys, *prompts, own.graph, mine.prior.alpha)

  def parts(own: Member):
    mine = _filled(config, own.values)
    return mine, build.model(mine, own.graph), build.optimizer(mine)

  return Program(start, take_steps, draw_test, evaluate, exact)


def _filled(config: build.Config, values: dict) -> build.Config:
  """The config with traced values in the place of its own."""
  filled = config.copy_and_resolve_references()
  with filled.unlocked(), filled.ignore_type():
    filled.update_from_flattened_dict(values)
  return filled
