"""Measures the circuit of a finished run, and compares it with the theory's.

    python -m experiments.circuits --workdir=runs/chain

For one head in each of two layers and graphs of single parents. On
--num_prompts fresh prompts, of which the first are the test set of the run:

- scores: attention on the parent, and attention of layer 2 on what matches;
- the blocks of the parameters beside the construction, with the gauge fixed;
- the loss if layer 1 attends to the parents alone;
- patches: the change of the loss if a position copies another token, or attends
  to another position alone; beside it the predicted change, by the edge
  posterior of the changed graph, for Dirichlet rows, and by a fitted layer 2.

A standard transformer without MLP and norms has blocks and patches through its
embeddings; any other has scores alone. Prints tables; writes
analysis/circuits.json and figures, and adds a panel to the page. Takes half a
minute on two cores for T = 20; the time of a prompt grows with T cubed.
"""

import sys

from absl import flags
import jax
import numpy as np

from experiments.harness import app
from experiments.harness import circuits as measuring
from experiments.harness import progress
from experiments.harness import signals
from experiments.harness import tables
from icl_causal import runs
from icl_causal.analysis import circuits
from icl_causal.analysis import patches
from icl_causal.config import build
from icl_causal.config import streams
from icl_causal.plotting import matrices
from icl_causal.report import circuits as circuit_report
from icl_causal.report import run as report


def main():
  """The command."""
  signals.end_at_once()
  run = runs.load(app.existing_workdir())
  check(run)
  for warning in run.warnings:
    print(f"warning: {warning}", file=sys.stderr)
  num = flags.FLAGS.num_prompts
  if num % measuring.GROUPS:
    raise app.Refused(
      f"--num_prompts={num} must be a multiple of {measuring.GROUPS}"
    )
  with progress.shown(f"measuring the circuit on {num} prompts"):
    record = measured(run, num)
  runs.write_circuits(run.path, record)
  same = measuring.equivalent(run.model, run.newest)
  if same.model is not None:
    fixed = circuits.gauge_fixed(same.model, same.params)
    figure = matrices.parameter_blocks(same.model.parameter_blocks(fixed))
    runs.save_figure(run.path, "gauge_fixed", figure)
  figure = circuit_report.figure(record, run.graph)
  if figure is not None:
    runs.save_figure(run.path, "patches", figure)
  report.write(run.path)
  for table in shown(record):
    print(table, end="\n\n")
  print(f"{run.path}/report.html shows the circuit")


def check(run: runs.Run):
  """Raises Refused for a run without such a circuit."""
  run.require("graph", "prior", "model")
  if run.result is None:
    raise app.Refused(f"{run.path} is not finished: it has no result.json")
  if run.result["steps"] not in run.params:
    raise app.Refused(f"{run.path}: {'; '.join(run.warnings)}")
  try:
    measuring.check(run.model, run.graph)
  except app.Refused as error:
    raise app.Refused(f"{run.path}: {error}") from error


def measured(run: runs.Run, num_prompts: int) -> dict:
  """The record of `runs.read_circuits`, of the newest parameters."""
  config, graph = run.config, run.graph
  draw = jax.jit(build.sampler(config, graph, num_prompts))
  batch = draw(streams.key(config.eval.seed, "test"))
  scores = measuring.scores(run.model, run.newest, batch.x_T, graph)
  same = measuring.equivalent(run.model, run.newest)
  record = {
    "step": max(run.params),
    "prompts": num_prompts,
    "scores": {name: _mean(one) for name, one in scores.items()},
    "reason": same.reason,
    "clamp": None,
    "blocks": [],
    "patches": {},
    "agreement": {},
  }
  if same.model is None:
    return record
  blocks = circuits.compare(same.model, same.params, graph)
  fitted = measuring.fit_layer_2(
    config, graph, streams.key(config.eval.seed, "data"), num_prompts
  )
  of = measuring.patch(same.params, batch, graph, config.prior.alpha, fitted)
  chosen_TxT = patches.pairs(graph)
  return record | {
    "blocks": [one._asdict() for one in blocks],
    "clamp": _mean(measuring.clamp(same.model, same.params, batch, graph)),
    "patches": {
      name: _matrix(means_GxTxT.mean(axis=0), chosen_TxT)
      for name, means_GxTxT in of.means.items()
    },
    "agreement": {
      ", ".join(names): {
        name: number._asdict() for name, number in found._asdict().items()
      }
      for names, found in measuring.agreements(of, graph).items()
    },
  }


def shown(record: dict) -> list[str]:
  """The tables of a record."""
  found = [tables.columns(["score", ""], circuit_report.score_rows(record))]
  if record["reason"] is not None:
    return [*found, record["reason"]]
  header = ["matrix", "block", "share of norm^2", "cosine", "scale"]
  found.append(tables.columns(header, circuit_report.block_rows(record)))
  if agreement := circuit_report.agreement_table(record):
    found.append(tables.columns(agreement[0], agreement[1:]))
  return found


def _mean(of: circuits.Mean) -> dict:
  return {"value": of.value, "error": of.error}


def _matrix(values_TxT: np.ndarray, chosen_TxT: np.ndarray) -> list[list]:
  """Six digits of the chosen entries, and None elsewhere."""
  return [
    [float(f"{v:.6g}") if c else None for v, c in zip(row, of, strict=True)]
    for row, of in zip(values_TxT, chosen_TxT, strict=True)
  ]


if __name__ == "__main__":
  app.define_read_flags()
  flags.DEFINE_integer("num_prompts", 2**14, "Prompts, a multiple of 64.", 64)
  app.run(main)
