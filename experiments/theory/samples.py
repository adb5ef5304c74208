"""Sample complexity: the edges that each method finds in N prompts.

A method finds the edge of a position if the top entry j < i of its row is the
parent. It knows that the position has a parent, except where a row of the
table says otherwise. All methods have the same prompts and graphs.

- `gradient`: one gradient of layer 1 on N prompts.
- `best possible`: the kernel of each prompt is known. Its row argmax is the
  exact posterior mode of a parent uniform on j < i, as in these forests, so no
  method finds more edges on average. `genie`: the kernel is unknown, and all
  other edges are known.
- `likelihood ascent`: from the prompts alone, roots unknown.
- `conditional`: plug-in information, several sequences for each kernel.
  `pooled`: over all prompts, with Chow-Liu and, if causal-learn is installed,
  PC.
- Algorithm 1 and joint training with Adam, on N prompts again and again.
- `predicted`: the gradient, from its margins on other prompts.
  `guaranteed` and `no method above`: closed forms, see `analysis.bounds`.

`N50` is the number of prompts at which half of all edges are found, with its
standard error over graphs, `half` that at which half of the graphs have all
edges. `largest error` is the largest standard error of a share. `over the best`
says whether a method is above the best possible by more than two standard
errors of the difference at any N, with the largest difference in standard
errors. A factor is the ratio of what two methods need. Ten minutes on two
cores.
"""

import numpy as np

from experiments.theory import sample_curves
from experiments.theory import sample_methods
from experiments.theory import sample_table
from experiments.theory.outcome import Outcome
from experiments.theory.sample_curves import Setting
from experiments.theory.sample_table import Found
from icl_causal import graphs
from icl_causal.analysis import bounds
from icl_causal.analysis import samples
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.plotting import samples as plotting

_SIZES = fields.tuple_of(fields.at_least(1))
FIELDS = {
  "settings": fields.tuple_of(
    (
      fields.at_least(2),
      fields.ALPHA,
      fields.at_least(3),
      fields.at_least(2),
    )
  ),
  "root_probability": fields.between(0.01, 0.99),
  "epsilon": fields.NOT_NEGATIVE,
  "num_prompts": _SIZES,
  "num_moments": fields.at_least(2),
  "num_draws": fields.at_least(1),
  "num_kernels": fields.at_least(2),
  "num_runs": fields.at_least(2),
  "ascent_prompts": _SIZES,
  "estimate_prompts": _SIZES,
  "sequences": fields.at_least(2),
  "pc_sequences": fields.at_least(0),
  "pc_alpha": fields.SHARE,
  "trained_prompts": _SIZES,
  "first_rate": fields.POSITIVE,
  "first_steps": fields.at_least(1),
  "learning_rate": fields.POSITIVE,
  "steps": fields.at_least(1),
  "batch_size": fields.at_least(1),
  "test_size": fields.at_least(1),
}

NORMAL = "predicted for the gradient, normal"
SADDLE = "predicted for the gradient, saddlepoint"
UNION = "predicted for the gradient, union"
GUARANTEED = "guaranteed for the best possible (Bhattacharyya)"
NO_METHOD = "no method above (Bhattacharyya)"
FANO = "no method above (Fano)"
GUESS = "guess"
ROOTED = "best possible, roots unknown"
_FIGURE = (
  sample_curves.SOFT,
  SADDLE,
  sample_curves.HARD,
  sample_curves.QUERY_ROW,
  sample_methods.ASCENT,
  sample_methods.JOINT,
)


def _increasing(config: build.Config) -> str | None:
  for name in ("num_prompts", "ascent_prompts", "estimate_prompts"):
    if list(config[name]) != sorted(set(config[name])):
      return f"{name} = {config[name]}: must be in increasing order"
  return None


def _several_kernels(config: build.Config) -> str | None:
  for N in config.estimate_prompts:
    if N % config.sequences:
      return (
        f"estimate_prompts = {config.estimate_prompts}: must be multiples of "
        f"sequences = {config.sequences}"
      )
  return None


def _enough_graphs(config: build.Config) -> str | None:
  least = min(setting[3] for setting in config.settings)
  if config.num_runs > least:
    return f"num_runs = {config.num_runs}: must be at most {least}, the graphs"
  return None


NEEDS = (_increasing, _several_kernels, _enough_graphs)


def check(config: build.Config) -> Outcome:
  """Shares of edges by setting, method and number of prompts."""
  rows, panels = [], {}
  shown = [n for n in config.num_prompts if n & (n - 1) == 0]
  for number, values in enumerate(config.settings):
    setting = Setting(*values)
    forests = sample_curves.forests(config, setting)
    edges_G = np.array([len(graphs.edges(graph)) for graph in forests])
    found, counts = _of_setting(config, setting, forests, number == 0)
    name = [setting.S, setting.alpha, setting.T]
    rows += [
      [*name, *row] for row in sample_table.rows(found, counts, edges_G, shown)
    ]
    title = f"S = {setting.S}, Dirichlet({setting.alpha:g}), T = {setting.T}"
    panels[title] = _panel(found, edges_G)
  header = ["S", "alpha", "T", *sample_table.header(shown)]
  return Outcome(header, rows, plotting.missed_edges(panels))


