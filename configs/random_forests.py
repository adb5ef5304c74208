"""Twenty random forests (figure 9).

    python -m experiments.sweep --config=configs/random_forests.py:,TIER

Each position is a root with probability 1/2; otherwise its parent is uniform on
the earlier positions (S = 3, T = 20). The graphs have graph.seed 0 to 19.

TIER quick (default): a phase of layer 1 of 10 steps
(icl_causal/optimizers.py), then AdamW with a cosine schedule from .03 to 0 and
weight decay .03. 2048 steps of 512 prompts in all. Chosen on graph.seed 100 to
105.

TIER paper: the authors' settings. SGD at 1 from a zero start, 2**14 steps of
2**10 prompts.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import single_parent
from configs import variants

VARIANTS = ("forests",)


def get_config(variant_and_tier: str = "forests,quick") -> ConfigDict:
  """The config of `VARIANT[,TIER]`."""
  _, tier = variants.parse(variant_and_tier, VARIANTS)
  config: Any = single_parent.get_config(f"chain,{tier}")
  config.graph = ConfigDict(
    {"name": "random_forest", "T": 20, "seed": 0, "root_probability": 0.5}
  )
  config.prior.S = 3
  if tier == "quick":
    config.train = ConfigDict(
      {
        "steps": 2**11,
        "batch_size": 2**9,
        "eval_every": 2**7,
        "optimizer": "staged_heads",
        "phase_steps": 10,
        "joint_steps": 0,
        "max_step": 0.5,
        "learning_rate": 0.03,
        "schedule": "cosine",
        "weight_decay": 0.03,
        "b2": 0.999,
        "epsilon": 0.0,
      }
    )
  else:
    config.train.update(steps=2**14, schedule="constant")
  config.eval.update(
    test_size=2**14, posterior_prompts=2**12, posterior_samples=256
  )
  config.sweep = {
    "grid": {"graph": {"seed": tuple(range(20))}},
    "random": {},
    "samples": 1,
    "seed": 0,
  }
  return config
