"""The table of theory:samples."""

from typing import NamedTuple

import numpy as np

from experiments.theory import sample_curves
from icl_causal.analysis import samples

LEVELS = (0.5, 0.9, 0.99)
# In order: all of it; shares of tokens in place of the stationary law; a moment
# in place of a likelihood; one row of the kernel in place of all; a hard label.
FACTORS = (
  (sample_curves.SOFT, sample_curves.BEST),
  (sample_curves.SOFT, sample_curves.QUERY_MOMENT),
  (sample_curves.QUERY_MOMENT, sample_curves.QUERY_ROW),
  (sample_curves.QUERY_ROW, sample_curves.BEST),
  (sample_curves.HARD, sample_curves.SOFT),
)


class Found(NamedTuple):
  """What a method finds on some graphs.

  Attributes:
    num_prompts: the numbers N.
    hits_GxN: edges found; for a prediction, their expected number.
    rival: the method that it can't be above, or None.
    decides: whether graphs with all edges are counted.
  """

  num_prompts: tuple[int, ...]
  hits_GxN: np.ndarray
  rival: str | None = sample_curves.BEST
  decides: bool = True


def header(shown: list[int]) -> list[str]:
  """The names of the columns of `rows`."""
  names = ["method", "quantity", "graphs", *(f"N = {n}" for n in shown)]
  for level in LEVELS:
    names += [f"N{100 * level:.0f}", f"error of N{100 * level:.0f}"]
  return [*names, "half", "largest error", "over the best"]


def rows(
  found: dict[str, Found],
  counts: dict[tuple[str, str], tuple[tuple[int, ...], np.ndarray]],
  edges_G,
  shown: list[int],
) -> list[list]:
  """Rows without the setting: shares, then counts and losses, then factors.

  Args:
    found: by method.
    counts: (N, values G x N) by method and quantity, of which the mean over
      graphs is shown.
    edges_G: the number of edges of each graph.
    shown: the numbers N with a column.
  """
  return [
    *(_edges_row(method, found, edges_G, shown) for method in found),
    *(_mean_row(*name, *of, shown) for name, of in counts.items()),
    *(_factor_row(*pair, found, edges_G, len(shown)) for pair in FACTORS),
  ]


def _edges_row(method: str, found: dict[str, Found], edges_G, shown) -> list:
  of = found[method]
  edges_G = edges_G[: len(of.hits_GxN)]
  share_N, error_N = samples.share(of.hits_GxN, edges_G)
  cells = _cells(of.num_prompts, share_N, shown)
  for level in LEVELS:
    needed = samples.needed(of.hits_GxN, edges_G, of.num_prompts, level)
    cells += _needed(needed, of.num_prompts[0])
  if of.decides:
    has_all_GxN = of.hits_GxN > edges_G[:, None] - 1e-6
    ones_G = np.ones(len(edges_G))
    half = samples.needed(has_all_GxN, ones_G, of.num_prompts, 0.5)
    cells += _needed(half, of.num_prompts[0])[:1]
  else:
    cells.append("-")
  largest = float(error_N.max())
  over = _over_the_best(of, found, edges_G)
  return [method, "edges", len(edges_G), *cells, largest, over]


def _mean_row(method: str, quantity: str, sizes, values_GxN, shown) -> list:
  cells = _cells(sizes, values_GxN.mean(axis=0), shown)
  cells += ["-"] * (2 * len(LEVELS) + 1)
  error = values_GxN.std(axis=0, ddof=1).max() / len(values_GxN) ** 0.5
  return [method, quantity, len(values_GxN), *cells, float(error), "-"]


def _factor_row(first: str, second: str, found, edges_G, num_shown) -> list:
  of, other = found[first], found[second]
  cells = ["-"] * num_shown
  for level in LEVELS:
    ratio = samples.factor(
      of.hits_GxN, other.hits_GxN, edges_G, of.num_prompts, level
    )
    cells += _needed(ratio)
  what = f"{first} / {second}"
  return [what, "factor", len(edges_G), *cells, "-", "-", "-"]


def _cells(sizes, values_N, shown: list[int]) -> list:
  by_size = dict(zip(sizes, values_N, strict=True))
  return [float(by_size[n]) if n in by_size else "-" for n in shown]


def _needed(needed: samples.Needed, least=0) -> list:
  if needed.prompts <= least:
    return [f"<= {least}", "-"]
  return ["-" if np.isnan(value) else value for value in needed]


def _over_the_best(of: Found, found: dict[str, Found], edges_G) -> str:
  """Whether a method is above its rival beyond two standard errors."""
  if of.rival is None or found[of.rival].hits_GxN is of.hits_GxN:
    return "-"
  rival = found[of.rival]
  common = [n for n in of.num_prompts if n in rival.num_prompts]
  if not common:
    return "-"
  num = len(of.hits_GxN)
  hits, best = (
    each.hits_GxN[:num, [each.num_prompts.index(n) for n in common]]
    for each in (of, rival)
  )
  z, n = samples.largest_z(hits, best, edges_G[:num])
  return f"at N = {common[n]}, {z:.1f}" if z > 2 else f"no, {z:.1f}"
