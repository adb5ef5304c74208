"""Trains on many graphs at once, and counts the edges that are recovered.

    python -m experiments.forests --config=configs/two_stage.py:forest

The g-th graph, from 0, has g added to every seed, of the graph, of the data and
of the test prompts. One compiled program trains all of them. Leaves result.json
and a figure.
"""

import time

from absl import flags

from experiments.harness import app
from experiments.harness import forests
from experiments.harness import grid
from experiments.harness import memory
from experiments.harness import progress
from experiments.harness import signals
from experiments.harness import smoke
from icl_causal import runs
from icl_causal.config import build
from icl_causal.config import record
from icl_causal.plotting import curves

# Of result.json.
_FIELDS = {
  "num_graphs": int,
  "edges": int,
  "edges_recovered": int,
  "parent_attention_mean": runs.NUMBER | None,
  "parent_attention_min": runs.NUMBER | None,
  "roots": int,
  "false_parents": int,
  "false_parents_by_position": list,
  "roots_by_position": list,
  "excess_loss": runs.NUMBER | None,
  "excess_loss_standard_error": runs.NUMBER | None,
  "excess_over_exact": runs.NUMBER | None,
  "excess_over_exact_standard_error": runs.NUMBER | None,
  "wall_seconds": runs.NUMBER,
}


def main():
  """The command."""
  signals.end_at_once()
  app.use_cores(app.cores())
  config = app.config()
  build.check(config)
  if "seed" not in config.graph:
    raise app.Refused(
      f"graph.name = {config.graph.name!r} has no seed: all graphs are equal"
    )
  num_graphs = flags.FLAGS.num_graphs
  if smoke.is_on():
    num_graphs = min(num_graphs, 4)
  written = {**config.to_dict(), "num_graphs": num_graphs}
  workdir = app.workdir(f"forests-{record.digest(written)}")
  one = grid.Run(config, build.graph(config), {}, workdir)
  memory.check([one] * num_graphs, flags.FLAGS.parallel)
  with runs.opened(workdir, written, flags.FLAGS.overwrite) as finished:
    if not finished:
      started = time.monotonic()
      with progress.shown(f"compiling, then training {num_graphs} graphs"):
        trained = forests.train(config, num_graphs, flags.FLAGS.parallel)
      result = forests.count(trained)
      result["wall_seconds"] = time.monotonic() - started
      runs.save_figure(
        workdir,
        "attention_by_position",
        curves.attention_by_position(
          result["parent_attention_by_position"],
          result["parent_attention_deviation_by_position"],
          result["roots_by_position"],
          result["false_parents_by_position"],
        ),
      )
      runs.write_result(workdir, result)
  if finished:
    print(f"{workdir} is finished; --overwrite runs it again")
  print(table(runs.read_result(workdir, _FIELDS)))
  print(f"\n{workdir}/result.json has every count by position")


def table(result: dict) -> str:
  """The totals for a terminal, and false parents by position."""
  attention = "none"
  if result["edges"]:
    attention = (
      f"{result['parent_attention_mean']:.4f} on average, "
      f"{result['parent_attention_min']:.3f} at least"
    )
  by_position = "  ".join(
    f"{i}: {false}/{roots}"
    for i, (false, roots) in enumerate(
      zip(
        result["false_parents_by_position"],
        result["roots_by_position"],
        strict=True,
      )
    )
    if false
  )
  rows = [
    ("graphs", str(result["num_graphs"])),
    ("edges recovered", f"{result['edges_recovered']} of {result['edges']}"),
    ("attention on the parent", attention),
    ("false parents", f"{result['false_parents']} of {result['roots']} roots"),
    ("  by position", by_position or "none"),
    ("excess loss (nats)", _over_graphs(result, "excess_loss")),
    ("  over exact posterior", _over_graphs(result, "excess_over_exact")),
    ("seconds", f"{result['wall_seconds']:.1f}"),
  ]
  return "\n".join(f"{what:<26}{value}" for what, value in rows)


def _over_graphs(result: dict, name: str) -> str:
  if result[name] is None:
    return "none"
  error = result[f"{name}_standard_error"]
  return f"{result[name]:.4f} +- {error:.4f} over graphs"


if __name__ == "__main__":
  app.define_run_flags()
  flags.DEFINE_integer("num_graphs", 1000, "Graphs to train on.", 1)
  flags.DEFINE_integer("parallel", 8, "Graphs that a device trains at once.", 1)
  app.run(main)
