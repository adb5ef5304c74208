"""What a sweep comes to: a table of all runs, totals, figures."""

from collections.abc import Callable, Sequence
import csv
import io
import json
import pathlib

import numpy as np

from experiments import batch
from experiments import build
from experiments.batch import Run
from icl_causal import runs


def rows(workdir: pathlib.Path, planned: Sequence[Run]) -> list[dict]:
  """A row for every run: its name, its status, its point, what came of it."""
  table = []
  for run in planned:
    folder = batch.folder(workdir, run)
    row = {"run": run.name, "status": "unfinished", **run.point}
    if (folder / "result.json").exists():
      row |= {"status": "finished", **runs.read_result(folder)}
    elif failed := runs.read_failure(folder):
      row["status"] = f"{failed['what']} at step {failed['step']}"
    table.append(row)
  return table


def totals(table: list[dict]) -> dict:
  """Counts over all runs, and means over the finished ones."""
  done = [row for row in table if row["status"] == "finished"]
  return {
    "runs": len(table),
    "finished": len(done),
    **{
      name: sum(row[name] for row in done)
      for name in ("edges", "edges_recovered", "false_parents")
    },
    **{
      name: float(np.mean([row[name] for row in done])) if done else None
      for name in ("loss", "excess_loss")
    },
  }


def write_table(workdir: pathlib.Path, table: list[dict]):
  """The rows as table.csv and table.jsonl."""
  columns = list(dict.fromkeys(name for row in table for name in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator="\n")
  writer.writeheader()
  writer.writerows(table)
  runs.write_text(workdir / "table.csv", text.getvalue())
  lines = [json.dumps(row, allow_nan=False) + "\n" for row in table]
  runs.write_text(workdir / "table.jsonl", "".join(lines))


def columns(
  planned: Sequence[Run], table: list[dict]
) -> tuple[list[str], list[list]]:
  """The header and the rows that a terminal has room for."""
  names = ["run", *planned[0].point, "status", "edges", "edges_recovered"]
  names += ["false_parents", "excess_loss"]
  return names, [[row.get(name, "-") for name in names] for row in table]


def write_figures(
  workdir: pathlib.Path, config: build.Config, planned: Sequence[Run]
):
  """Curves with bands, heat maps of a grid, scatters of what was drawn.

  Curves and points are told apart by the first field of the grid that is no
  seed; the heat maps are over its first two fields with several values.
  """
  table = rows(workdir, planned)
  pairs = [
    (runs.read_metrics(batch.folder(workdir, run)), row)
    for run, row in zip(planned, table, strict=True)
    if row["status"] == "finished"
  ]
  if not pairs:
    return
  from icl_causal import plotting  # matplotlib, which --help can spare

  grid = {
    name: values
    for name, values in runs.flatten(config.sweep.grid.to_dict()).items()
    if len(values) > 1
  }
  told_apart = next((name for name in grid if not name.endswith("seed")), None)
  groups = {}
  for history, row in pairs:
    label = f"{told_apart} = {row[told_apart]}" if told_apart else "all runs"
    groups.setdefault(label, []).append((history, row))
  curves = {
    label: _band([history for history, _ in group])
    for label, group in groups.items()
  }
  label = "excess loss (nats): median, least, largest"
  runs.save_figure(workdir, "curves", plotting.bands(curves, "step", label))
  for name, (law, *_) in runs.flatten(config.sweep.random.to_dict()).items():
    points = {
      label: (
        [row[name] for _, row in group],
        [row["excess_loss"] for _, row in group],
      )
      for label, group in groups.items()
    }
    figure = plotting.scatter(
      points, name, "excess loss (nats)", log=law == "log"
    )
    runs.save_figure(workdir, f"scatter_{name}", figure)
  if len(grid) > 1:
    down, across = list(grid.items())[:2]
    done = [row for _, row in pairs]
    panels = {
      name: (_means(done, measure, down, across), low, high)
      for name, (measure, low, high) in _MEASURES.items()
    }
    runs.save_figure(workdir, "map", plotting.heat_maps(panels, down, across))


def _band(histories: list[list[dict]]) -> np.ndarray:
  """Step, and median, least and largest excess loss of the runs at it."""
  by_step = {}
  for history in histories:
    for row in history:
      by_step.setdefault(row["step"], []).append(row["excess_loss"])
  return np.array(
    [
      (step, np.median(losses), min(losses), max(losses))
      for step, losses in sorted(by_step.items())
    ]
  ).T


# What the heat maps show: a measure and the ends of its colour scale.
_MEASURES: dict[str, tuple[Callable[[dict], float], float | None, float | None]]
_MEASURES = {
  "excess loss (nats)": (lambda row: row["excess_loss"], None, None),
  "share of edges recovered": (
    lambda row: row["edges_recovered"] / max(row["edges"], 1),
    0,
    1,
  ),
}


def _means(done: list[dict], measure, down, across) -> np.ndarray:
  """The mean of a measure over all runs at each pair of values, or nan."""
  (down_name, down_values), (across_name, across_values) = down, across
  means = np.full((len(down_values), len(across_values)), np.nan)
  for i, y in enumerate(down_values):
    for j, x in enumerate(across_values):
      here = [
        measure(row)
        for row in done
        if row[down_name] == y and row[across_name] == x
      ]
      if here:
        means[i, j] = np.mean(here)
  return means
