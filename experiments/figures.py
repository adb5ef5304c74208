"""Draws the paper's figures from runs, and trains the runs that are missing.

    python -m experiments.figures --figure=2 --tier=quick

Tier quick is our recipe, eleven minutes on two cores for all figures; paper is
the authors' settings, hours. Runs are kept under runs/TIER, or --workdir, and
go on where they were cut off; figures and a line with the result of every run
go to results/TIER, or --results.
"""

from collections.abc import Mapping
import json
import pathlib
import sys
import types
from typing import Any

from absl import flags
import jax
from jax import numpy as jnp
import numpy as np

from configs import variants
from experiments import analyze
from experiments import batch
from experiments import build
from experiments import cli
from experiments import draw
from experiments import forests
from experiments import paper
from experiments import show
from experiments import stopping
from experiments.batch import Run
from icl_causal import graphs
from icl_causal import plotting
from icl_causal import runs
from icl_causal import training

EMPTY: Mapping[str, dict] = types.MappingProxyType({})


def main():
  """The command."""
  cli.use_cores(cli.cores())
  tier, asked = flags.FLAGS.tier, flags.FLAGS.figure
  chosen = list(paper.FIGURES) if asked == "all" else [asked]
  workdir = cli.workdir(tier)
  results = pathlib.Path(flags.FLAGS.results or f"results/{tier}")
  names = [name for number in chosen for name in paper.FIGURES[number]]
  runs_of = {
    name: paper.planned(name, tier, flags.FLAGS.seeds) for name in names
  }
  paper.train(runs_of, workdir, stopping.when_asked())
  for name, group in runs_of.items():
    write_results(results, name, group, workdir)
  for number in chosen:
    for stem, figure in figures_of(number, runs_of, workdir).items():
      runs.save_figure(results, stem, figure)
      print(f"{results}/figures/{stem}.png")
  print()
  print(show.columns(*table(runs_of, workdir)))


def write_results(
  results: pathlib.Path,
  name: str,
  group: list[Run],
  workdir: pathlib.Path,
  recorded: Mapping[str, dict] = EMPTY,
):
  """A line for each run of an experiment: its name, its seeds, its result."""
  found = read_results(group, workdir, recorded)
  lines = [
    {"run": run.name} | run.point | result
    for run, result in zip(group, found, strict=True)
  ]
  results.mkdir(parents=True, exist_ok=True)
  runs.write_text(
    results / _file(name),
    "".join(
      json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in lines
    ),
  )


def read_recorded(results: pathlib.Path, name: str) -> dict[str, dict]:
  """The lines that `write_results` left of an experiment, by their run."""
  path = results / _file(name)
  if not path.exists():
    return {}
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  return {line["run"]: line for line in lines}


def read_results(
  group: list[Run],
  workdir: pathlib.Path,
  recorded: Mapping[str, dict] = EMPTY,
) -> list[dict]:
  """The result of every run; refused where a loss was not finite.

  Args:
    group: the runs.
    workdir: where they are.
    recorded: what to take for those that are not there, by name.
  """
  found = []
  for run in group:
    home = batch.folder(workdir, run)
    if failed := runs.read_failure(home):
      raise cli.Refused(f"{home}: {failed['what']} at step {failed['step']}")
    if run.name in recorded and not batch.is_done(home):
      found.append(recorded[run.name])
    else:
      found.append(runs.read_result(home))
  return found


def _file(name: str) -> str:
  return f"{name.replace(' ', '_')}.jsonl"


def table(runs_of: dict[str, list[Run]], workdir: pathlib.Path):
  """Header and rows: every experiment, means over its runs."""
  header = ["experiment", "runs", "edges", "recovered", "attention"]
  header += ["false parents", "loss", "excess", "over exact", "seconds"]
  rows = []
  for name, group in runs_of.items():
    found = read_results(group, workdir)

    def mean(field, found=found):
      values = [row[field] for row in found if row[field] is not None]
      return float(np.mean(values)) if len(values) == len(found) else "-"

    rows.append(
      [
        name,
        len(found),
        sum(row["edges"] for row in found),
        sum(row["edges_recovered"] for row in found),
        mean("parent_attention_mean"),
        sum(row["false_parents"] for row in found),
        mean("loss"),
        mean("excess_loss"),
        mean("excess_over_exact"),
        mean("wall_seconds"),
      ]
    )
  return header, rows


