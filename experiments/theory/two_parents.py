"""Two parents: how many prompts show both, slot by slot or as pairs.

The graphs are random: from position 2 on, the parents are a pair that is
uniform on the earlier positions, and the slots are ordered from left to right.
Every prompt has a new kernel, which all methods but the last know. They have
the same prompts and graphs.

- `best possible`: the marginals of the posterior of the pair, slot by slot
  (`guided.pair_likelihood`). No method finds more edges in their slot on
  average. `likelihood of pairs`: the most likely pair.
- `KG-MI`: the row argmax of kernel-guided information (`guided.guided`), KL or
  chi-squared, a slot at a time. rho, for the other parent, is the shares of the
  tokens in the prompt, or the root law. `KG-MI heads`: a head for each slot,
  trained by gradient ascent on the same information (`guided.guided_attention`)
  after Cheng et al. (2025), arXiv 2510.25542.
- `staged heads`: layer 1 of the disentangled transformer, trained on the
  targets of N prompts again and again without the kernels, after the phases of
  `optimizers.staged_heads` and at the end.

Quantities: `edges`, the share of parents that are found in their slot; `any
slot`, the share found in some slot; `graphs`, the share of graphs with all
edges in their slots; the attention of the heads at the parents; the excess loss
of the transformer over the edge posterior on fresh prompts, in nats. An error
is a standard error over graphs. `over the best` says whether a method is above
the best possible by more than two standard errors of the difference at any N,
with the largest difference in standard errors. Two minutes on two cores.
"""

import numpy as np

from experiments.theory import pair_methods
from experiments.theory.outcome import Outcome
from experiments.theory.pair_methods import Hits
from icl_causal.analysis import samples
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.plotting import samples as plotting

_SIZES = fields.tuple_of(fields.at_least(1))
FIELDS = {
  "S": fields.at_least(2),
  "T": fields.at_least(4),
  "alpha": fields.ALPHA,
  "epsilon": fields.NOT_NEGATIVE,
  "num_graphs": fields.at_least(2),
  "num_prompts": _SIZES,
  "attention_graphs": fields.at_least(2),
  "attention_prompts": _SIZES,
  "attention_rate": fields.POSITIVE,
  "attention_steps": fields.at_least(1),
  "staged_graphs": fields.at_least(2),
  "staged_prompts": _SIZES,
  "staged_steps": fields.at_least(1),
  "staged_start": fields.POSITIVE,
  "phase_steps": fields.at_least(1),
  "joint_steps": fields.at_least(1),
  "max_step": fields.POSITIVE,
  "learning_rate": fields.POSITIVE,
  "b2": fields.SHARE,
  "batch_size": fields.at_least(1),
  "test_size": fields.at_least(1),
}

LEVELS = (0.5, 0.9, 0.99)
GUESS = "guess"


def _increasing(config: build.Config) -> str | None:
  for name in ("num_prompts", "attention_prompts", "staged_prompts"):
    if list(config[name]) != sorted(set(config[name])):
      return f"{name} = {config[name]}: must be in increasing order"
  return None


def _enough_graphs(config: build.Config) -> str | None:
  for name in ("attention_graphs", "staged_graphs"):
    if config[name] > config.num_graphs:
      return f"{name} = {config[name]}: must be at most {config.num_graphs}"
  return None


def _enough_steps(config: build.Config) -> str | None:
  last = 3 * config.phase_steps + 2 * config.joint_steps
  if config.staged_steps <= last:
    return (
      f"staged_steps = {config.staged_steps}: must be more than the {last} "
      "steps up to the end of the last phase"
    )
  return None


NEEDS = (_increasing, _enough_graphs, _enough_steps)


def check(config: build.Config) -> Outcome:
  """Shares of edges by method and number of prompts."""
  graphs_G = pair_methods.drawn_graphs(config)
  sizes = config.num_prompts
  measured = pair_methods.measure(config, graphs_G)
  found: dict[str, tuple[tuple[int, ...], Hits]] = {
    name: (sizes, measured[name]) for name in pair_methods.SCORES
  }
  means = {}
  trained = pair_methods.attention(config, graphs_G[: config.attention_graphs])
  for kind in pair_methods.KINDS:
    hits, at_parents = trained[kind]
    name, sizes = pair_methods.heads(kind), config.attention_prompts
    found[name] = sizes, hits
    means[name, pair_methods.ATTENTION] = sizes, at_parents
  trained = pair_methods.staged(config, graphs_G[: config.staged_graphs])
  for name in (pair_methods.PHASES, pair_methods.STAGED):
    hits, excess = trained[name]
    found[name] = config.staged_prompts, hits
    means[name, pair_methods.EXCESS] = config.staged_prompts, excess
  sizes = config.num_prompts
  found[GUESS] = sizes, pair_methods.guess(graphs_G, len(sizes))
  shown = sorted({n for of, _ in found.values() for n in of})
  num_edges = pair_methods.K * (config.T - pair_methods.K)
  return Outcome(
    header(shown),
    rows(found, means, num_edges, shown),
    plotting.missed_edges(_panels(found, num_edges), columns=1),
  )


