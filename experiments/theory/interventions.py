"""Interventions: prompts in which some tokens are set, and what they save.

In every prompt each token but the query is set with probability `share`, that
is, uniform on the states and independent of its parent
(`sampling.sample_interventional`). N90 is the number of prompts that show 90 %
of the edges. It is measured against the share, on random forests and on the
chain, in which the grandparent is a strong rival of the parent. The order of
the positions is known, so prompts without set tokens identify every edge: set
tokens can only save prompts.

- `best possible`: the kernel and the set tokens are known. It sums log pi(s_i |
  s_j) over the prompts in which s_i is not set.
- `best possible, set tokens unknown`: the kernel and the share are known. It
  sums the logarithm of (1 - share) pi(s_i | s_j) + share / S.
- `gradient, rows of set tokens dropped`: the gradient of layer 1 on soft labels
  (`information.label_score`), in which row i sums over the prompts in which s_i
  is not set. The shares of the tokens of a prompt count all its tokens.
- `gradient, set tokens unknown`: the same gradient with all rows.

The `design` is `independent`, as above; `one token`, exactly one token in every
prompt, drawn uniformly; or `roots`, a control: all roots are set in all
prompts, which loses no edge. `share` is the mean share of set tokens.

`guaranteed` is the N90 of the Bhattacharyya bound on the best possible
(`bounds.most_error`), `margin` the mean over edges of the expected log
likelihood of the parent minus that of its best rival, in nats for each prompt.
Both are exact given a kernel and averaged over drawn ones, which makes
`guaranteed` slightly too large (`analysis.interventions`). For `one token`,
both and the likelihood with unknown set tokens are those of independent tokens
with the same share.

`ratio` is N90 over that of the same method without set tokens; for a margin,
the margin without set tokens over the margin. All shares of a graph have the
same kernels and the same random numbers. Standard errors are of the bootstrap
over graphs, each with its own prompts, and so hold the noise of both numbers
of a ratio; for the chain, over repetitions with independent prompts.

In rows `best share`, the share of a method is chosen on the even graphs, and
the ratio is that of the odd graphs. For a closed form the share is its own
best, and the ratio is that of the best possible there. Four minutes on two
cores.
"""

import functools
from typing import NamedTuple

import numpy as np

from experiments.theory import intervention_scores
from experiments.theory import sample_curves
from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal.analysis import bounds
from icl_causal.analysis import samples
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.plotting import interventions as plots

FIELDS = {
  "graphs": fields.tuple_of(fields.one_of(("forest", "chain"))),
  # (S, alpha, kernels of the closed forms of a graph)
  "settings": fields.tuple_of(
    (fields.at_least(2), fields.ALPHA, fields.at_least(1))
  ),
  "T": fields.at_least(4),
  "root_probability": fields.BELOW_ONE,
  "epsilon": fields.NOT_NEGATIVE,
  "shares": fields.tuple_of(fields.BELOW_ONE),
  "num_graphs": fields.at_least(2),
  "num_prompts": fields.tuple_of(fields.at_least(1)),
}


def _ascending(config: build.Config) -> str | None:
  for name in ("shares", "num_prompts"):
    if list(config[name]) != sorted(set(config[name])):
      return f"{name} = {config[name]}: must ascend"
  if config.shares[0] != 0:
    return f"shares = {config.shares}: must start with 0"
  return None


NEEDS = (_ascending,)

GUARANTEED = "guaranteed"
MARGIN = "margin"
INDEPENDENT, ONE, ROOTS = "independent", "one token", "roots"
HEADER = (
  *("graph", "S", "alpha", "design", "share", "method", "quantity"),
  *("value", "error", "ratio", "error of ratio"),
)
LEVEL = 0.9
_AT_ONCE = 4  # graphs per device


class Found(NamedTuple):
  """What is found in a setting; D designs: the shares, one token, the roots.

  Attributes:
    edges_G: number of edges.
    share_D: mean share of set tokens.
    hits_GxNxDxM: edges found by each of `intervention_scores.METHODS`.
    guaranteed_GxNxD: edges that the best possible method finds at least.
    margin_GxD: sum over the edges with a rival.
    rivalled_G: the number of these edges.
  """

  edges_G: np.ndarray
  share_D: np.ndarray
  hits_GxNxDxM: np.ndarray
  guaranteed_GxNxD: np.ndarray
  margin_GxD: np.ndarray
  rivalled_G: np.ndarray


def check(config: build.Config) -> Outcome:
  """N90 by setting, design, share and method."""
  rows, panels = [], {}
  for kind in config.graphs:
    for S, alpha, num_kernels in config.settings:
      found = found_in(config, kind, S, alpha, num_kernels)
      name = [kind, S, alpha]
      rows += [[*name, *row] for row in rows_of(config, found)]
      title = f"{kind}, S = {S}, Dirichlet({alpha:g})"
      panels[title] = _panel(config, found)
  figure = plots.needed_by_share(panels, "prompts that show 90 % of the edges")
  return Outcome(list(HEADER), rows, figure)


