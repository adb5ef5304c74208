"""The standard transformer, with embeddings, values and an MLP (figure 8).

    python -m experiments.train --config=configs/standard.py:VARIANT[,TIER]

VARIANT: chain (default), pairs, random (S = 10, T = 20), or modern: on the
chain, with norms, scores divided by sqrt(D), residual MLPs and two heads a
layer, which is ours.

TIER paper: the authors' settings: AdamW at .01 to 0 by a cosine with weight
decay 2e-4, 2**12 steps of 2**10 prompts. TIER quick (default): the same in
2**11 steps of 2**9 prompts.
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
    }
  )
  config.train = ConfigDict(
    {
      "steps": {"quick": 2**11, "paper": 2**12}[tier],
      "batch_size": {"quick": 2**9, "paper": 2**10}[tier],
      "eval_every": 2**7,
      "optimizer": "adamw",
      "learning_rate": 0.01,
      "schedule": "cosine",
      "weight_decay": 2e-4,
      "b2": 0.999,
      "epsilon": 0.0,
    }
  )
  return config
