"""The figures of a finished run, and the page that holds them."""

import pathlib

from matplotlib.figure import Figure
import numpy as np

from icl_causal import graphs
from icl_causal import runs
from icl_causal.analysis import recovery
from icl_causal.plotting import arcs
from icl_causal.plotting import curves
from icl_causal.plotting import matrices
from icl_causal.plotting import phases as stacks
from icl_causal.report import data
from icl_causal.report import page
from icl_causal.report import phases
from icl_causal.report import summary


def write(workdir: pathlib.Path):
  """Writes figures/ and report.html of a finished run.

  Everything is read from the directory, so that an old report can be redrawn.

  Raises:
    RunError: if the run is not finished, or its files can't be read.
  """
  run = runs.load(workdir)
  run.require("graph", "model")
  if run.result is None:
    raise runs.RunError(f"{workdir} is not finished: it has no result.json")
  if not run.history or not run.snapshots:
    raise runs.RunError(f"{workdir} has no history to draw")
  if run.result["steps"] not in run.params:
    raise runs.RunError(f"{workdir}: {'; '.join(run.warnings)}")
  for name, figure in figures(run).items():
    runs.save_figure(workdir, name, figure)
  html = page.page("run", data.title(run), data.of_run(run))
  runs.write_text(workdir / "report.html", html)


def figures(run: runs.Run) -> dict:
  """The matplotlib figures of a finished run, by name."""
  last_HxTxT = run.attention[max(run.attention)]
  edges = recovery.compare(last_HxTxT, run.graph, include_self=True)
  assert run.result is not None
  graph = graphs.shared(run.graph)
  T = graph.parents_TxK.shape[0]
  heads = list(edges.head_of_slot)
  attention = dict(zip(graphs.edges(graph), edges.edge_scores, strict=True))
  for i, j in edges.false_edges:
    attention[i, j] = float(last_HxTxT[heads, i, j].max())
  target = [int(i) for i in graph.target_K if i != graphs.NO_PARENT]
  is_query = bool((run.graph.parents_TxK[..., -1, :] == graphs.NO_PARENT).all())
  return {
    "loss": _loss_curve(run),
    "phases": stacks.phases(*phases.curves(run, list(run.snapshots))),
    "attention": matrices.graph_and_attention(
      graphs.adjacency(graph), last_HxTxT, edges.false_edges
    ),
    "graph": arcs.graph_drawing(
      T,
      edges.recovered_edges,
      edges.missed_edges,
      edges.false_edges,
      attention,
      target,
      T - 1 if is_query else None,
    ),
    "parameters": matrices.parameter_blocks(
      run.model.parameter_blocks(run.newest)
    ),
  }


def _loss_curve(run: runs.Run) -> Figure:
  assert run.result is not None
  losses, estimates = summary.losses(run)
  edges = {
    step: recovery.compare(maps, run.graph, include_self=True)
    for step, maps in run.attention.items()
  }
  return curves.loss_curve(
    losses=losses,
    estimates=estimates,
    shares={
      "edges recovered": {
        step: one.recovered / max(one.edges, 1) for step, one in edges.items()
      },
      "attention on the parent": {
        step: float(np.mean(one.edge_scores))
        for step, one in edges.items()
        if one.edges
      },
    },
    baselines=summary.baselines(run.result),
  )
