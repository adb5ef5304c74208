"""The page of a sweep: a table of its runs, with a curve for each."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from icl_causal import runs
from icl_causal.config import record
from icl_causal.report import page

_CURVES = ("loss", "excess_loss", "edges_recovered", "parent_attention_mean")
_RESULTS = ("status", "edges", "edges_recovered", "false_parents")
_RESULTS += ("parent_attention_mean", "loss", "excess_loss")


def write(workdir: pathlib.Path):
  """Writes report.html of a sweep.

  Raises:
    RunError: if the directory is not a sweep that has its table.
  """
  title = f"sweep {workdir.resolve().name}"
  text = page.page("sweep", title, data(workdir))
  runs.write_text(workdir / "report.html", text)


def data(workdir: pathlib.Path) -> dict[str, Any]:
  """The rows of the table, and the curves of the finished runs."""
  members = runs.load_sweep(workdir)
  sweep = record.flatten(runs.read_config(workdir)["sweep"])
  fields = [
    name.removeprefix(f"{kind}.")
    for name in sweep
    for kind in ("grid", "random")
    if name.startswith(f"{kind}.")
  ]
  steps: dict[tuple[int, ...], int] = {}
  rows = [_row(member, [*fields, *_RESULTS], steps) for member in members]
  return {
    "rows": rows,
    "finished": sum(row["status"] == "finished" for row in rows),
    "fields": fields,
    "columns": [*fields, *_RESULTS],
    "curves": _CURVES,
    "steps": list(steps),
    "pages": sum("page" in row for row in rows),
    "command": "python -m experiments.report --workdir=SWEEP --members",
  }


def _row(
  member: runs.Member, columns: list[str], steps: dict[tuple[int, ...], int]
) -> dict[str, Any]:
  """A row of the page; new lists of steps are added to `steps`."""
  row: dict[str, Any] = {"run": member.path.name}
  row |= {name: member.row[name] for name in columns if name in member.row}
  if (member.path / "report.html").exists():
    row["page"] = f"members/{member.path.name}/report.html"
  if member.row["status"] == "finished":
    history = runs.read_metrics(member.path)
    row["curves"] = {}
    for name in _CURVES:
      curve = {one["step"]: one.get(name) for one in history}
      if name == "loss":
        curve = _early_losses(member.path, history) | curve
      at = steps.setdefault(tuple(curve), len(steps))
      values = [_rounded(value) for value in curve.values()]
      row["curves"][name] = {"steps": at, "values": values}
  return row


def _early_losses(
  path: pathlib.Path, history: Sequence[Mapping]
) -> dict[int, float]:
  """The losses before the second evaluation, by step."""
  first = history[1]["step"] if len(history) > 1 else 0
  return {
    step: snapshot.loss
    for step, snapshot in runs.read_snapshots(path).items()
    if step < first
  }


def _rounded(value) -> float | None:
  """With five digits; None if it is not a number, as in a damaged row."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return float(f"{value:.5g}") if is_number else None