def found_in(
  config: build.Config, kind: str, S: int, alpha, num_kernels: int
) -> Found:
  """All methods and closed forms on the graphs of a setting."""
  graphs_G = intervention_scores.graphs_of(config, kind)
  runs = [(g, np.int32(n), np.float32(alpha)) for n, g in enumerate(graphs_G)]
  over = sample_curves.over_runs
  hits = over(
    functools.partial(intervention_scores.measured, config, S), runs, _AT_ONCE
  )
  closed = over(
    functools.partial(intervention_scores.closed_forms, config, S, num_kernels),
    runs,
    1,
  )
  edges_G = np.array([len(graphs.edges(graph)) for graph in graphs_G])
  guaranteed = np.array(
    [
      [
        len(graphs.edges(graph))
        - bounds.most_error(B_TxT, graph, config.num_prompts).sum(axis=1)
        for B_TxT in B_DxTxT
      ]
      for graph, B_DxTxT in zip(graphs_G, closed.B_DxTxT, strict=True)
    ]
  )
  margins = [
    intervention_scores.margins_of(graph, margin_DxTxT)
    for graph, margin_DxTxT in zip(graphs_G, closed.margin_DxTxT, strict=True)
  ]
  mean_roots = np.mean([g.parents_TxK[:-1, 0] < 0 for g in graphs_G])
  return Found(
    edges_G,
    np.array([*config.shares, 1 / (config.T - 1), mean_roots]),
    hits,
    guaranteed.swapaxes(1, 2),
    np.array([margin_ExD.sum(axis=0) for margin_ExD in margins]),
    np.array([len(margin_ExD) for margin_ExD in margins]),
  )


def rows_of(config: build.Config, found: Found) -> list[list]:
  """The rows of a setting, without the setting."""
  rows = []
  designs = [INDEPENDENT] * len(config.shares) + [ONE, ROOTS]
  by_method = hits_by_method(found)
  for d, (design, share) in enumerate(
    zip(designs, found.share_D.tolist(), strict=True)
  ):
    for method, hits_GxNxD in by_method.items():
      cells = _needed(config, found.edges_G, hits_GxNxD, d)
      rows.append([design, share, method, "N90", *cells])
    cells = _margin(found, d)
    rows.append([design, share, MARGIN, "nats", *cells])
  for method, hits_GxNxD in by_method.items():
    rows.append(_best(config, found, method, hits_GxNxD))
  mean_D = found.margin_GxD.sum(axis=0)[: len(config.shares)]
  rows.append(_best_closed(config, found, MARGIN, int(mean_D.argmax())))
  return rows


def hits_by_method(found: Found) -> dict[str, np.ndarray]:
  """The edges found, G x N x D, by each method and by the guaranteed one."""
  measured_by = {
    method: found.hits_GxNxDxM[..., m]
    for m, method in enumerate(intervention_scores.METHODS)
  }
  return measured_by | {GUARANTEED: found.guaranteed_GxNxD}


def _needed(config: build.Config, edges_G, hits_GxNxD, d: int) -> list:
  """N90 and its ratio to share 0, with errors; None if it is not reached."""
  sizes = config.num_prompts
  hits_GxN, none_GxN = hits_GxNxD[:, :, d], hits_GxNxD[:, :, 0]
  value = samples.needed(hits_GxN, edges_G, sizes, LEVEL)
  ratio = samples.factor(hits_GxN, none_GxN, edges_G, sizes, LEVEL)
  return [None if np.isnan(cell) else cell for cell in (*value, *ratio)]


def _margin(found: Found, d: int) -> list:
  """The mean margin over edges, and that of share 0 over it, with errors."""
  margin_GxD, rivalled_G = found.margin_GxD, found.rivalled_G
  mean_D, error_D = samples.share(margin_GxD, rivalled_G)
  ratio = mean_D[0] / mean_D[d]
  # The error of a ratio of two means over the same graphs, to first order.
  change_G = margin_GxD[:, 0] - ratio * margin_GxD[:, d]
  _, error = samples.share(change_G[:, None], rivalled_G)
  return [mean_D[d], error_D[d], ratio, float(error[0]) / mean_D[d]]


def _best(config: build.Config, found: Found, method: str, hits_GxNxD) -> list:
  """The best share of a method, chosen and judged on different graphs."""
  if method == GUARANTEED:
    d = least(config, found.edges_G, hits_GxNxD)
    return _best_closed(config, found, method, d)
  d = least(config, found.edges_G[::2], hits_GxNxD[::2])
  cells = [None, None]
  if d is not None:
    cells = _needed(config, found.edges_G[1::2], hits_GxNxD[1::2], d)[2:]
  return _best_row(config, method, d, cells)


def _best_closed(config, found: Found, method: str, d: int | None) -> list:
  cells = [None, None]
  if d is not None:
    hits_GxNxD = found.hits_GxNxDxM[
      ..., intervention_scores.METHODS.index(intervention_scores.BEST)
    ]
    cells = _needed(config, found.edges_G, hits_GxNxD, d)[2:]
  return _best_row(config, method, d, cells)


def _best_row(config, method: str, d: int | None, cells: list) -> list:
  share = None if d is None else config.shares[d]
  return [INDEPENDENT, share, method, "best share", None, None, *cells]


def least(config: build.Config, edges_G, hits_GxNxD) -> int | None:
  """The share of the least N90; None if no share reaches the level."""
  needed_D = [
    samples.crossing(
      samples.share(hits_GxNxD[:, :, d], edges_G)[0], config.num_prompts, LEVEL
    )
    for d in range(len(config.shares))
  ]
  return None if np.isnan(needed_D).all() else int(np.nanargmin(needed_D))


def _panel(config: build.Config, found: Found) -> dict[str, plots.Curve]:
  curves = {}
  num = len(config.shares)
  for method, hits_GxNxD in hits_by_method(found).items():
    needed_D = [
      samples.needed(
        hits_GxNxD[:, :, d], found.edges_G, config.num_prompts, LEVEL
      )
      for d in range(num)
    ]
    curves[method] = plots.Curve(
      config.shares,
      [needed.prompts for needed in needed_D],
      [needed.error for needed in needed_D],
      method == GUARANTEED,
    )
  return curves
