"""Summarizes a sweep: a table of all runs, totals, figures."""

from collections.abc import Mapping, Sequence
import csv
import io
import json
import pathlib

import numpy as np

from experiments.harness.grid import Run
from icl_causal import runs
from icl_causal.config import build
from icl_causal.config import record
from icl_causal.report import sweep as report


def write(workdir: pathlib.Path, config: build.Config, planned: Sequence[Run]):
  """Writes the table, the figures, the page and the result of a sweep."""
  table = rows(planned)
  write_table(workdir, table)
  write_figures(workdir, config, planned)
  report.write(workdir)
  runs.write_result(workdir, totals(table))


def rows(planned: Sequence[Run]) -> list[dict]:
  """A row for every run: its name, its status, its point, its result."""
  table = []
  for run in planned:
    row = {"run": run.name, "status": "unfinished", **run.point}
    if runs.is_finished(run.workdir):
      row |= {"status": "finished", **runs.read_result(run.workdir)}
    elif failed := runs.read_failure(run.workdir):
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
      for name in dict.fromkeys(("loss", loss_name(done)))
    },
  }


def loss_name(finished: Sequence[Mapping]) -> str:
  """`excess_loss`, or `loss` if the prior of a run has no edge posterior."""
  names = [row["excess_loss"] for row in finished]
  return "loss" if None in names else "excess_loss"


def write_table(workdir: pathlib.Path, table: list[dict]):
  """The rows as table.csv and table.jsonl."""
  columns = list(dict.fromkeys(name for row in table for name in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator="\n")
  writer.writeheader()
  writer.writerows(
    {name: _harmless(cell) for name, cell in row.items()} for row in table
  )
  runs.write_text(workdir / "table.csv", text.getvalue())
  lines = [json.dumps(row, allow_nan=False) + "\n" for row in table]
  runs.write_text(workdir / "table.jsonl", "".join(lines))


def _harmless(cell):
  """The cell, with a quote before a text that a spreadsheet would evaluate."""
  is_formula = isinstance(cell, str) and cell.startswith(tuple("=+-@\t\r"))
  return f"'{cell}" if is_formula else cell


def columns(
  planned: Sequence[Run], table: list[dict]
) -> tuple[list[str], list[list]]:
  """The header and the rows that a terminal has room for."""
  names = ["run", *planned[0].point, "status", "edges", "edges_recovered"]
  done = [row for row in table if row["status"] == "finished"]
  names += ["false_parents", loss_name(done)]
  return names, [[row.get(name, "-") for name in names] for row in table]


def write_figures(
  workdir: pathlib.Path, config: build.Config, planned: Sequence[Run]
):
  """Curves with bands, scatters of random fields, heat maps of a grid.

  Curves and points are grouped by the first field of the grid that is no seed.
  The heat maps are over its first two fields with several values.
  """
  from icl_causal.plotting import curves  # matplotlib, which --help can spare
  from icl_causal.plotting import matrices

  pairs = [
    (runs.read_metrics(run.workdir), row)
    for run, row in zip(planned, rows(planned), strict=True)
    if row["status"] == "finished"
  ]
  if not pairs:
    return
  grid = {
    name: values
    for name, values in record.flatten(config.sweep.grid.to_dict()).items()
    if len(values) > 1
  }
  groups = _group(pairs, grid)
  loss_field = loss_name([row for _, row in pairs])
  loss = loss_field.replace("_", " ")
  bands = {
    label: _band([history for history, _ in group], loss_field)
    for label, group in groups.items()
  }
  label = f"{loss} (nats): median, least, largest"
  runs.save_figure(workdir, "curves", curves.bands(bands, "step", label))
  for name, (law, *_) in record.flatten(config.sweep.random.to_dict()).items():
    points = {
      label: (
        [row[name] for _, row in group],
        [row[loss_field] for _, row in group],
      )
      for label, group in groups.items()
    }
    figure = curves.scatter(points, name, f"{loss} (nats)", log=law == "log")
    runs.save_figure(workdir, f"scatter_{name}", figure)
  if len(grid) > 1:
    down, across = list(grid.items())[:2]
    finished = [row for _, row in pairs]
    losses = _means(finished, lambda row: row[loss_field], down, across)
    shares = _means(finished, _share_of_edges, down, across)
    panels = {
      f"{loss} (nats)": (losses, None, None, True),
      "share of edges recovered": (shares, 0, 1, False),
    }
    runs.save_figure(workdir, "map", matrices.heat_maps(panels, down, across))


def _group(pairs: list[tuple[list, dict]], grid: dict) -> dict[str, list]:
  """Pairs (history, row) by the first field of the grid that is no seed."""
  group_by = next((name for name in grid if not name.endswith("seed")), None)
  groups = {}
  for history, row in pairs:
    label = f"{group_by} = {row[group_by]}" if group_by else "all runs"
    groups.setdefault(label, []).append((history, row))
  return groups


def _band(histories: list[list[dict]], name: str) -> np.ndarray:
  """Step, and median, least and largest loss of the runs at it."""
  by_step = {}
  for history in histories:
    for row in history:
      by_step.setdefault(row["step"], []).append(row[name])
  return np.array(
    [
      (step, np.median(losses), min(losses), max(losses))
      for step, losses in sorted(by_step.items())
    ]
  ).T


def _share_of_edges(row: dict) -> float:
  return row["edges_recovered"] / max(row["edges"], 1)


def _means(finished: list[dict], measure, down, across) -> np.ndarray:
  """The mean of a measure over all runs at each pair of values, or nan."""
  (down_name, down_values), (across_name, across_values) = down, across
  means = np.full((len(down_values), len(across_values)), np.nan)
  for i, y in enumerate(down_values):
    for j, x in enumerate(across_values):
      here = [
        measure(row)
        for row in finished
        if row[down_name] == y and row[across_name] == x
      ]
      if here:
        means[i, j] = np.mean(here)
  return means
