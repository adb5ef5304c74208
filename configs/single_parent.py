"""One parent for each token: chain, pairs, random, manual (figures 2 and 6).

    python -m experiments.train --config=configs/single_parent.py:VARIANT[,TIER]

VARIANT: chain (default), pairs and random have S = 10, T = 20. manual has
S = 3, T = 6; --config.graph.parents sets its graph. The graph of random is
drawn from graph.seed.

TIER quick (default): Adam with a cosine schedule from .1 to 0 and b2 = .99.
Blocks of A2 and W start at half the identity (`beta0`). chain and manual take
16384 steps of 512 prompts, one to two minutes on two cores. pairs and random
take a quarter of these steps, with weight decay .01; without it, some roots
attend to a false parent. docs/recipes.md lists the recipes tried and their
seeds.

TIER paper: the authors' settings. SGD with a cosine schedule from 1 to 0 and a
zero start, 2**17 steps of 2**10 prompts. Takes hours on two cores.
"""

from ml_collections import ConfigDict

from configs import variants

VARIANTS = ("chain", "pairs", "random", "manual")


def get_config(variant_and_tier: str = "chain,quick") -> ConfigDict:
  """The config of `VARIANT[,TIER]`."""
  variant, tier = variants.parse(variant_and_tier, VARIANTS)
  has_roots = variant in ("pairs", "random")

  config = ConfigDict()
  config.seed = 0
  config.graph = {
    "chain": {"name": "chain", "T": 20},
    "pairs": {"name": "pairs", "T": 20},
    "random": {"name": "random_tree", "T": 20, "seed": 0},
    "manual": {
      "name": "manual",
      "parents": (-1, 0, 0, 1, 2, -1),
      "target": (),  # the last position, a query
    },
  }[variant]
  config.prior = {
    "name": "dirichlet",
    "S": 3 if variant == "manual" else 10,
    "alpha": 0.1,
    "root_law": "stationary",
  }
  config.model = {
    "name": "disentangled",
    "heads": (1, 1),
    "noise": 0.0,
    "beta0": {"quick": 0.5, "paper": 0.0}[tier],
  }
  config.train = {
    "quick": {
      "steps": 2**12 if has_roots else 2**14,
      "batch_size": 2**9,
      "eval_every": 2**8,
      "optimizer": "adamw",
      "learning_rate": 0.1,
      "schedule": "cosine",
      "weight_decay": 0.01 if has_roots else 0.0,
      "b2": 0.99,
      "epsilon": 0.0,
    },
    "paper": {
      "steps": 2**17,
      "batch_size": 2**10,
      "eval_every": 2**10,
      "optimizer": "sgd",
      "learning_rate": 1.0,
      "schedule": "cosine",
      "weight_decay": 0.0,
      "epsilon": 0.0,
    },
  }[tier]
  config.eval = {
    "test_size": 2**16,
    "batch_size": 2**10,
    "seed": 0,
    "posterior_prompts": 2**12,
    "posterior_samples": 128,
  }
  if has_roots and tier == "quick":  # keeps the bias of the loss below .002
    config.eval.update(posterior_prompts=2**11, posterior_samples=512)
  return config