def _of_setting(config: build.Config, setting: Setting, forests, trains: bool):
  """Found by method, and counts by method and quantity."""
  sizes, counts = config.num_prompts, {}
  measured = sample_curves.measure(config, setting, forests)
  found = {
    name: Found(sizes, measured.hits_GxNxM[:, :, m])
    for m, name in enumerate(sample_curves.SCORES)
  }
  found[ROOTED] = Found(sizes, measured.rooted_GxN)
  counts[ROOTED, "false parents"] = sizes, measured.false_GxN
  found |= _predictions(config, setting, forests)
  found[GUESS] = _guess(forests, sizes)
  few = forests[: config.num_runs]
  hits_GxN, false_GxN = sample_methods.ascent(config, setting, few)
  ascent, sizes = sample_methods.ASCENT, config.ascent_prompts
  found[ascent] = Found(sizes, hits_GxN)
  counts[ascent, "false parents"] = sizes, false_GxN
  edges_G = np.array([len(graphs.edges(graph)) for graph in few])
  is_right_GxN = (hits_GxN == edges_G[:, None]) & (false_GxN == 0)
  counts[ascent, "graphs without an error"] = sizes, is_right_GxN * 1.0
  sizes = config.estimate_prompts
  for method, hits_GxN in sample_methods.conditional(
    config, setting, few
  ).items():
    found[method] = Found(sizes, hits_GxN, sample_methods.SAME_KERNELS)
  estimates = sample_methods.pooling(config, setting, few, trains)
  for method, hits_GxN in estimates.items():
    known = ~np.isnan(hits_GxN).any(axis=0)
    if known.any():
      kept = tuple(np.array(sizes)[known].tolist())
      found[method] = Found(kept, hits_GxN[:, known])
  if trains:
    sizes = config.trained_prompts
    of_training = sample_methods.trained(config, setting, few)
    for method, (hits_GxN, *others) in of_training.items():
      found[method] = Found(sizes, hits_GxN)
      for quantity, values in zip(
        sample_methods.QUANTITIES, others, strict=False
      ):
        counts[method, quantity] = sizes, values
  return found, counts


def _predictions(config: build.Config, setting: Setting, forests) -> dict:
  """The predictions and bounds of a setting, as `Found`."""
  sizes = config.num_prompts
  predicted = sample_curves.predict(config, setting, forests)
  edges_G = np.array([len(graphs.edges(graph)) for graph in forests])[:, None]
  parents_GxT = np.stack([g.parents_TxK[:, 0] for g in forests])
  most, least = (
    np.stack(
      [
        bound(B_TxT, graph, sizes).sum(axis=1)
        for B_TxT, graph in zip(predicted.B_GxTxT, forests, strict=True)
      ]
    )
    for bound in (bounds.most_error, bounds.least_error)
  )
  fano_GxN = _fano(predicted.information_GxT, parents_GxT >= 0, sizes)
  by_name = {
    **dict(
      zip(
        (NORMAL, SADDLE, UNION),
        (shares.sum(axis=1) for shares in predicted.shares),
        strict=True,
      )
    ),
    GUARANTEED: edges_G - most,
    NO_METHOD: edges_G - least,
    FANO: edges_G - fano_GxN,
  }
  return {
    name: Found(sizes, hits_GxN, None, False)
    for name, hits_GxN in by_name.items()
  }


def _guess(forests, sizes) -> Found:
  """A parent that is drawn from the positions j < i."""
  expected_G = [sum(1 / i for i, _ in graphs.edges(g)) for g in forests]
  hits_GxN = np.tile(np.array(expected_G)[:, None], len(sizes))
  return Found(sizes, hits_GxN, None, False)


def _fano(information_GxT, is_child_GxT, sizes):
  """The least expected number of missed edges of each graph, G x N.

  The information is averaged over the graphs in which a position has a parent:
  the bound is for a parent that is uniform on the candidates.
  """
  i = np.flatnonzero(is_child_GxT.any(axis=0))
  children = is_child_GxT[:, i]
  total = (information_GxT[:, i] * children).sum(axis=0)
  errors_NxI = bounds.fano(total / children.sum(axis=0), i, sizes)
  return children @ errors_NxI.T


def _panel(found: dict[str, Found], edges_G):
  """The curves of one setting for the figure.

  A method that runs on the first graphs only is drawn by its difference from
  the best possible on these, which varies less.
  """
  best = found[sample_curves.BEST]
  curves = {}
  for name in (sample_curves.BEST, *_FIGURE):
    if name not in found:
      continue
    of = found[name]
    edges = edges_G[: len(of.hits_GxN)]
    shares_N = samples.share(of.hits_GxN, edges)[0]
    on_grid = set(of.num_prompts) <= set(best.num_prompts)
    if on_grid and len(edges) < len(edges_G):
      columns = [best.num_prompts.index(n) for n in of.num_prompts]
      hits_GxN = best.hits_GxN[:, columns]
      shares_N += samples.share(hits_GxN, edges_G)[0]
      shares_N -= samples.share(hits_GxN[: len(edges)], edges)[0]
    curves[name] = plotting.Curve(
      of.num_prompts, shares_N.tolist(), name == SADDLE
    )
  return curves.pop(sample_curves.BEST), curves
