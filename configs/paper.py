"""The experiments and figures of the paper, for `verify` and `figures`.

`EXPERIMENTS` has the configs that are run. `FIGURES` has the experiments and
the drawing of each figure. configs/rows.py has the numbers.
"""

import types
from typing import NamedTuple

from configs import beyond
from configs import random_forests
from configs import several_parents
from configs import single_parent
from configs import standard


class Experiment(NamedTuple):
  """A config that is run from several seeds.

  Attributes:
    module: a module of configs/.
    variant: a variant of the module.
  """

  module: types.ModuleType
  variant: str


class Figure(NamedTuple):
  """A figure of the paper.

  Attributes:
    experiments: the experiments whose runs it shows.
    drawing: `weights`, or `positions` for attention by position.
  """

  experiments: tuple[str, ...]
  drawing: str


EXPERIMENTS = {
  "chain": Experiment(single_parent, "chain"),
  "pairs": Experiment(single_parent, "pairs"),
  "random": Experiment(single_parent, "random"),
  "half": Experiment(several_parents, "half"),
  "bigram": Experiment(several_parents, "bigram"),
  "three": Experiment(several_parents, "three"),
  "standard chain": Experiment(standard, "chain"),
  "standard pairs": Experiment(standard, "pairs"),
  "standard random": Experiment(standard, "random"),
  "forests": Experiment(random_forests, "forests"),
}

# 2 and 6 have one parent, 5 and 7 several; 8 is the standard transformer.
FIGURES = {
  "2": Figure(("chain",), "weights"),
  "5": Figure(("half",), "weights"),
  "6": Figure(("pairs", "random"), "weights"),
  "7": Figure(("bigram", "three"), "weights"),
  "8": Figure(
    ("standard chain", "standard pairs", "standard random"), "weights"
  ),
  "9": Figure(("forests",), "positions"),
}

# The cases of `kgrams` that have a row: (k, model, heads of layer 1).
_WITH_ROW = ((2, "distances", 2), (2, "MLP", 1))
_WITH_ROW += ((3, "distances", 3), (3, "MLP", 1))
_KGRAMS = tuple(
  case for case in beyond.DEFAULTS["kgrams"]["cases"] if case[:3] in _WITH_ROW
)

# The checks of the theory that each tier runs, with their changes of
# configs/theory.py.
CHECKS = {
  "quick": {
    "information": {"num_forests": 400},
    "key_lemma": {"num_graphs": 16},
    "theorems": {"T": (16, 32, 64, 128), "num_runs": 4, "test_size": 1024},
    "posterior": {"cases": ((2, 20, 16, 128),)},
    "second_layer": {"num_prompts": 2**14, "steps": 256},
    "missed_edges": {
      "cases": (("half", ((16, 1, 7),)), ("bigram", ((31, 0, 30),))),
      "num_prompts": 2**14,
      "steps": 256,
    },
    "kgrams": {"cases": _KGRAMS[:2], "num_seeds": 5, "transfers": ((2, 1),)},
    "stationary": {"cases": ((1.0, 2, 1),), "lengths": (32, 64, 128)},
  },
  "paper": {
    "information": {},
    "key_lemma": {},
    "theorems": {},
    "posterior": {},
    "second_layer": {},
    "missed_edges": {},
    "kgrams": {"cases": _KGRAMS, "num_seeds": 8},
    "stationary": {},
  },
}
