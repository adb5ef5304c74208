"""Kernels from a pool of M: is the graph learned if kernels can be memorised?

    python -m experiments.sweep --config=configs/pool.py:VARIANT[,MODEL]

VARIANT: chain (default), or forest, that of configs/phases.py. S = 3, T = 20.
The M kernels are Dirichlet(.1) draws from prior.seed. The sweep has M = 1, 4,
.., 4096 and three seeds. `exact_posterior_loss` is that of `bayes.retrieval`,
the Bayes predictor of a pool.

MODEL: disentangled (default), the attention-only model of the paper, 768 steps
of Adam with a cosine schedule from .01 to 0; or standard, a standard
transformer with residual MLPs of width 32, 1152 steps from .003. Batches have
256 prompts.

experiments/diversity.py measures both models on fresh kernels as well.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import phases
from configs import single_parent
from configs import standard
from configs import variants

VARIANTS = ("chain", "forest")
MODELS = ("disentangled", "standard")
NUM_KERNELS = tuple(4**k for k in range(7))


def get_config(variant_and_model: str = "chain") -> ConfigDict:
  """The config of `VARIANT[,MODEL]`."""
  variant, model = variants.parse(variant_and_model, VARIANTS, MODELS)
  config: Any = single_parent.get_config("chain")
  if variant == "forest":
    forest: Any = phases.get_config("forest")
    config.graph = forest.base.graph
  config.prior = ConfigDict(
    {
      "name": "pool",
      "S": 3,
      "alpha": 0.1,
      "root_law": "stationary",
      "num_kernels": 64,
      "seed": 0,
    }
  )
  config.train.update(
    steps=768,
    batch_size=2**8,
    eval_every=32,
    learning_rate=0.01,
    weight_decay=0.0,
    b2=0.999,
  )
  if model == "standard":
    modern: Any = standard.get_config("modern")
    config.model = modern.model
    config.model.update(heads=(1, 1), width=32, norm=False, scaled=False)
    config.train.update(steps=1152, eval_every=48, learning_rate=0.003)
  config.eval.update(test_size=2**12, batch_size=2**11, posterior_prompts=2**11)
  config.eval.posterior_samples = 2  # not drawn: there is a closed form
  config.sweep = {
    "grid": {"prior": {"num_kernels": NUM_KERNELS}, "seed": (0, 1, 2)},
    "random": {},
    "samples": 1,
    "seed": 0,
  }
  return config
