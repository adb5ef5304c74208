"""The standard transformer, with embeddings, values and an MLP (figure 8).

    python -m experiments.train --config=configs/standard.py:VARIANT[,TIER]

VARIANT: chain (default), pairs and random have S = 10, T = 20. modern is ours:
the chain, with norms, scores divided by sqrt(D), residual MLPs and two heads
per layer.

TIER paper: the authors' settings. AdamW with a cosine schedule from .01 to 0
and weight decay 2e-4, 2**12 steps of 2**10 prompts. Biases are multiplied by
sqrt(width), as in the authors' code.

TIER quick (default): as paper, with 2**9 prompts and biases without a factor.
Layer 2 starts by matching the query with copied tokens, and the query is the
attention sink of both layers (`beta0` and `sinks` of `models.Standard`). The
learning rate is .008, chosen on two seeds that nothing is reported on.
modern has neither this start nor this rate. docs/recipes.md has the results.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import single_parent
from configs import variants

VARIANTS = ("chain", "pairs", "random", "modern")


def get_config(variant_and_tier: str = "chain,quick") -> ConfigDict:
  """The config of `VARIANT[,TIER]`."""
  variant, tier = variants.parse(variant_and_tier, VARIANTS)
  modern = variant == "modern"
  config: Any = single_parent.get_config("chain" if modern else variant)
  config.model = ConfigDict(
    {
      "name": "standard",
      "heads": (2, 2) if modern else (1, 1),
      "width": config.prior.S + config.graph.T,
      "mlp": "residual" if modern else "of_attention",
      "norm": modern,
      "scaled": modern,
      "orthonormal": False,
      "beta0": 0.0,
      "sinks": (0.0, 0.0),
      "scaled_biases": tier == "paper",
    }
  )
  config.train = ConfigDict(
    {
      "steps": 2**12,
      "batch_size": 2**10,
      "eval_every": 2**7,
      "optimizer": "adamw",
      "learning_rate": 0.01,
      "schedule": "cosine",
      "weight_decay": 2e-4,
      "b2": 0.999,
      "epsilon": 0.0,
    }
  )
  if tier == "quick":
    config.train.update(batch_size=2**9, eval_every=2**8)
    if not modern:
      config.model.update(orthonormal=True, beta0=0.5, sinks=(8.0, 2.0))
      config.train.learning_rate = 0.008
  return config
