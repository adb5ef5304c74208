"""Training recipes, compared on one task (`experiments/recipes.py`).

    python -m experiments.recipes --config=configs/recipes.py:TASK

TASK: chain (default), half (two parents), forests (three random ones), or
standard_chain, standard_pairs and standard_random (the standard transformer),
with the settings of configs/single_parent.py, several_parents.py,
random_forests.py and standard.py. Every recipe says how the model starts and
what trains it; seeds and graphs are others than those that the recipes were
found on, and that results are reported on.
"""

from typing import Any

from ml_collections import ConfigDict

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
_TURNS = {
  **_ADAM,
  "optimizer": "in_turns",
  "learning_rate": 0.03,
  "turn_steps": 16,
  "joint_steps": 48,
  "stride": 0.5,
}
_STANDARD = {**_ADAM, "weight_decay": 2e-4}
_STANDARD_TURN = {
  **_STANDARD,
  "optimizer": "first_layer_turn",
  "joint_steps": 128,
  "turn_steps": 192,
}
_LONGER = {"steps": 2**12}


def get_config(task_and_tier: str = "chain") -> ConfigDict:
  """The config of `TASK`: a base, and recipes as a start and an optimiser."""
  task, _ = variants.parse(task_and_tier, TASKS, ("quick",))
  module, variant, steps, batch_size = {
    "chain": (single_parent, "chain", 2**12, 2**9),
    "half": (several_parents, "half", 2**11, 2**8),
    "forests": (random_forests, "", 2**11, 2**9),
    "standard_chain": (standard, "chain", 2**11, 2**9),
    "standard_pairs": (standard, "pairs", 2**11, 2**9),
    "standard_random": (standard, "random", 2**11, 2**9),
  }[task]
  base: Any = module.get_config(variant)
  graph_seeds = ()
  if task == "forests":
    graph_seeds = (200, 201, 202)
    del base["sweep"]
  of_standard = {
    name: {"orthonormal": orthonormal, "train": train}
    for name, orthonormal, train in (
      ("Adam .01", False, _STANDARD),
      ("Adam .01, orthonormal", True, _STANDARD),
      ("Adam .01, turn", False, _STANDARD_TURN),
      ("Adam .01, turn, orthonormal", True, _STANDARD_TURN),
      ("Adam .01, longer", False, _STANDARD | _LONGER),
      ("turn, orthonormal, longer", True, _STANDARD_TURN | _LONGER),
    )
  }
  recipes = {
    "standard_chain": of_standard,
    "standard_pairs": of_standard,
    "standard_random": of_standard,
    "chain": {
      "SGD 1, zero start": {"matching": 0.0, "train": _SGD},
      "Adam .01, zero start": {"matching": 0.0, "train": _ADAM},
      "Adam .01": {"matching": 0.5, "train": _ADAM},
      "Adam .1": {"matching": 0.5, "train": {**_ADAM, "learning_rate": 0.1}},
      "Adam .1, b2 = .99": {"matching": 0.5, "train": _FAST},
      "Adam .1, b2 = .99, symmetric": {
        "matching": 0.5,
        "train": {**_FAST, "optimizer": "symmetric_adamw"},
      },
      "turn, Adam .1, b2 = .99": {
        "matching": 0.5,
        "train": {**_TURNS, "learning_rate": 0.1, "b2": 0.99},
      },
    },
    "half": {
      "Adam .01, noise 1e-4": {"matching": 0.0, "noise": 1e-4, "train": _ADAM},
      "Adam .01": {"matching": 0.5, "train": _ADAM},
      "Adam .03, b2 = .99": {
        "matching": 0.5,
        "train": {**_ADAM, "learning_rate": 0.03, "b2": 0.99},
      },
      "turns, Adam .03, b2 = .99": {
        "matching": 0.5,
        "train": {**_TURNS, "b2": 0.99},
      },
      "turns, Adam .1, b2 = .99": {
        "matching": 0.5,
        "train": {**_TURNS, "learning_rate": 0.1, "b2": 0.99},
      },
    },
    "forests": {
      "SGD 1, zero start": {
        "matching": 0.0,
        "train": {**_SGD, "schedule": "constant"},
      },
      "Adam .01": {"matching": 0.5, "train": _ADAM},
      "turn, Adam .03": {"matching": 0.5, "train": _TURNS},
      "turn, Adam .03, decay .03": {
        "matching": 0.5,
        "train": {**_TURNS, "weight_decay": 0.03},
      },
      "turn, Adam .03, decay .1": {
        "matching": 0.5,
        "train": {**_TURNS, "weight_decay": 0.1},
      },
    },
  }[task]
  base.train.update(steps=steps, batch_size=batch_size, eval_every=2**7)
  return ConfigDict(
    {
      "task": task,
      "base": base,
      # No mapping, since names of fields have no dots.
      "recipes": tuple(
        (name, *_groups(base, chosen)) for name, chosen in recipes.items()
      ),
      "graph_seeds": graph_seeds,
      "seeds": tuple(range(30, 38)) if module is standard else (10, 11, 12),
    }
  )


def _groups(base: Any, chosen: dict) -> tuple[dict, dict]:
  """The groups `model` and `train` of a recipe, whole."""
  common = ("steps", "batch_size", "eval_every", "epsilon")
  start = {name: chosen[name] for name in chosen if name != "train"}
  model = base.model.to_dict() | start
  train = {name: base.train[name] for name in common} | chosen["train"]
  return model, train