def header(shown: list[int]) -> list[str]:
  """The names of the columns of `rows`."""
  names = ["method", "quantity", "graphs"]
  for n in shown:
    names += [f"N = {n}", f"error at {n}"]
  for level in LEVELS:
    names += [f"N{100 * level:.0f}", f"error of N{100 * level:.0f}"]
  return [*names, "over the best"]


def rows(found: dict, means: dict, num_edges: int, shown: list[int]) -> list:
  """The shares of each method, then other means.

  Args:
    found: by method, (N, Hits).
    means: by method and quantity, (N, values G x N).
    num_edges: of each graph.
    shown: the numbers N with columns.
  """
  table = []
  for method, (sizes, hits) in found.items():
    is_all_GxN = np.asarray(hits.right) > num_edges - 1e-3
    quantities = {
      "edges": (hits.right, num_edges),
      "any slot": (hits.anywhere, num_edges),
      "graphs": (is_all_GxN, 1),
    }
    if method == GUESS:
      del quantities["graphs"]
    for quantity, (hits_GxN, total) in quantities.items():
      edges_G = np.full(len(hits_GxN), total)
      over = "-"
      if quantity == "edges" and method != pair_methods.BEST:
        over = _over_the_best(sizes, hits, found, num_edges)
      table.append(
        [
          *(method, quantity, len(edges_G)),
          *_cells(sizes, *samples.share(hits_GxN, edges_G), shown),
          *_needed(hits_GxN, edges_G, sizes),
          over,
        ]
      )
  for (method, quantity), (sizes, values_GxN) in means.items():
    share = samples.share(values_GxN, np.ones(len(values_GxN)))
    cells = _cells(sizes, *share, shown)
    none = ["-"] * (2 * len(LEVELS) + 1)
    table.append([method, quantity, len(values_GxN), *cells, *none])
  return table


def _cells(sizes, mean_N, error_N, shown: list[int]) -> list:
  by_size = {
    n: [float(mean), float(error)]
    for n, mean, error in zip(sizes, mean_N, error_N, strict=True)
  }
  return [cell for n in shown for cell in by_size.get(n, ["-", "-"])]


def _needed(hits_GxN, edges_G, sizes) -> list:
  cells = []
  for level in LEVELS:
    needed = samples.needed(hits_GxN, edges_G, sizes, level)
    if needed.prompts <= sizes[0]:
      cells += [f"<= {sizes[0]}", "-"]
    else:
      cells += ["-" if np.isnan(value) else value for value in needed]
  return cells


def _over_the_best(sizes, hits: Hits, found: dict, num_edges: int) -> str:
  """Whether a method is above the best possible beyond two standard errors."""
  best_sizes, best = found[pair_methods.BEST]
  common = [n for n in sizes if n in best_sizes]
  if not common:
    return "-"
  num = len(hits.right)
  own, others = (
    np.asarray(of)[:num, [of_sizes.index(n) for n in common]]
    for of_sizes, of in ((sizes, hits.right), (best_sizes, best.right))
  )
  z, n = samples.largest_z(own, others, np.full(num, num_edges))
  return f"at N = {common[n]}, {z:.1f}" if z > 2 else f"no, {z:.1f}"


def _panels(found: dict, num_edges: int) -> dict:
  """The curves of each rho; staged heads, which have none, are in the first."""

  def curve(name: str) -> plotting.Curve:
    sizes, hits = found[name]
    share_N = np.asarray(hits.right).mean(axis=0) / num_edges
    return plotting.Curve(sizes, share_N.tolist())

  panels = {}
  for title, suffix in (
    ("rho: shares of the tokens", ""),
    ("rho: root law", ", root law"),
  ):
    curves = {}
    for kind in ("KL", "chi-squared"):
      for name in (pair_methods.score, pair_methods.heads):
        curves[name(kind)] = curve(name(kind + suffix))
    if not panels:
      for name in (pair_methods.PHASES, pair_methods.STAGED):
        curves[name] = curve(name)
    panels[title] = curve(pair_methods.BEST), curves
  return panels
