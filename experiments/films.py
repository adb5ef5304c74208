"""Layer 1's attention while each recipe of a task trains, in one picture.

    python -m experiments.films --config=configs/recipes.py:chain

Of each recipe the first run of `experiments.recipes` is trained anew, and saved
nowhere. Leaves TASK.png under docs/recipes, or --results.
"""

from collections.abc import Sequence
import pathlib

from absl import flags
import jax
import numpy as np

from experiments import cli
from experiments import program
from experiments import recipes
from experiments.batch import Run
from icl_causal import graphs
from icl_causal import plotting

_FIRST = 16


def main():
  """The command."""
  cli.use_cores(cli.cores())
  config = cli.config()
  runs_of = recipes.planned(config)
  first = next(iter(runs_of.values()))[0]
  rows = {}
  for recipe, (run, *_) in runs_of.items():
    print(recipe, flush=True)
    rows[recipe] = film(run, times(run.config.train.steps))
  figure = plotting.films(graphs.adjacency(first.graph), rows)
  results = pathlib.Path(flags.FLAGS.results)
  results.mkdir(parents=True, exist_ok=True)
  figure.savefig(results / f"{config.task}.png", dpi=110)
  print(f"{results}/{config.task}.png")


def times(steps: int) -> list[int]:
  """16 times powers of 4, and the last step, which must be a multiple of 16."""
  ladder = [_FIRST * 4**k for k in range(20)]
  return [*(step for step in ladder if step < steps), steps]


def film(run: Run, steps: Sequence[int]) -> dict[int, np.ndarray]:
  """The attention maps of layer 1, H x T x T, after so many steps each."""
  config = run.config.copy_and_resolve_references()
  config.train.eval_every = _FIRST
  own = program.member(config, run.graph)
  functions = program.program(config)
  take_steps = jax.jit(functions.take_steps, donate_argnums=1)
  evaluate = jax.jit(functions.evaluate)
  state = jax.jit(functions.start)(own)
  test = jax.jit(functions.draw_test)(own)
  maps = {}
  for step in range(_FIRST, steps[-1] + 1, _FIRST):
    state, _ = take_steps(own, state)
    if step in steps:
      attention = evaluate(own, state, test).attention["attention_1"]
      maps[step] = np.asarray(attention)
  return maps


if __name__ == "__main__":
  cli.define_run_flags()
  flags.DEFINE_string("results", "docs/recipes", "Where the picture goes.")
  cli.run(main)
