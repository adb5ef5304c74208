"""The numbers and figures of the paper, for `verify` and `figures`.

`EXPERIMENTS` has the configs that are run. `FIGURES` has the experiments and
the drawing of each figure. `ROWS` has one row per number: its source, the
paper's value, and its target in each tier. A target with a known gap has the
reason why it is out of reach; docs/recipes.md has the evidence.
"""

import math
import types
from typing import NamedTuple

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


class Target(NamedTuple):
  """The range in which a number passes in a tier.

  Attributes:
    low: the smallest value that passes, or -inf.
    high: the largest value that passes, or inf.
    gap: the range (low, high) whose verdict is `known gap`, or None.
    reason: why the target is out of reach; set with `gap`.
  """

  low: float = -math.inf
  high: float = math.inf
  gap: tuple[float, float] | None = None
  reason: str = ""


class Row(NamedTuple):
  """A number of the paper, and how ours is computed.

  Attributes:
    what: a description, which names the row.
    source: an experiment, or a check of configs/theory.py.
    statistic: `mean` and `largest` are over runs, `share` is a ratio of sums,
      `entry` is an entry of a check's table.
    field: a field of the runs' results, or a column of the check's table; for
      `share`, (numerator, denominator).
    paper: the paper's value, as text.
    quick: the target of the tier quick; None omits the row.
    authors: the target of the tier paper; None omits the row.
    key: for `entry`, the first cells of the row of the check's table.
    error: for `entry`, the column of the standard error, or None.
  """

  what: str
  source: str
  statistic: str
  field: str | tuple[str, str]
  paper: str
  quick: Target | None
  authors: Target | None
  key: tuple[str | int, ...] = ()
  error: str | None = None


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

_SHOWN = Target()
_ALL = Target(low=1.0)

_LAST_EDGE = (
  "the loss hardly depends on this edge: other copies match in the same prompts"
)
_LAYER_2 = (
  "layer 2, fitted with layer 1 set to the graph, has an excess of .015"
)
_EARLY_ROOTS = "some early roots attend to one position, on the same graphs"
_SOFTMAX = "attention yields shares of tokens; the posterior depends on counts"


def _edges(
  number: int,
  name: str,
  paper: str = "all",
  quick: Target = _ALL,
  authors: Target = _ALL,
) -> Row:
  return Row(
    f"figure {number}, {name}: share of edges",
    name,
    "share",
    ("edges_recovered", "edges"),
    paper,
    quick,
    authors,
  )


def _excess(number: int, name: str, authors: Target = _SHOWN) -> Row:
  return Row(
    f"figure {number}, {name}: excess over the edge posterior",
    name,
    "mean",
    "excess_loss",
    "-",
    Target(high=0.03),
    authors,
  )


def _slope(
  what: str, graph: str, quantity: str, paper: str, high: float
) -> Row:
  return Row(
    what,
    "theorems",
    "entry",
    "slope",
    paper,
    Target(high=high),
    Target(high=high),
    (graph, quantity),
    "std. error",
  )


def _second_layer(name: str, low: float, high: float) -> Row:
  """Excess of layer 2; an independent fit gave .0246, .0143 and .0178."""
  return Row(
    f"layer 2 with layer 1 the graph, {name}: excess",
    "second_layer",
    "entry",
    "excess",
    "-",
    Target(low, high),
    Target(low, high),
    (name, "yes"),
    "std. error",
  )


def _posterior(S: int, quick: Target | None) -> Row:
  return Row(
    f"exact posterior, S = {S}: largest deviation in standard errors",
    "posterior",
    "entry",
    "largest z",
    "-",
    quick,
    Target(high=3.0),
    (S,),
  )


