"""Sweeps: grids and random searches over seeds, graphs, rates.

    python -m experiments.sweep --config=configs/many_graphs.py:VARIANT

VARIANT:
- graphs (default): Algorithm 1 on 16 random forests (S = 3, T = 20), 4 seeds
  each.
- rates: joint training on a chain (S = 3, T = 20), for three priors and 16
  learning rates between .002 and .2.

Each takes a minute or two on two cores.

`sweep.grid` maps fields of the config to tuples of values. `sweep.random` maps
fields to ("uniform", low, high) or ("log", low, high). Every point of the grid
is trained for each of the `sweep.samples` random draws. The fields of the grid
are ordered by name.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import single_parent
from configs import two_stage
from icl_causal.config import fields

VARIANTS = ("graphs", "rates")


def get_config(variant: str = "graphs") -> ConfigDict:
  """The config of `VARIANT`."""
  if variant not in VARIANTS:
    raise fields.ConfigError(f"variant {variant!r} must be one of {VARIANTS}")
  if variant == "graphs":
    config = two_stage.get_config("forest")
    config.eval.posterior_prompts = 0  # would take as long as training
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
