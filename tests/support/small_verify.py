"""`experiments.verify` on a tiny experiment, for tests.

python -m tests.support.small_verify --workdir=W --results=R
"""

import runpy
import types

from configs import paper
from configs import rows
from configs import single_parent


def _get_config(variant_and_tier: str):
  config = single_parent.get_config(variant_and_tier).unlock()
  config.graph.T, config.prior.S = 6, 2
  config.train.update(steps=480, eval_every=2, batch_size=64)
  config.eval.update(test_size=64, batch_size=64)
  config.eval.update(posterior_prompts=16, posterior_samples=16)
  return config


def main():
  """Runs the command on two rows."""
  _, variant = paper.EXPERIMENTS["chain"]
  module = types.SimpleNamespace(get_config=_get_config)
  paper.EXPERIMENTS = {"chain": paper.Experiment(module, variant)}
  figure = next(f for f in paper.FIGURES.values() if "chain" in f.experiments)
  paper.FIGURES = {"2": figure._replace(experiments=("chain",))}
  rows.ROWS = tuple(row for row in rows.ROWS if row.of == "chain")
  paper.CHECKS = {tier: {} for tier in paper.CHECKS}
  runpy.run_module("experiments.verify", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
  main()
