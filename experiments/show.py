"""What a finished run shows: a table, figures, and the page that holds them."""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any

import numpy as np

from experiments import build
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


def rows(result: Mapping) -> list[tuple[str, str]]:
  """The table of a result, (what, value)."""
  attention = "none"
  if result["edges"]:
    attention = (
      f"{result['parent_attention_mean']:.3f} on average, "
      f"{result['parent_attention_min']:.3f} at least"
    )
  return [
    ("edges recovered", f"{result['edges_recovered']} of {result['edges']}"),
    ("false parents", str(result["false_parents"])),
    ("attention on the parent", attention),
    ("loss (nats)", _with_error(result, "loss")),
    ("  edge posterior", f"{result['edge_posterior_loss']:.4f}"),
    ("  excess over it", _with_error(result, "excess_loss")),
    ("  entropy", f"{result['entropy']:.4f}"),
    ("  unigram", f"{result['unigram_loss']:.4f}"),
    ("  uniform", f"{result['uniform_loss']:.4f}"),
    ("steps", str(result["steps"])),
    ("seconds", f"{result['wall_seconds']:.1f}"),
  ]


def table(result: Mapping) -> str:
  """The same for a terminal."""
  return "\n".join(f"{what:<26}{value}" for what, value in rows(result))


def columns(header: Sequence[str], rows: Sequence[Sequence]) -> str:
  """A table for a terminal, numbers with four significant digits."""
  cells = [
    [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]
    for row in [header, *rows]
  ]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return "\n".join(
    "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
    for row in cells
  )


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
        "uniform": result["uniform_loss"],
        "unigram": result["unigram_loss"],
        "edge posterior": result["edge_posterior_loss"],
        "entropy": result["entropy"],
      },
    ),
    "attention": plotting.graph_and_attention(
      graphs.adjacency(graph), attention["attention_1"]
    ),
    "graph": plotting.graph_drawing(
      T, edges.recovered_edges, edges.missed_edges, edges.false_edges
    ),
    "parameters": plotting.parameter_blocks(
      _PANELS[config.model.name](params, config, T)
    ),
  }
  for name, figure in figures.items():
    runs.save_figure(workdir, name, figure)
  page = report.page(
    title=f"{config.graph.name}, S = {config.prior.S}, T = {T}",
    rows=rows(result),
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


_PANELS = {"disentangled": _disentangled_panels, "reduced": _reduced_panels}


def _with_error(result: Mapping, name: str) -> str:
  return f"{result[name]:.4f} +- {result[name + '_standard_error']:.4f}"
