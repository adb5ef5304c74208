"""Methods of theory:samples that start anew for each number of prompts.

Likelihood ascent, plug-in estimates and training. Likelihood ascent, pooled
estimates and training use the first N of the prompts of `sample_curves`;
conditional estimates need several sequences of each kernel.
"""

import functools
import importlib.util
from typing import Any

import jax
from jax import numpy as jnp
import numpy as np
import optax

from experiments.theory import pooled
from experiments.theory import sample_curves
from experiments.theory.sample_curves import Setting
from icl_causal import bayes
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import optimizers
from icl_causal import priors
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import estimators
from icl_causal.analysis import information
from icl_causal.analysis import likelihood
from icl_causal.analysis import recovery
from icl_causal.analysis import samples
from icl_causal.config import build
from icl_causal.graphs import Graph
from icl_causal.sampling import Prompt

ASCENT = "likelihood ascent"
SHANNON = "conditional Shannon"
CHI2 = "conditional chi-squared"
SAME_KERNELS = "best possible, shared kernels"
POOLED = "pooled Shannon"
CHOW_LIU = "Chow-Liu, pooled"
PC = "PC, pooled"
ALGORITHM_1 = "Algorithm 1"
JOINT = "joint training"

# What is counted of a training, beside its edges; losses in nats.
QUANTITIES = (
  "false parents",
  "loss on its prompts",
  "loss on fresh prompts",
  "excess on fresh prompts",
)

_BETA0 = 0.1  # of Algorithm 1
_START = 0.5  # the start of joint training
_EPSILON = 0.1  # of the loss of Algorithm 1
_STOP = 0.992  # of Algorithm 1, as in configs/two_stage.py
_EVALUATED = 256  # prompts at once


def ascent(config: build.Config, setting: Setting, forests_G):
  """Edges found and false parents of likelihood ascent, two G x N."""

  def one(graph: Graph, number, alpha):
    batch = sample_curves.prompts(config, setting, graph, number, alpha)
    found = []
    for N in config.ascent_prompts:
      guess = likelihood.likelihood_ascent(
        batch.x_T[:N], batch.y_S[:N], alpha, config.epsilon
      )
      found.append(_compare(guess.parents_TxK[:, 0], graph))
    return tuple(map(jnp.stack, zip(*found, strict=True)))

  return sample_curves.over(one, setting, forests_G, 1)


