"""What the snapshots at early steps cost in the time of a training.

    python -m tests.support.overhead --repeats=9

Trains the demo without compiling, with these snapshots and without, in turn.
Prints the median of the ratios and of the seconds.
"""

import pathlib
import statistics
import tempfile
import time

from absl import app as absl
from absl import flags
import jax

from experiments.harness import app
from experiments.harness import batches
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from icl_causal import config
from icl_causal import runs
from icl_causal.config import build

_REPEATS = flags.DEFINE_integer("repeats", 9, "Number of pairs.", 2)
_DEMO = {"train.steps": 2048, "train.learning_rate": 0.05}


def measure(repeats: int, changes: dict) -> list[tuple[float, float]]:
  """Seconds of a training with and without the early snapshots, in pairs."""
  made = config.load("configs.single_parent", "chain", **_DEMO | changes)
  graph = build.graph(made)
  trainer = batches.single(grid.Run(made, graph, {}, pathlib.Path("none")))
  start, next_step = trainer.to_host(trainer.start), loop._next_step

  def seconds(choose) -> float:
    """A training copies the start, since its steps donate their argument."""
    loop._next_step = choose
    with tempfile.TemporaryDirectory() as folder:
      run = grid.Run(made, graph, {}, pathlib.Path(folder) / "run")
      runs.prepare(run.workdir, made.to_dict(), overwrite=False)
      fresh = trainer._replace(start=trainer.to_devices(start))
      job = loop.Job([run], fresh, distributed.this_process())
      started = time.perf_counter()
      loop.train(job, time.monotonic())
      return time.perf_counter() - started

  try:
    pairs = [
      (seconds(next_step), seconds(lambda step, every: step + every))
      for _ in range(repeats + 1)
    ]
  finally:
    loop._next_step = next_step
  return pairs[1:]  # the first pair compiles


def main(_):
  """The command."""
  app.use_cores(app.cores())
  pairs = measure(_REPEATS.value, {"eval.posterior_prompts": 0})
  ratios = [with_them / without for with_them, without in pairs]
  print(f"ratio {statistics.median(ratios):.4f} ({min(ratios):.3f} to", end=" ")
  print(f"{max(ratios):.3f}), {jax.device_count()} devices; seconds", end=" ")
  for times in zip(*pairs, strict=True):
    print(f"{statistics.median(times):.2f}", end=" ")
  print()


if __name__ == "__main__":
  absl.run(main)
