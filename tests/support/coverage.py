"""Coverage of the confidence intervals of `verify`, from trained runs.

    python -m tests.support.coverage --repetitions=200

A repetition trains a small model on several random forests from several seeds,
and measures a row of `verify` whose unit are the graphs. The truth is the mean
over all repetitions. Prints the share of repetitions whose 95 % interval has
the truth, with its standard error, beside that of intervals over runs, which
take runs of one graph for independent.
"""

from typing import NamedTuple

from absl import app
from absl import flags
import jax
import numpy as np

from configs import random_forests
from configs.targets import Row
from experiments.harness import program
from experiments.harness import traced
from experiments.harness import verdicts
from icl_causal import config as configs
from icl_causal import metrics
from icl_causal.config import build

_GRAPHS = flags.DEFINE_integer("graphs", 5, "Graphs of a repetition.", 2)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds of a graph.", 2)
_REPETITIONS = flags.DEFINE_integer("repetitions", 200, "Repetitions.", 2)


class Coverage(NamedTuple):
  """The share of intervals that contain the truth.

  Attributes:
    over_graphs: means of each graph first, as `verify` does.
    over_runs: runs of one graph taken for independent.
  """

  over_graphs: float
  over_runs: float


def measure(repetitions: int, num_graphs: int, num_seeds: int) -> Coverage:
  """Trains all runs in one program and counts the intervals."""
  config = configs.load(
    random_forests,
    **{
      "graph.T": 6,
      "train.steps": 32,
      "train.eval_every": 32,
      "train.batch_size": 16,
      "eval.test_size": 64,
      "eval.batch_size": 64,
      "eval.posterior_prompts": 0,
    },
  )
  with config.unlocked():
    del config["sweep"]
  run = program.program(config)

  def excess(index):
    """Of a run; the graph is that of every num_seeds runs."""
    graph_seed = index // num_seeds
    filled = traced.fill(config, {"graph.seed": graph_seed})
    inputs = traced.run_inputs(config, build.graph(filled))
    inputs.values["seed"] = inputs.values["eval.seed"] = index
    state, _ = run.take_steps(inputs, run.start(inputs))
    test = run.draw_test(inputs)
    loss_N = run.evaluate(inputs, state, test).loss_N
    return (loss_N - metrics.edge_losses(test.baselines)).mean()

  num = repetitions * num_graphs * num_seeds
  indices = np.arange(num, dtype=np.uint32)
  excess_R = np.asarray(
    jax.jit(lambda i: jax.lax.map(excess, i, batch_size=50))(indices)
  )
  records = [
    {"excess_loss": float(value), "graph.seed": int(i) // num_seeds}
    for i, value in zip(indices, excess_R, strict=True)
  ]
  of_one = num_graphs * num_seeds
  shares = [
    np.mean(
      [
        _covers(unit, records[start : start + of_one], excess_R.mean())
        for start in range(0, num, of_one)
      ]
    )
    for unit in ("graphs", "seeds")
  ]
  return Coverage(*map(float, shares))


def _covers(unit: str, records: list[dict], truth: float) -> bool:
  row = Row("x", "runs", "mean", "excess_loss", unit, "-", None, None)
  found = verdicts.measure(row, verdicts.Results({"runs": records}, {}))
  return abs(found.value - truth) <= found.margin


def main(_):
  """Prints both shares."""
  repetitions = _REPETITIONS.value
  found = measure(repetitions, _GRAPHS.value, _SEEDS.value)
  for name, share in found._asdict().items():
    error = (share * (1 - share) / repetitions) ** 0.5
    print(f"{name.replace('_', ' '):<12} {share:.3f} +- {error:.3f}")


if __name__ == "__main__":
  app.run(main)
