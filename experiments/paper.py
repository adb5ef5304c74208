"""The experiments behind the paper's figures, and the runs of each.

An experiment is a config, in the tiers of configs/variants.py, run from several
seeds; the random forests are many graphs as well.
"""

from collections.abc import Callable, Sequence
import pathlib

import jax

from configs import random_forests
from configs import several_parents
from configs import single_parent
from configs import standard
from experiments import batch
from experiments import build
from experiments import plan
from experiments import train as train_one
from experiments.batch import Run
from icl_causal import runs

_CONFIGS = {
  "chain": (single_parent, "chain"),
  "pairs": (single_parent, "pairs"),
  "random": (single_parent, "random"),
  "half": (several_parents, "half"),
  "bigram": (several_parents, "bigram"),
  "three": (several_parents, "three"),
  "standard chain": (standard, "chain"),
  "standard pairs": (standard, "pairs"),
  "standard random": (standard, "random"),
  "forests": (random_forests, "forests"),
}

EXPERIMENTS = tuple(_CONFIGS)

# By the numbers of the paper: 2 and 6 have one parent, 5 and 7 several, 8 has
# the standard transformer, 9 random forests.
FIGURES = {
  "2": ("chain",),
  "5": ("half",),
  "6": ("pairs", "random"),
  "7": ("bigram", "three"),
  "8": ("standard chain", "standard pairs", "standard random"),
  "9": ("forests",),
}


def planned(name: str, tier: str, num_seeds: int) -> list[Run]:
  """The runs of an experiment, from seeds 0, 1, ..; graphs come first."""
  module, variant = _CONFIGS[name]
  config: build.Config = module.get_config(f"{variant},{tier}")
  graph_seeds = [None]
  if "sweep" in config:
    graph_seeds = config.sweep.grid.graph.seed
    with config.unlocked():
      del config["sweep"]
  return [
    plan.run(config, _point(seed, graph_seed))
    for seed in range(num_seeds)
    for graph_seed in graph_seeds
  ]


def train(
  runs_of: dict[str, list[Run]],
  workdir: pathlib.Path,
  stop: Callable[[], bool],
  parallel: int = 8,
):
  """Trains what is missing under `workdir`, runs of one program together."""
  every = [run for group in runs_of.values() for run in group]
  for together in plan.batches(every, largest=256):
    names = _names_of(together, runs_of)
    done = sum(batch.is_done(batch.folder(workdir, run)) for run in together)
    if done < len(together):
      print(f"training {len(together) - done} runs: {names}", flush=True)
    if len(together) == 1 and _divides(together[0].config):
      _train_alone(together[0], workdir, stop)
    else:
      batch.train(together, workdir, parallel, stop)


def _divides(config: build.Config) -> bool:
  """Whether all devices can share the prompts of a run."""
  counts = (
    config.train.batch_size,
    config.eval.test_size,
    config.eval.posterior_prompts,
  )
  return not any(count % jax.device_count() for count in counts)


def _train_alone(run: Run, workdir: pathlib.Path, stop: Callable[[], bool]):
  """A run without others, on all devices, which leaves a report as well."""
  home = batch.folder(workdir, run)
  with runs.opened(home, run.config.to_dict(), overwrite=False) as finished:
    if not finished:
      train_one.train(run.config, run.graph, home, stop=stop)


def _point(seed: int, graph_seed: int | None) -> dict:
  point = {"seed": seed}
  return point if graph_seed is None else point | {"graph.seed": graph_seed}


def _names_of(together: Sequence[Run], runs_of: dict[str, list[Run]]) -> str:
  chosen = {run.name for run in together}
  return ", ".join(
    name
    for name, group in runs_of.items()
    if chosen & {run.name for run in group}
  )
