import types

import jax
import numpy as np
import optax
import pytest

from configs import pool
from configs import random_forests
from configs import single_parent
from configs import two_stage
from experiments.harness import program
from experiments.harness import traced
from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import parallel
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.config import build
from icl_causal.config import streams


def _config(module=single_parent, variant="manual", **fields):
  config = module.get_config(variant).unlock()
  if "sweep" in config:
    del config["sweep"]
  config.train.batch_size, config.train.eval_every = 32, 2
  config.eval.test_size = config.eval.batch_size = 64
  config.update_from_flattened_dict(fields)
  build.check(config)
  return config


def test_program_equals_direct_calls_of_the_library():
  config = _config(
    **{"train.steps": 4, "train.learning_rate": 0.02, "prior.alpha": 0.3}
  )
  graph = graphs.from_parents((-1, 0, 0, 1, 2, -1))
  model = models.Disentangled(3, 6, (1, 1), beta0=0.5)
  optimizer = optax.adamw(
    optax.cosine_decay_schedule(0.02, 4), b2=0.99, weight_decay=0.0
  )

  @jax.jit
  def direct(seed):
    init_key, data_key = (
      jax.random.fold_in(jax.random.key(seed), stream) for stream in (1, 2)
    )
    return training.train(
      training.init(init_key, model, optimizer),
      data_key,
      num_steps=2,
      model=model,
      optimizer=optimizer,
      draw=lambda key: sampling.sample_batch(
        key, graph, priors.dirichlet(0.3), 3, 32
      ),
    )

  run = program.program(config)
  inputs = traced.run_inputs(config, build.graph(config))
  state, steps = jax.jit(
    lambda inputs: run.take_steps(inputs, run.start(inputs))
  )(inputs)
  expected_state, expected_steps = direct(0)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
    steps,
    expected_steps,
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    state.params,
    expected_state.params,
  )


@pytest.mark.parametrize(
  ("module", "variant", "base", "changes"),
  [
    (
      single_parent,
      "random",
      {},
      {
        "seed": 2**32 - 1,
        "graph.seed": 5,
        "prior.alpha": 1.0,
        "train.learning_rate": 0.02,
        "train.weight_decay": 0.5,
        "train.epsilon": 0.1,
        "eval.seed": 3,
      },
    ),
    (
      random_forests,
      "forests",
      {"train.phase_steps": 1},
      {"train.max_step": 0.1, "train.weight_decay": 0.5},
    ),
    (
      two_stage,
      "forest",
      {"train.first_steps": 3},
      {
        "prior.gamma": 0.5,
        "train.second_learning_rate": 1.0,
        "train.first_steps": 1,
        "train.stop": 0.1,
      },
    ),
  ],
)
def test_one_compiled_program_reads_every_number(
  module, variant, base, changes
):
  base |= {
    "graph.T": 6,
    "prior.S": 3,
    "prior.name": "floored_dirichlet",
    "prior.gamma": 0.1,
    "eval.posterior_prompts": 0,
  }
  config = _config(module, variant, **base)
  run = program.program(config)

  @jax.jit
  def losses(inputs):
    state = run.start(inputs)
    for _ in range(2):
      state, _ = run.take_steps(inputs, state)
    return run.evaluate(inputs, state, run.draw_test(inputs)).loss_N

  def losses_of(config):
    return losses(traced.run_inputs(config, build.graph(config)))

  plain_N = losses_of(config)
  for name, value in changes.items():
    changed_N = losses_of(_config(module, variant, **{**base, name: value}))
    assert np.abs(changed_N - plain_N).max() > 1e-6, name
  assert losses._cache_size() == 1


def test_pools_of_all_sizes_share_a_program_without_the_bayes_predictor():
  """Its weights have an entry for each kernel, so it fixes the size."""
  base = {"graph.T": 6, "eval.posterior_prompts": 0}
  config = _config(pool, "chain", **base)
  run = program.program(config)

  @jax.jit
  def tokens(inputs):
    return run.draw_test(inputs).x_NxT

  found = []
  for changes in ({}, {"prior.num_kernels": 1}, {"prior.seed": 1}):
    changed = _config(pool, "chain", **{**base, **changes})
    found.append(tokens(traced.run_inputs(changed, build.graph(changed))))
    alone = program.program(changed).draw_test
    x_NxT = alone(traced.run_inputs(changed, build.graph(changed))).x_NxT
    np.testing.assert_array_equal(found[-1], x_NxT)
  assert (found[0] != found[1]).any()
  assert (found[0] != found[2]).any()
  assert tokens._cache_size() == 1
  config.eval.posterior_prompts = 64
  exact = program.program(config).exact
  inputs = traced.run_inputs(config, build.graph(config))
  assert exact(inputs, run.draw_test(inputs)).loss_M.shape == (64,)


