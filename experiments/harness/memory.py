"""The memory that a training needs, and the memory that there is, in bytes."""

from collections.abc import Sequence
import os
import pathlib
import resource

import jax
from jax import numpy as jnp

from experiments.harness import program
from experiments.harness.grid import Run
from icl_causal import parallel
from icl_causal import sampling
from icl_causal.config import build
from icl_causal.config.fields import ConfigError

_COPIES = 6  # of the parameters: moments, gradients, saved states
_FACTORS = 14  # copies of a kernel while it is drawn, as measured
_LAWS = 6  # of the predictors and of the model, for the phases


def check(batch: Sequence[Run], at_once: int = 1):
  """Refuses runs of one program that do not fit into memory.

  Raises:
    ConfigError: with the estimate.
  """
  needs, has = needed(batch, at_once), available()
  if needs > has:
    config = batch[0].config
    raise ConfigError(
      f"{len(batch)} runs need about {needs / 2**30:.3g} GiB of memory, and "
      f"there are {has / 2**30:.3g} GiB: reduce train.batch_size = "
      f"{config.train.batch_size}, eval.test_size = {config.eval.test_size}, "
      "eval.batch_size, or the sizes of the graph and the model"
    )


def needed(batch: Sequence[Run], at_once: int = 1) -> int:
  """An estimate of the largest arrays that exist at the same time.

  These are the kernels of all prompts of a batch or of the test set, or the
  rows that the prompts visit, which are drawn at once; the test sets; the laws
  of predictors, with a T x T matrix for each prompt if they are at every
  position; the attention maps of an evaluation; the states.

  Args:
    batch: runs of one program.
    at_once: number of runs that a device draws or evaluates at once.
  """
  config, graph, _, _ = batch[0]
  S, (T, K) = config.prior.S, graph.parents_TxK.shape[-2:]
  model = build.model(config, graph)
  shapes = jax.eval_shape(
    lambda key: model.init(key, jnp.zeros(T, jnp.int32)), jax.random.key(0)
  )
  parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  train, evaluation = config.train, config.eval
  kernel = rows = S * (S + 1) ** K
  samples = evaluation.posterior_samples * kernel
  if sampling.visits_rows(build.prior(config), S, T, K):
    rows = S * (T + 1)
    if build.is_dirichlet(config):  # the Bayes predictor is in closed form
      samples = 0
  drawn = max(train.batch_size, evaluation.test_size) * (_FACTORS * rows + T)
  chunk = parallel.chunk_size(evaluation.batch_size, model)
  maps = (chunk + program.NUM_SHOWN) * (model.map_entries + T * (S + T))
  together = min(len(batch), at_once * jax.local_device_count())
  targets, baselines = S, 0
  if build.predicts_every(config, graph):
    targets = T * S
    baselines = evaluation.test_size * T * (T + _LAWS * S)
  kept = evaluation.test_size * (T + targets) + _COPIES * parameters
  kept += evaluation.batch_size * (T + _LAWS * S)
  largest = max(drawn, maps, baselines)
  return 4 * (len(batch) * kept + together * (largest + samples))


def available() -> int:
  """90 % of the memory of this process: the least of all limits."""
  if limits := jax.local_devices()[0].memory_stats():
    return int(0.9 * limits["bytes_limit"] * jax.local_device_count())
  found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  if limit != resource.RLIM_INFINITY:
    found.append(limit)
  return int(0.9 * min(found + _of_cgroups()))


def _of_cgroups() -> list[int]:
  """The limits of the control groups of this process, versions 1 and 2."""
  root, own = pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/proc/self/cgroup")
  files = [root / "memory.max", root / "memory/memory.limit_in_bytes"]
  for line in own.read_text().splitlines() if own.exists() else []:
    path = line.split(":", 2)[2].lstrip("/")
    files.append(root / path / "memory.max")
    files.append(root / "memory" / path / "memory.limit_in_bytes")
  texts = [file.read_text().strip() for file in files if file.exists()]
  return [int(text) for text in texts if text.isdecimal()]
