"""Rows of `verify` for results of later papers, on chains of order k.

Rajaraman et al. (2024) report that two layers of one head learn chains of any
order with norms and MLPs. Varre et al. (2025) prove that predictors of a
smaller order are near-stationary points, in the limit of long prompts.
docs/orders.md has the definitions.
"""

from configs.targets import SHOWN
from configs.targets import Entry
from configs.targets import Row
from configs.targets import Target

_GAP = Target("ours", high=0.05)


def _gap(words: str, k: int, model: str, heads: str, quick: bool) -> Row:
  return Row(
    f"order {k}, {words}: gap to the {k}-gram predictor",
    "kgrams",
    "entry",
    Entry("kgrams", ("trained", k, model, heads), "gap", "error", "seed"),
    "seeds",
    "-",
    _GAP if quick else None,
    _GAP,
  )


def _gradient(
  part: str, task: str, words: str, paper: str, target: Target
) -> Row:
  key = (task, 1.0, 2, 1)
  return Row(
    f"sub-k-grams, order 1 for k = 2: {words}",
    "stationary",
    "entry",
    Entry("stationary", key, part, f"error of {part}"),
    "prompts" if task == "power" else "kernels",
    paper,
    target,
    target,
  )


ROWS = (
  _gap("distances, 2 heads", 2, "distances", "(2, 1)", True),
  _gap("distances, 3 heads", 3, "distances", "(3, 1)", False),
  _gap("norms and MLPs, 1 head", 2, "MLP", "(1, 1)", True),
  _gap("norms and MLPs, 1 head", 3, "MLP", "(1, 1)", False),
  _gradient(
    *("rest", "power", "power of T in the gradient, but for one block"),
    *("below 0", Target("theorem", high=0.0)),
  ),
  _gradient(
    *("skip", "limit", "limit of the gradient in this block, long prompts"),
    *("-", SHOWN),
  ),
  Row(
    "sub-k-grams, order 1 for k = 2: gradient of trained models, over the "
    "largest in training",
    "kgrams",
    "entry",
    Entry(
      "kgrams",
      ("stationary", 2, "distances", "(2, 1)", 1),
      "norm / largest",
      "error of largest",
      "seed",
    ),
    "seeds",
    "-",
    SHOWN,
    SHOWN,
  ),
)