@pytest.mark.parametrize("num_exact", [0, 32, 64])
def test_a_phase_has_the_exact_posterior_if_it_has_every_prompt(num_exact):
  """A model that is the exact posterior, compared with the predictors."""
  config = _config(
    **{"eval.posterior_prompts": num_exact, "eval.posterior_samples": 64}
  )
  inputs = traced.run_inputs(config, build.graph(config))
  run = program.program(config)
  test = jax.jit(run.draw_test)(inputs)
  exact = jax.jit(run.exact)(inputs, test) if num_exact else None
  of = jax.jit(run.draw_baselines)(inputs, test, exact)
  assert ("exact_posterior" in of.laws) == (num_exact == 64)
  np.testing.assert_array_equal(of.x_NxT, test.x_NxT[:64])
  if num_exact < 64:
    return
  np.testing.assert_array_equal(of.laws["exact_posterior"], exact.law_MxS)
  maps = {"attention_1": np.zeros((1, 6, 6), np.float32)}
  model = training.Evaluation(None, maps, {}, exact.law_MxS)
  found = jax.jit(run.phase)(inputs, model, of)
  assert found.weights["exact_posterior"] == pytest.approx(1, abs=1e-3)
  edge = test.baselines["edge_posterior"][:64].mean()
  np.testing.assert_allclose(found.edge_loss, edge, rtol=1e-5)
  few = exact._replace(effective_M=exact.effective_M.at[3].set(0.01))
  of = jax.jit(run.draw_baselines)(inputs, test, few)
  assert not of.laws["exact_posterior"].any()


@pytest.mark.parametrize(
  ("num_exact", "num_devices", "expected"),
  [(192, 1, 3), (64, 1, 1), (96, 1, 1), (32, 1, 1), (192, 3, 1), (999, 1, 4)],
)
def test_blocks_of_the_exact_posterior(num_exact, num_devices, expected):
  """Of 64 prompts, of a test set of 256, if they divide over the devices."""
  config = _config(
    **{"eval.posterior_prompts": num_exact, "eval.test_size": 256}
  )
  mesh = types.SimpleNamespace(size=num_devices)
  assert program.num_blocks(config, mesh) == expected


def test_blocks_together_are_the_exact_posterior():
  config = _config(
    **{
      "eval.posterior_prompts": 192,
      "eval.posterior_samples": 16,
      "eval.test_size": 256,
    }
  )
  assert program.num_blocks(config) == 3
  inputs = traced.run_inputs(config, build.graph(config))
  run = program.program(config)
  test = jax.jit(run.draw_test)(inputs)
  exact = jax.jit(run.exact)
  blocks = [exact(inputs, test, block) for block in range(3)]
  jax.tree.map(
    lambda whole, *parts: np.testing.assert_array_equal(
      whole, np.concatenate(parts)
    ),
    exact(inputs, test),
    *blocks,
  )


def test_exact_posterior_is_that_of_the_library():
  """On the first prompts of the test set, with and without a mesh."""
  config = _config(
    **{"eval.posterior_prompts": 8, "eval.posterior_samples": 16}
  )
  inputs = traced.run_inputs(config, build.graph(config))
  run = program.program(config)
  test = jax.jit(run.draw_test)(inputs)
  found = [
    jax.jit(program.program(config, mesh).exact)(inputs, test)
    for mesh in (None, parallel.batch_mesh())
  ]
  keys = jax.random.split(streams.key(0, "posterior"), 8)
  expected = jax.jit(
    lambda *prompts: metrics.exact_posterior_losses(
      lambda key, x_T: bayes.dirichlet_posterior(
        key, x_T, inputs.graph, 0.1, 3, 16, "stationary"
      ),
      *prompts,
    )
  )(keys, test.x_NxT[:8], test.y_NxS[:8])
  for losses in found:
    assert losses[0].shape == (8,)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), losses, expected
    )
