"""Sweeps: grids and random searches over seeds, graphs, rates.

    python -m experiments.sweep --config=configs/many_graphs.py:VARIANT

VARIANT: graphs (default), Algorithm 1 on 16 random forests (S = 3, T = 20) from
4 seeds each; or rates, joint training on a chain (S = 3, T = 20) at 16 rates
drawn from .002 to .2, for three priors. A minute or two on two cores each.

`sweep.grid` and `sweep.random` name fields of the config; their values are
tuples: of the values to take, or ("uniform", low, high) or ("log", low, high).
Every point of the grid, its fields in the order of their names, is trained for
each of `sweep.samples` draws.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import single_parent
from configs import two_stage

VARIANTS = ("graphs", "rates")


def get_config(variant: str = "graphs") -> ConfigDict:
  """The config of `VARIANT`."""
  if variant not in VARIANTS:
    raise ValueError(f"variant {variant!r} must be one of {VARIANTS}")
  if variant == "graphs":
    config = two_stage.get_config("forest")
    config.eval.posterior_prompts = 0  # as long as all the training otherwise
    config.sweep = {
      "grid": {"graph": {"seed": tuple(range(16))}, "seed": (0, 1, 2, 3)},
      "random": {},
      "samples": 1,
      "seed": 0,
    }
    return config
  config: Any = single_parent.get_config("chain")
  config.prior.S = 3
  config.train.update(steps=512, eval_every=64, batch_size=256)
  config.eval.update(test_size=2**14, posterior_prompts=0)
  config.sweep = {
    "grid": {"prior": {"alpha": (0.1, 0.3, 1.0)}},
    "random": {"train": {"learning_rate": ("log", 0.002, 0.2)}},
    "samples": 16,
    "seed": 0,
  }
  return config
