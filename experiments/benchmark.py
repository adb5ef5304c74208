"""Times the library against the textbook, interleaved in one process.

    python -m experiments.benchmark

Prints the median milliseconds of each and the median of their ratios.
"""

from collections.abc import Callable
import time

from absl import flags
import jax
import numpy as np

from experiments import cli
from experiments import textbook
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling

S, T, ALPHA = 10, 20, 0.1


def main():
  """The command."""
  batch_size, repeats = flags.FLAGS.batch_size, flags.FLAGS.repeats
  print(
    f"S = {S}, T = {T}, chain, batch {batch_size}, {repeats} timings, "
    f"{jax.devices()[0].device_kind}\n"
    f"{'':<12}{'textbook ms':>14}{'ours ms':>10}{'times faster':>14}"
  )
  for name, (slow, fast) in {
    "sampling": sampling_pair(batch_size),
    "gradient": gradient_pair(batch_size),
  }.items():
    slow_ms, fast_ms, ratio = compare(slow, fast, repeats)
    print(f"{name:<12}{slow_ms:>14.2f}{fast_ms:>10.2f}{ratio:>14.1f}")


def sampling_pair(batch_size: int) -> tuple[Callable, Callable]:
  """Drawing a batch: the textbook's way and ours."""
  graph, prior = graphs.chain(T), priors.dirichlet(ALPHA)

  def slow(key):
    keys_B = jax.random.split(key, batch_size)
    return jax.vmap(
      lambda key: textbook.sample_prompt(key, graph.parents_TxK[:, 0], ALPHA, S)
    )(keys_B)

  def fast(key):
    return sampling.sample_batch(key, graph, prior, S, batch_size)[:2]

  key = jax.random.key(0)
  return _timed(jax.jit(slow), key), _timed(jax.jit(fast), key)


def gradient_pair(batch_size: int) -> tuple[Callable, Callable]:
  """One gradient of the mean loss of a batch: the textbook's and ours."""
  model = models.Disentangled(S, T, (1, 1), noise=0.3)
  batch = sampling.sample_batch(
    jax.random.key(0), graphs.chain(T), priors.dirichlet(ALPHA), S, batch_size
  )
  params = model.init(jax.random.key(1), batch.x_T[0])["params"]

  def gradient(forward):
    def mean_loss(params, x_BxT, y_BxS):
      f_BxS = jax.vmap(lambda x_T: forward(params, x_T))(x_BxT)
      return jax.vmap(metrics.loss)(f_BxS, y_BxS).mean()

    return _timed(jax.jit(jax.grad(mean_loss)), params, batch.x_T, batch.y_S)

  return (
    gradient(lambda params, x_T: textbook.disentangled(params, x_T, S)[0]),
    gradient(lambda params, x_T: model.apply({"params": params}, x_T)[0]),
  )


def compare(slow: Callable, fast: Callable, repeats: int):
  """Median milliseconds of both, and the median of the ratios slow / fast."""
  seconds = np.array([[slow(), fast()] for _ in range(repeats)])
  slow_ms, fast_ms = 1000 * np.median(seconds, axis=0)
  return slow_ms, fast_ms, np.median(seconds[:, 0] / seconds[:, 1])


def _timed(function: Callable, *arguments) -> Callable[[], float]:
  """Seconds of one call, right after another: as in a loop, where memory and
  caches still hold what the call before left, not what the rival did.
  """

  def once() -> float:
    jax.block_until_ready(function(*arguments))
    started = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - started

  once()
  return once


if __name__ == "__main__":
  flags.DEFINE_integer("batch_size", 1024, "Prompts.", 1)
  flags.DEFINE_integer("repeats", 15, "Timings of each.", 3)
  cli.run(main)
