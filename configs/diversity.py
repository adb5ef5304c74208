"""How many kernels it takes to learn the graph (experiments/diversity.py).

    python -m experiments.diversity --config=configs/diversity.py:TASK

TASK: a variant of configs/pool.py, chain by default. Each seed has a pool, test
prompts and fresh kernels of its own. The recipes were chosen on seed 100.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import pool
from configs import variants

TASKS = pool.VARIANTS


def get_config(task_and_tier: str = "chain") -> ConfigDict:
  """The config of `TASK`: a config for each model, and sizes of pools."""
  task, _ = variants.parse(task_and_tier, TASKS, ("quick",))
  models: dict[str, Any] = {
    name: pool.get_config(f"{task},{name}") for name in pool.MODELS
  }
  for config in models.values():
    del config["sweep"]
    # All sizes of pools then share one compiled program.
    config.eval.posterior_prompts = 0
  return ConfigDict(
    {
      "task": task,
      "models": models,
      "sizes": pool.NUM_KERNELS,
      "seeds": (0, 1, 2),
      "num_prompts": 2**11,
      "posterior_samples": 128,
    }
  )