def conditional(config: build.Config, setting: Setting, forests_G):
  """Edges found from several sequences of each kernel, a G x N by method."""
  S, size = setting.S, config.sequences
  num_kernels = max(config.estimate_prompts) // size
  last = jnp.array([N // size for N in config.estimate_prompts]) - 1

  def one(graph: Graph, number, alpha):
    key = jax.random.fold_in(jax.random.key(config.seed + 4), number)

    def of_kernel(key):
      kernel_key, token_key = jax.random.split(key)
      kernel = priors.dirichlet(alpha)(kernel_key, S, 1)
      batch = sampling.sample_batch(
        token_key, graph, lambda *_: kernel, S, size
      )
      scores = jax.vmap(likelihood.likelihood_score, (0, None))
      return {
        SHANNON: estimators.pooled(batch.x_T, S, information.shannon),
        CHI2: estimators.pooled(batch.x_T, S, information.chi2),
        SAME_KERNELS: scores(batch.x_T, kernel).sum(axis=0),
      }

    by_name = jax.lax.map(of_kernel, jax.random.split(key, num_kernels))
    return {
      name: jax.vmap(samples.hits, (0, None))(
        jnp.cumsum(I_RxTxT, axis=0)[last], graph
      ).sum(axis=1)
      for name, I_RxTxT in by_name.items()
    }

  return sample_curves.over(one, setting, forests_G, 1)


def pooling(
  config: build.Config, setting: Setting, forests_G, with_pc: bool
) -> dict[str, np.ndarray]:
  """Edges found in pooled sequences, a G x N by method.

  PC is left out, with NaN, from more than `pc_sequences` sequences, and if
  causal-learn is not installed.
  """

  def one(graph: Graph, number, alpha):
    batch = sample_curves.prompts(config, setting, graph, number, alpha)
    measure = functools.partial(
      estimators.pooled, S=setting.S, measure=information.shannon
    )
    return batch.x_T, jnp.stack(
      [measure(batch.x_T[:N]) for N in config.estimate_prompts]
    )

  x_GxNxT, I_GxMxTxT = sample_curves.over(one, setting, forests_G, 1)
  has_pc = with_pc and importlib.util.find_spec("causallearn") is not None
  shape = len(forests_G), len(config.estimate_prompts)
  found = {name: np.full(shape, np.nan) for name in (POOLED, CHOW_LIU, PC)}
  for g, graph in enumerate(forests_G):
    edges = set(graphs.edges(graph))
    for m, N in enumerate(config.estimate_prompts):
      I_TxT = I_GxMxTxT[g, m]
      found[POOLED][g, m] = samples.hits(I_TxT, graph).sum()
      tree = recovery.chow_liu(I_TxT, graph)
      found[CHOW_LIU][g, m] = len(edges.intersection(tree))
      if has_pc and N <= config.pc_sequences:
        pairs = pooled.skeleton(x_GxNxT[g, :N], config.pc_alpha)
        found[PC][g, m] = len(edges.intersection(pairs))
  return found


def trained(config: build.Config, setting: Setting, forests_G):
  """Edges found by training on N prompts again and again, by method.

  Returns:
    For Algorithm 1 and joint training, edges found and false parents; for joint
    training, also the loss on its prompts, on fresh ones, and the latter minus
    that of the edge posterior, in nats. Each is G x N.
  """
  sizes = config.trained_prompts
  runs = [(g, n, N) for n, g in enumerate(forests_G) for N in sizes]

  def one(graph: Graph, number, alpha, num):
    batch = sample_curves.prompts(config, setting, graph, number, alpha)
    batch = jax.tree.map(lambda a: a[: max(sizes)], batch)
    key = jax.random.fold_in(jax.random.key(config.seed + 5), number)
    first_key, joint_key, test_key = jax.random.split(key, 3)
    draw = functools.partial(
      sampling.resample,
      prompts=batch,
      batch_size=config.batch_size,
      num_prompts=num,
    )
    att_TxT = _algorithm_1(config, setting, first_key, draw)
    test = _fresh(config, setting, graph, test_key, alpha)
    joint = _joint(config, setting, joint_key, draw, (batch, num), test)
    counts_S = jax.vmap(bayes.edge_posterior, (0, None, None, None))(
      test.x_T, graph, alpha, setting.S
    )
    baseline = jax.vmap(metrics.loss)(counts_S, test.y_S).mean()
    return {
      ALGORITHM_1: _attention(att_TxT, graph),
      JOINT: (
        *_attention(joint[0], graph),
        *joint[1:],
        joint[2] - baseline,
      ),
    }

  result = sample_curves.over_runs(
    one,
    [
      (g, np.int32(n), np.float32(setting.alpha), np.int32(N))
      for g, n, N in runs
    ],
    4,
  )
  return jax.tree.map(lambda a_R: a_R.reshape(-1, len(sizes)), result)


def _fresh(config, setting: Setting, graph: Graph, key, alpha) -> Prompt:
  prior = priors.dirichlet(alpha)
  return sampling.sample_batch(key, graph, prior, setting.S, config.test_size)


def _algorithm_1(config, setting: Setting, key, draw):
  """The attention of layer 1 after stage 1."""
  model = models.Reduced(setting.S, setting.T, _BETA0)
  steps = config.first_steps
  optimizer = optimizers.algorithm_1(config.first_rate, 0.0, steps, _STOP, True)
  state, _ = training.train(
    training.init(key, model, optimizer),
    key,
    num_steps=steps,
    model=model,
    optimizer=optimizer,
    draw=draw,
    epsilon=_EPSILON,
  )
  mask_TxT = jnp.where(jnp.tri(setting.T, dtype=bool), 0, -jnp.inf)
  params: Any = state.params
  return jax.nn.softmax(params["A1"] + mask_TxT)


def _joint(config, setting: Setting, key, draw, own: tuple, test: Prompt):
  """The attention of layer 1, and the losses on own and on fresh prompts."""
  model = models.Disentangled(setting.S, setting.T, (1, 1), beta0=_START)
  rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
  optimizer = optax.adam(rate)
  init_key, data_key = jax.random.split(key)
  state, _ = training.train(
    training.init(init_key, model, optimizer),
    data_key,
    num_steps=config.steps,
    model=model,
    optimizer=optimizer,
    draw=draw,
  )

  def evaluate(batch: Prompt):
    size = min(_EVALUATED, len(batch.x_T))
    return training.evaluate(state.params, model, batch.x_T, batch.y_S, size)

  batch, num = own
  is_own_N = jnp.arange(len(batch.x_T)) < num
  loss_N = jnp.where(is_own_N, evaluate(batch).loss_N, 0)
  on_test = evaluate(test)
  attention_TxT = on_test.attention["attention_1"][0]
  return attention_TxT, loss_N.sum() / num, on_test.loss_N.mean()


def _attention(att_TxT, graph: Graph):
  """Edges found by the row argmax, and false parents above 1/2."""
  parents_T = graph.parents_TxK[:, 0]
  earlier_TxT = jnp.where(jnp.tri(len(att_TxT), k=-1, dtype=bool), att_TxT, 0)
  is_false_T = (earlier_TxT.max(axis=1) > 0.5) & (parents_T < 0)
  return samples.hits(att_TxT, graph).sum(), is_false_T[1:-1].sum()


def _compare(guess_T, graph: Graph):
  """Edges found, and roots with a parent."""
  parents_T = graph.parents_TxK[:, 0]
  is_true_T = (guess_T == parents_T) & (parents_T >= 0)
  is_false_T = (guess_T >= 0) & (parents_T < 0)
  return is_true_T.sum(), is_false_T.sum()