ROWS = (
  _edges(2, "chain"),
  _excess(2, "chain"),
  _edges(6, "pairs"),
  _excess(6, "pairs"),
  _edges(6, "random"),
  _excess(6, "random"),
  _edges(
    5,
    "half",
    "59 of 60",
    Target(low=1.0, gap=(59 / 60, 1.0), reason=_LAST_EDGE),
    Target(low=1.0, gap=(59 / 60, 1.0), reason=_LAST_EDGE),
  ),
  Row(
    "figure 5, half: loss",
    "half",
    "mean",
    "loss",
    ".888",
    Target(high=0.884, gap=(0.884, 0.904), reason=_LAYER_2),
    Target(0.878, 0.898),
  ),
  _excess(5, "half"),
  _edges(
    7,
    "bigram",
    "-",
    Target(low=1.0, gap=(58 / 60, 1.0), reason=_LAST_EDGE),
    _SHOWN,
  ),
  _excess(7, "bigram"),
  _edges(7, "three", "-", authors=_SHOWN),
  _excess(7, "three"),
  _edges(9, "forests", "176 of 182", authors=_SHOWN),
  Row(
    "figure 9: attention on the parent",
    "forests",
    "mean",
    "parent_attention_mean",
    ".837",
    Target(low=0.95),
    Target(0.80, 0.88),
  ),
  Row(
    "figure 9: most false parents of a run",
    "forests",
    "largest",
    "false_parents",
    "-",
    Target(high=1.0, gap=(1.0, 2.0), reason=_EARLY_ROOTS),
    None,
  ),
  Row(
    "figure 9: largest excess over the edge posterior",
    "forests",
    "largest",
    "excess_loss",
    "-",
    Target(high=0.0),
    None,
  ),
  Row(
    "figure 9: excess over the exact posterior",
    "forests",
    "mean",
    "excess_over_exact",
    "-",
    Target(high=0.03, gap=(0.03, 0.033), reason=_SOFTMAX),
    _SHOWN,
  ),
  Row(
    "figure 8, standard chain: loss",
    "standard chain",
    "mean",
    "loss",
    "1.763",
    Target(high=1.763),
    Target(high=1.763),
  ),
  *(
    row
    for name in ("standard chain", "standard pairs", "standard random")
    for row in (
      _edges(8, name, "-"),
      _excess(8, name, authors=Target(high=0.03)),
    )
  ),
  Row(
    "key lemma: share of rows topped by the parent",
    "information",
    "share",
    ("argmax", "edges"),
    "1",
    _ALL,
    _ALL,
  ),
  *(
    _slope(
      f"theorem 4.4, {graph}: power of T in 1 - attention",
      graph,
      "1 - least attention",
      "-1 or less",
      -0.9,
    )
    for graph in ("chain", "pairs", "forest")
  ),
  *(
    _slope(
      f"theorem 4.4, {graph}: power of T in L - L*",
      graph,
      "L - L*",
      "below 0",
      -0.3,
    )
    for graph in ("chain", "pairs", "forest")
  ),
  _slope(
    "theorem 4.5, forest: power of T off the prior",
    "forest",
    "sup error, permutations",
    "below 0",
    -0.2,
  ),
  _second_layer("chain", 0.022, 0.027),
  _second_layer("half", 0.01, 0.02),
  _second_layer("bigram", 0.01, 0.025),
  _posterior(2, Target(high=3.0)),
  _posterior(3, None),
  _posterior(10, None),
)

# The rows of the tier quick that README.md shows.
HEADLINES = (
  "figure 2, chain: share of edges",
  "figure 5, half: loss",
  "figure 6, random: share of edges",
  "figure 7, bigram: share of edges",
  "figure 8, standard chain: loss",
  "figure 9: attention on the parent",
  "key lemma: share of rows topped by the parent",
  "theorem 4.4, chain: power of T in 1 - attention",
  "theorem 4.5, forest: power of T off the prior",
)

# The tier quick runs these checks of the theory at smaller sizes.
QUICK_CHECKS = {
  "information": {"num_forests": 400},
  "theorems": {"T": (16, 32, 64, 128), "num_runs": 1},
  "posterior": {"cases": ((2, 32, 256),)},
  "second_layer": {"num_prompts": 2**14, "steps": 256},
}
