"""Training recipes, compared on one task (`experiments/recipes.py`).

    python -m experiments.recipes --config=configs/recipes.py:TASK

TASK: chain (default), half (two parents), forests (three random forests),
standard_chain, standard_pairs and standard_random (the standard transformer),
or lags and trees (a latent graph). The other settings are those of
configs/single_parent.py, several_parents.py, random_forests.py, standard.py and
latent.py. A recipe sets how the model is initialized and which optimizer trains
it; those of a latent graph also set the heads. Seeds and graphs differ from
those on which the recipes were chosen, and from those of the reported results.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import latent
from configs import random_forests
from configs import several_parents
from configs import single_parent
from configs import standard
from configs import variants

TASKS = (
  "chain",
  "half",
  "forests",
  "standard_chain",
  "standard_pairs",
  "standard_random",
  "lags",
  "trees",
)

_ADAM = {
  "optimizer": "adamw",
  "learning_rate": 0.01,
  "schedule": "cosine",
  "weight_decay": 0.0,
  "b2": 0.999,
}
_SGD = {
  "optimizer": "sgd",
  "learning_rate": 1.0,
  "schedule": "cosine",
  "weight_decay": 0.0,
}
_FAST = {**_ADAM, "learning_rate": 0.1, "b2": 0.99}
_STAGED = {
  **_ADAM,
  "optimizer": "staged_heads",
  "learning_rate": 0.03,
  "phase_steps": 16,
  "joint_steps": 48,
  "max_step": 0.5,
}
_STANDARD = {**_ADAM, "weight_decay": 2e-4}
_STANDARD_PHASE = {
  **_STANDARD,
  "optimizer": "first_layer_phase",
  "joint_steps": 128,
  "phase_steps": 192,
}
_ZERO_START = {"beta0": 0.0, "sinks": (0.0, 0.0)}
_LONGER = {"steps": 2**12}


_BASES = {
  "chain": (single_parent, "chain", 2**12, 2**9),
  "half": (several_parents, "half", 2**11, 2**8),
  "forests": (random_forests, "", 2**11, 2**9),
  "standard_chain": (standard, "chain", 2**11, 2**9),
  "standard_pairs": (standard, "pairs", 2**11, 2**9),
  "standard_random": (standard, "random", 2**11, 2**9),
  "lags": (latent, "lags", 2**11, 2**6),
  "trees": (latent, "trees", 2**11, 2**6),
}
_OF_STANDARD = {
  name: {**_ZERO_START, "orthonormal": orthonormal, "train": train}
  for name, orthonormal, train in (
    ("Adam .01", False, _STANDARD),
    ("Adam .01, orthonormal", True, _STANDARD),
    ("Adam .01, phase", False, _STANDARD_PHASE),
    ("Adam .01, phase, orthonormal", True, _STANDARD_PHASE),
    ("Adam .01, longer", False, _STANDARD | _LONGER),
    ("phase, orthonormal, longer", True, _STANDARD_PHASE | _LONGER),
  )
}


def _clipped(learning_rate: float, **changes) -> dict[str, Any]:
  """The training of configs/latent.py at another rate."""
  clipped = {"optimizer": "clipped_adamw", "max_norm": 1.0, "b2": 0.99}
  return {**_ADAM, **clipped, "learning_rate": learning_rate, **changes}


_LAGS, _TREES = {"train": _clipped(0.03)}, {"train": _clipped(0.02)}
_OF_LAGS = {
  "Adam .03, mixture, noise .2": _LAGS,
  "Adam .01": {"train": _clipped(0.01)},
  "Adam .1": {"train": _clipped(0.1)},
  "noise .02": {**_LAGS, "noise": 0.02},
  "softmax": {**_LAGS, "read_out": "softmax"},
  "softmax, noise .02": {**_LAGS, "read_out": "softmax", "noise": 0.02},
  "heads (1, 3, 1)": {**_LAGS, "heads": (1, 3, 1)},
  "absolute positions, (1, 3, 1), softmax, noise .02": {
    **_LAGS,
    "model": {"name": "autoregressive", "heads": (1, 3, 1), "noise": 0.02},
  },
  "two layers, (4, 1)": {**_LAGS, "heads": (4, 1)},
  "two layers, (4, 1), Adam .01": {
    "heads": (4, 1),
    "train": _clipped(0.01),
  },
  "two layers, (4, 1), softmax": {
    **_LAGS,
    "heads": (4, 1),
    "read_out": "softmax",
  },
  "two layers, (4, 4)": {**_LAGS, "heads": (4, 4)},
}
_OF_TREES = {
  "Adam .02, mixture, noise .2": _TREES,
  "Adam .005": {"train": _clipped(0.005)},
  "Adam .05": {"train": _clipped(0.05)},
  "attention to itself": {**_TREES, "strict": False},
  "noise .02": {**_TREES, "noise": 0.02},
  "softmax": {**_TREES, "read_out": "softmax"},
  "two layers, (4, 1)": {**_TREES, "heads": (4, 1)},
}
_RECIPES = {
  "lags": _OF_LAGS,
  "trees": _OF_TREES,
  "standard_chain": _OF_STANDARD,
  "standard_pairs": _OF_STANDARD,
  "standard_random": _OF_STANDARD,
  "chain": {
    "SGD 1, zero start": {"beta0": 0.0, "train": _SGD},
    "Adam .01, zero start": {"beta0": 0.0, "train": _ADAM},
    "Adam .01": {"beta0": 0.5, "train": _ADAM},
    "Adam .1": {"beta0": 0.5, "train": {**_ADAM, "learning_rate": 0.1}},
    "Adam .1, b2 = .99": {"beta0": 0.5, "train": _FAST},
    "Adam .1, b2 = .99, symmetric": {
      "beta0": 0.5,
      "train": {**_FAST, "optimizer": "symmetric_adamw"},
    },
    "staged heads, Adam .1, b2 = .99": {
      "beta0": 0.5,
      "train": {**_STAGED, "learning_rate": 0.1, "b2": 0.99},
    },
  },
  "half": {
    "Adam .01, noise 1e-4": {"beta0": 0.0, "noise": 1e-4, "train": _ADAM},
    "Adam .01": {"beta0": 0.5, "train": _ADAM},
    "Adam .03, b2 = .99": {
      "beta0": 0.5,
      "train": {**_ADAM, "learning_rate": 0.03, "b2": 0.99},
    },
    "staged heads, Adam .03, b2 = .99": {
      "beta0": 0.5,
      "train": {**_STAGED, "b2": 0.99},
    },
    "staged heads, Adam .1, b2 = .99": {
      "beta0": 0.5,
      "train": {**_STAGED, "learning_rate": 0.1, "b2": 0.99},
    },
  },
  "forests": {
    "SGD 1, zero start": {
      "beta0": 0.0,
      "train": {**_SGD, "schedule": "constant"},
    },
    "Adam .01": {"beta0": 0.5, "train": _ADAM},
    "staged heads, Adam .03": {"beta0": 0.5, "train": _STAGED},
    "staged heads, Adam .03, decay .03": {
      "beta0": 0.5,
      "train": {**_STAGED, "weight_decay": 0.03},
    },
    "staged heads, Adam .03, decay .1": {
      "beta0": 0.5,
      "train": {**_STAGED, "weight_decay": 0.1},
    },
  },
}


def get_config(task_and_tier: str = "chain") -> ConfigDict:
  """The config of `TASK`: a base config and the recipes."""
  task, _ = variants.parse(task_and_tier, TASKS, ("quick",))
  module, variant, steps, batch_size = _BASES[task]
  base: Any = module.get_config(variant)
  graph_seeds = ()
  if task == "forests":
    graph_seeds = (200, 201, 202)
    del base["sweep"]
  base.train.update(steps=steps, batch_size=batch_size, eval_every=2**7)
  if module is latent:
    base.train.eval_every = 2**9
  else:
    prompts, samples = (2**10, 256) if task == "forests" else (2**12, 128)
    base.eval.update(posterior_prompts=prompts, posterior_samples=samples)
  return ConfigDict(
    {
      "task": task,
      "base": base,
      # A tuple: names of recipes have dots, which names of fields can't have.
      "recipes": tuple(
        (name, *_groups(base, chosen))
        for name, chosen in _RECIPES[task].items()
      ),
      "graph_seeds": graph_seeds,
      "seeds": tuple(range(30, 38)) if module is standard else (10, 11, 12),
    }
  )


def _groups(base: Any, chosen: dict) -> tuple[dict, dict]:
  """The complete groups `model` and `train` of a recipe."""
  common = ("steps", "batch_size", "eval_every", "epsilon")
  start = {name: chosen[name] for name in chosen if name != "train"}
  model = start.pop("model", base.model.to_dict()) | start
  train = {name: base.train[name] for name in common} | chosen["train"]
  return model, train
