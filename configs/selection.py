"""Models that select a latent graph, from three seeds (experiments/latent.py).

    python -m experiments.latent --config=configs/selection.py:TASK

TASK: a variant of configs/latent.py, lags by default. `deep` is the model of
that file, `two_layers` one with two layers. The seeds are not those on which
the recipes were chosen. Models of lags are also tested on the longer prompts of
`longer`, before and after a short training at that length.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import latent
from configs import variants

TASKS = latent.VARIANTS
# Of lags, the best of configs/recipes.py:lags.
_TWO_LAYERS = {"lags": (4, 4), "fresh": (2, 4), "trees": (4, 1)}


def get_config(task_and_tier: str = "lags") -> ConfigDict:
  """The config of `TASK`: a config for each model, and seeds."""
  task, _ = variants.parse(task_and_tier, TASKS, ("quick",))
  models: dict[str, Any] = {
    name: latent.get_config(task) for name in ("deep", "two_layers")
  }
  models["two_layers"].model.heads = _TWO_LAYERS[task]
  return ConfigDict(
    {
      "task": task,
      "models": models,
      "seeds": (0, 1, 2),
      "num_prompts": 2**12,
      "longer": {
        "T": (64, 128) if task == "lags" else (),
        "steps": 800,
        "batch_size": 16,
        "learning_rate": 0.01,
      },
    }
  )