def figures_of(
  number: str, runs_of: dict[str, list[Run]], workdir: pathlib.Path
):
  """The matplotlib figures of a figure of the paper, by the stems of files."""
  own = {name: runs_of[name] for name in paper.FIGURES[number]}
  curves = {
    name: (_histories(group, workdir), _lines(group, workdir))
    for name, group in own.items()
  }
  drawn = {f"figure_{number}_loss": plotting.losses(curves)}
  if number == "9":
    found = _count(own["forests"], workdir)
    drawn[f"figure_{number}"] = plotting.attention_by_position(
      found["parent_attention_by_position"],
      found["parent_attention_deviation_by_position"],
      found["roots_by_position"],
      found["false_parents_by_position"],
    )
  else:
    rows = {name: _maps(group[0], workdir) for name, group in own.items()}
    drawn[f"figure_{number}"] = plotting.weights(rows)
  return drawn


def _histories(group: list[Run], workdir: pathlib.Path) -> list:
  """(steps, test losses) of every run."""
  histories = [runs.read_metrics(batch.folder(workdir, run)) for run in group]
  return [
    ([row["step"] for row in rows], [row["loss"] for row in rows])
    for rows in histories
  ]


def _lines(group: list[Run], workdir: pathlib.Path) -> dict[str, float]:
  """Losses of the predictors, means over runs, by the name to show."""
  found = read_results(group, workdir)
  names = {
    "uniform_loss": "uniform",
    "unigram_loss": "unigram",
    "edge_posterior_loss": "edge posterior",
    "exact_posterior_loss": "exact posterior",
    "entropy": "entropy",
  }
  return {
    shown: float(np.mean([row[name] for row in found]))
    for name, shown in names.items()
    if all(row[name] is not None for row in found)
  }


def _maps(run: Run, workdir: pathlib.Path):
  """The graph, the first layer's attention on data, and parameter panels."""
  params = final_params(run, workdir)
  T = run.graph.parents_TxK.shape[0]
  panels = draw.panels(params, run.config, T)
  return (
    np.asarray(graphs.adjacency(run.graph)),
    analyze.attention(run.config, run.graph)(params),
    [panel for panel in panels if not panel.title.startswith("A1")],
  )


def _count(group: list[Run], workdir: pathlib.Path) -> dict:
  """What `forests.count` says of runs on many graphs."""
  found = read_results(group, workdir)
  params = [final_params(run, workdir) for run in group]
  params_G, graph_G = (
    jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
    for trees in (params, [run.graph for run in group])
  )
  attention = jax.jit(jax.vmap(_attention_of(group[0].config)))
  return forests.count(
    forests.Trained(
      graph_G,
      attention(params_G, graph_G),
      jnp.array([row["loss"] for row in found]),
      jnp.array([row["edge_posterior_loss"] for row in found]),
    )
  )


def _attention_of(config: build.Config):
  """Maps parameters and a graph to the first layer's attention on prompts."""

  def attention(params, graph):
    draw = build.sampler(config, graph, config.eval.batch_size)
    test = draw(build.key(config.eval.seed, "test"))
    return training.evaluate(
      params,
      build.model(config, graph),
      test.x_T,
      test.y_S,
      config.eval.batch_size,
      config.train.epsilon,
    ).attention["attention_1"]

  return attention


def final_params(run: Run, workdir: pathlib.Path) -> Any:
  """The parameters at the end of a run."""
  start = training.init(
    build.key(run.config.seed, "init"),
    build.model(run.config, run.graph),
    build.optimizer(run.config),
  )
  state, messages = runs.load_state(batch.folder(workdir, run), start)
  for message in messages:
    print(f"warning: {message}", file=sys.stderr)
  if state is None or int(state.step) != run.config.train.steps:
    raise cli.Refused(
      f"{batch.folder(workdir, run)}: its last state is not to be had; delete "
      "it to train it again"
    )
  return state.params


if __name__ == "__main__":
  flags.DEFINE_enum(
    "figure", "all", [*paper.FIGURES, "all"], "Number of the figure."
  )
  flags.DEFINE_enum("tier", "quick", variants.TIERS, "Whose recipe.")
  flags.DEFINE_integer("seeds", 1, "Seeds from which each is trained.", 1)
  flags.DEFINE_string("workdir", None, "Of the runs; by default runs/TIER.")
  flags.DEFINE_string("results", None, "By default results/TIER.")
  cli.run(main)
