r"""The standard transformer from 16 seeds that no recipe was chosen on.

    python -m experiments.sweep --config=configs/standard_seeds.py:VARIANT

VARIANT: chain (default), pairs, random. Trains the quick tier of
configs/standard.py from `SEEDS` in batches, and prints the result of
each. A stopped sweep resumes. This trains one of the seeds alone:

    python -m experiments.train --config=configs/standard.py:VARIANT \
      --config.seed=SEED
"""

from typing import Any

from ml_collections import ConfigDict

from configs import standard

VARIANTS = ("chain", "pairs", "random")
SEEDS = tuple(range(56, 72))


def get_config(variant: str = "chain") -> ConfigDict:
  """The config of `VARIANT`."""
  if variant not in VARIANTS:
    raise ValueError(f"variant {variant!r} must be one of {VARIANTS}")
  config: Any = standard.get_config(variant)
  config.train.eval_every = 2**9
  config.sweep = {
    "grid": {"seed": SEEDS},
    "random": {},
    "samples": 1,
    "seed": 0,
  }
  return config
