"""The figures of a finished run, and the page that holds them."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np

from experiments import build
from experiments import show
from icl_causal import graphs
from icl_causal import plotting
from icl_causal import recovery
from icl_causal import report
from icl_causal import runs
from icl_causal.graphs import Graph

_CAPTIONS = {
  "loss": "Test loss while training, against predictors that need none.",
  "attention": "The graph beside the first layer's attention, averaged over "
  "the test prompts; the graph's edges are framed.",
  "graph": "The causal graph: edges that the first layer attends along, edges "
  "it misses, and roots that attend to one earlier position.",
  "parameters": "The parameters by blocks of the residual stream.",
}


def write(
  workdir: pathlib.Path,
  config: build.Config,
  graph: Graph,
  params: Any,
  attention: Mapping,
  edges: recovery.Recovery,
  result: Mapping,
):
  """Writes figures/ and report.html of a run that has been trained."""
  history = runs.read_metrics(workdir)
  T = graph.parents_TxK.shape[0]
  figures = {
    "loss": plotting.loss_curve(
      [row["step"] for row in history],
      [row["loss"] for row in history],
      {
        name.removesuffix("_loss").replace("_", " "): result[name]
        for name in (
          "uniform_loss",
          "unigram_loss",
          "edge_posterior_loss",
          "exact_posterior_loss",
          "entropy",
        )
        if result[name] is not None
      },
    ),
    "attention": plotting.graph_and_attention(
      graphs.adjacency(graph), attention["attention_1"]
    ),
    "graph": plotting.graph_drawing(
      T, edges.recovered_edges, edges.missed_edges, edges.false_edges
    ),
    "parameters": plotting.parameter_blocks(panels(params, config, T)),
  }
  for name, figure in figures.items():
    runs.save_figure(workdir, name, figure)
  page = report.page(
    title=f"{config.graph.name}, S = {config.prior.S}, T = {T}",
    rows=show.rows(result),
    figures=[
      (workdir / f"figures/{name}.png", _CAPTIONS[name]) for name in figures
    ],
    listings={
      "config.json": runs.canonical(config.to_dict()),
      "environment.json": (workdir / "environment.json").read_text(),
      "result.json": json.dumps(result, indent=2, sort_keys=True),
    },
  )
  runs.write_text(workdir / "report.html", page)


def panels(params, config: build.Config, T: int) -> list[plotting.Panel]:
  """The parameters of a model as matrices with named blocks."""
  return _PANELS[config.model.name](params, config, T)


def _reduced_panels(params, config: build.Config, T: int):
  positions, tokens = [("position", T)], [("token", config.prior.S)]
  # Entries over the diagonal are masked and never trained.
  return [
    plotting.Panel("A1", np.asarray(params["A1"]), positions, positions),
    plotting.Panel("A2", np.asarray(params["A2"]), tokens, tokens),
  ]


def _disentangled_panels(params, config: build.Config, T: int):
  S, panels = config.prior.S, []
  heads = config.model.heads
  for layer, num_heads in enumerate(heads, start=1):
    blocks = plotting.stream_blocks(S, T, heads[: layer - 1])
    for head in range(num_heads):
      title = f"A{layer}" + (f", head {head + 1}" if num_heads > 1 else "")
      matrix = np.asarray(params[f"A{layer}"][head])
      panels.append(plotting.Panel(title, matrix, blocks, blocks))
  blocks = plotting.stream_blocks(S, T, heads)
  output = [("next token", S)]
  return [*panels, plotting.Panel("W", np.asarray(params["W"]), blocks, output)]


def _standard_panels(params, config: build.Config, T: int):
  """What layer 1 and W make of the embeddings, before any norm."""
  blocks = plotting.stream_blocks(config.prior.S, T, ())
  M = np.concatenate([params["E"], params["P"]])
  panels = [
    plotting.Panel(f"E A1 E^T, head {h}", M @ A_DxD @ M.T, blocks, blocks)
    for h, A_DxD in enumerate(np.asarray(params["A1"]), start=1)
  ]
  output = [("next token", config.prior.S)]
  W_DxS = np.asarray(params["W"])
  return [*panels, plotting.Panel("E W", M @ W_DxS, blocks, output)]


_PANELS = {
  "disentangled": _disentangled_panels,
  "reduced": _reduced_panels,
  "standard": _standard_panels,
}
