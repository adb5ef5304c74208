"""Several parents for each token (figures 5 and 7).

    python -m experiments.train --config=configs/several_parents.py:VARIANT,TIER

VARIANT:
- half (default): parents (i-1)//2 and i-1; S = 5, T = 32.
- bigram: the two positions before; S = 5, T = 32.
- three: ours. The three positions before; the last three positions are uniform
  roots and the parents of the target; S = 2, T = 20.

TIER quick (default): phases that train single heads of layer 1, with joint
training between them (`staged_heads` in icl_causal/optimizers.py), then AdamW
with a cosine schedule from .03 to 0 and b2 = .99. half has four times as many
steps as bigram, chosen on seeds 20 and 21. docs/recipes.md lists the recipes
tried. It explains which edges of `half` and `bigram` are missed and why
the last positions of `three` are roots.

TIER paper: the authors' settings. AdamW with a cosine schedule from .01 to 0,
weight decay 1e-4 and initial noise 1e-4, 2**16 steps of 2**10 prompts.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import single_parent
from configs import variants

VARIANTS = ("half", "bigram", "three")

_QUICK = {
  "steps": 2**13,
  "batch_size": 2**8,
  "eval_every": 2**8,
  "optimizer": "staged_heads",
  "phase_steps": 16,
  "joint_steps": 48,
  "max_step": 0.5,
  "learning_rate": 0.03,
  "schedule": "cosine",
  "weight_decay": 0.0,
  "b2": 0.99,
  "epsilon": 0.0,
}
_QUICK_OF = {
  "half": {"steps": 2**15, "eval_every": 2**9},
  "bigram": {},
  "three": {
    "steps": 2**11,
    "batch_size": 2**9,
    "eval_every": 2**7,
    "phase_steps": 64,
    "joint_steps": 128,
    "max_step": 0.25,
  },
}


def get_config(variant_and_tier: str = "half,quick") -> ConfigDict:
  """The config of `VARIANT[,TIER]`."""
  variant, tier = variants.parse(variant_and_tier, VARIANTS)
  config: Any = single_parent.get_config(f"chain,{tier}")
  config.graph = ConfigDict(
    {
      "half": {"name": "half_and_previous", "T": 32},
      "bigram": {"name": "kgram", "T": 32, "k": 2},
      "three": {
        "name": "manual",
        "parents": (
          *[()] * 3,
          *[(i - 3, i - 2, i - 1) for i in range(3, 17)],
          *[()] * 3,
        ),
        "target": (17, 18, 19),
      },
    }[variant]
  )
  config.prior.S = 2 if variant == "three" else 5
  config.prior.root_law = "uniform" if variant == "three" else "dirichlet"
  config.model.heads = (3 if variant == "three" else 2, 1)
  if tier == "quick":
    config.train = ConfigDict(_QUICK | _QUICK_OF[variant])
    config.model.beta0 = 1.0 if variant == "three" else 0.5
  else:
    config.model.noise = 1e-4
    config.train = ConfigDict(
      {
        "steps": 2**16,
        "batch_size": 2**10,
        "eval_every": 2**10,
        "optimizer": "adamw",
        "learning_rate": 0.01,
        "schedule": "cosine",
        "weight_decay": 1e-4,
        "b2": 0.999,
        "epsilon": 0.0,
      }
    )
  return config
