"""Algorithm 1: the two stages of the theory, on the reduced model.

    python -m experiments.train --config=configs/two_stage.py:VARIANT
    python -m experiments.forests --config=configs/two_stage.py:VARIANT

VARIANT: forest (default; S = 3, T = 20) and large (S = 10, T = 64) are random
forests with root probability 1/2. chain has S = 10, T = 20. The only tier is
`quick`. On two cores one graph takes less than 20 s, a thousand graphs of
`forest` a minute. Expected: every edge, attention .99 on the parent.

Stage 1 is gradient descent on A1, with row i of the gradient multiplied by i.
It ends when the median row, of those with more than half of their attention on
one position, has .992 on it. Stage 2 is gradient descent on A2. We did not find
the paper's start beta_0, rates and times. All values are ours, chosen on seed
100.
"""

from ml_collections import ConfigDict

from configs import variants

VARIANTS = ("forest", "large", "chain")
TIERS = ("quick",)


def get_config(variant_and_tier: str = "forest,quick") -> ConfigDict:
  """The config of `VARIANT[,TIER]`."""
  variant, _ = variants.parse(variant_and_tier, VARIANTS, TIERS)
  config = ConfigDict()
  config.seed = 0
  forest = {"name": "random_forest", "seed": 0, "root_probability": 0.5}
  config.graph = {
    "forest": {**forest, "T": 20},
    "large": {**forest, "T": 64},
    "chain": {"name": "chain", "T": 20},
  }[variant]
  config.prior = {
    "name": "dirichlet",
    "S": 3 if variant == "forest" else 10,
    "alpha": 0.1,
    "root_law": "stationary",
  }
  config.model = {"name": "reduced", "beta0": 0.1}
  config.train = {
    "steps": 48,
    "batch_size": 512,
    "eval_every": 8,
    "optimizer": "algorithm_1",
    "learning_rate": {"forest": 1e3, "large": 2e4, "chain": 2e3}[variant],
    "second_learning_rate": 20.0,
    "first_steps": 40,
    "stop": 0.992,
    "rescale_rows": True,
    "epsilon": 0.1,
  }
  config.eval = {
    "test_size": 2**12,
    "batch_size": 2**10,
    "seed": 0,
    "posterior_prompts": 2**6,
    "posterior_samples": 128 if variant == "forest" else 256,
  }
  return config
