"""The graph is latent: drawn from a list in every prompt.

    python -m experiments.train --config=configs/latent.py:VARIANT

VARIANT: lags (default), the task of selective induction heads (D'Angelo et al.,
2025): every token but the first three depends on the token one, two or three
before it, the same lag in the whole prompt, through one kernel. fresh: lags 1
and 2, with S = 3 and a kernel that is new in every prompt. trees: ten examples
of five tokens share one of 24 parent trees (after "How Transformers Learn
Causal Structures In-Context", ICLR 2026).

The model predicts at every position. `excess_over_exact` of a result is the gap
to the Bayes predictor, `bayes.model_average`, averaged over positions. The
models have relative positions (`models.Relative`) and a mixture as read-out;
that of trees knows the place in an example, and its layers before the last
attend to earlier positions only. docs/latent.md has the results from three
seeds. Two to five minutes on two cores.
"""

from ml_collections import ConfigDict

from configs import variants

VARIANTS = ("lags", "fresh", "trees")
# priors.dirichlet(0.5)(jax.random.key(0), 5, 1), rounded.
KERNEL = (
  (0.0826, 0.3450, 0.0764, 0.0902, 0.4058),
  (0.2175, 0.4371, 0.0499, 0.2954, 0.0001),
  (0.0525, 0.0060, 0.2643, 0.3727, 0.3045),
  (0.0237, 0.2132, 0.0903, 0.2453, 0.4275),
  (0.6571, 0.2501, 0.0067, 0.0091, 0.0770),
)


def get_config(variant_and_tier: str = "lags") -> ConfigDict:
  """The config of `VARIANT`."""
  variant, _ = variants.parse(variant_and_tier, VARIANTS, ("quick",))
  config = ConfigDict()
  config.seed = 0
  config.graph = {
    "lags": {"name": "lags", "T": 32, "lags": (1, 2, 3)},
    "fresh": {"name": "lags", "T": 32, "lags": (1, 2)},
    "trees": {"name": "tree_examples", "num_examples": 10, "length": 5},
  }[variant]
  config.prior = {
    "name": "fixed",
    "S": 5,
    "alpha": 0.5,  # of the edge posterior among the baselines
    "root_law": "stationary",
    "kernel": KERNEL,
  }
  if variant == "fresh":
    config.prior = {
      "name": "dirichlet",
      "S": 3,
      "alpha": 0.1,
      "root_law": "uniform",
    }
  heads, reach, period = {
    "lags": ((4, 1, 1), 5, 0),
    "fresh": ((2, 2, 1, 4), 4, 0),
    "trees": ((1, 1, 1), 6, 5),
  }[variant]
  config.model = {
    "name": "relative",
    "heads": heads,
    "reach": reach,
    "period": period,
    "noise": 0.2,
    "strict": variant == "trees",
    "read_out": "mixture",
  }
  config.train = {
    "steps": 4800 if variant == "fresh" else 9600,
    "batch_size": 64,
    "eval_every": 400,
    "optimizer": "clipped_adamw",
    "learning_rate": {"lags": 0.03, "fresh": 0.01, "trees": 0.02}[variant],
    "schedule": "cosine",
    "weight_decay": 0.03 if variant == "fresh" else 0.0,
    "b2": 0.99,
    "max_norm": 1.0,
    "epsilon": 0.0,
  }
  config.eval = {
    "test_size": 2**13,
    "batch_size": 2**9,
    "seed": 0,
    "posterior_prompts": 2**13,
    "posterior_samples": 16,  # not drawn: the posterior has a closed form
  }
  return config
