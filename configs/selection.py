"""Models that select a latent graph, from three seeds (experiments/latent.py).

    python -m experiments.latent --config=configs/selection.py:TASK

TASK: a variant of configs/latent.py. Each task has the recipe of that file for
three layers, and for comparison two layers with their own best recipe.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import latent
from configs import variants

TASKS = latent.VARIANTS
_TWO_LAYERS = {
  "lags": {"heads": (3, 1)},
  "lags_128": {"heads": (3, 1)},
  "fresh": {"heads": (2, 1)},
  "trees": {"heads": (4, 1)},
}


def get_config(task_and_tier: str = "lags") -> ConfigDict:
  """The config of `TASK`: a config for each model, and seeds."""
  task, _ = variants.parse(task_and_tier, TASKS, ("quick",))
  deep: Any = latent.get_config(task)
  shallow: Any = latent.get_config(task)
  shallow.model.update(_TWO_LAYERS[task])
  return ConfigDict(
    {
      "task": task,
      "models": {"deep": deep, "two_layers": shallow},
      "seeds": (0, 1, 2),
      "num_prompts": 2**12,
    }
  )
