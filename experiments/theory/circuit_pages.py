"""The tables of docs/circuits.md, from a recorded result of theory:circuits."""

from collections.abc import Mapping, Sequence
import math

from experiments.harness import tables
from experiments.theory import circuits as circuits_check
from icl_causal.analysis import patches
from icl_causal.report import circuits

_PACE = tuple(
  f"steps to {threshold}, {name}"
  for threshold in (0.2, 0.1)
  for name in circuits_check.LAYER_1
)
_PACE += tuple(f"excess, {name}" for name in circuits_check.LAYER_1)
_PACE += (
  "excess, clamped minus trained",
  "excess, edges clamped minus trained",
)
_SCORES = (
  "parent",
  "matching",
  "by chance",
  "evenness",
  "loss, clamped after training",
  "change of outputs by the gauge",
)
_BLOCKS = ("A2 token > token 1.1", "W token 2.1 > next token")
_BLOCKS += ("A1 position > position", "A2 position > position")
_LARGE = 0.05  # the least mean share, in a task, of another block in a table


def shown(recorded: Mapping | None) -> dict[str, str]:
  """The tables in Markdown, by name.

  Args:
    recorded: the result, with `header` and `rows`; None if the config has
      changed since, and then there are no tables.
  """
  if recorded is None:
    return {}
  rows = {(row[0], row[1]): row[2:] for row in recorded["rows"]}
  tasks = list(dict.fromkeys(row[0] for row in recorded["rows"]))

  def by_task(names: Sequence[str]) -> str:
    return tables.markdown(
      ["number", *tasks],
      [[name, *(_cell(rows[t, name]) for t in tasks)] for name in names],
    )

  def by_predictor(task: str, suffix: str) -> str:
    columns = [f"{m}, {p}" for m in patches.MEASURED for p in patches.PREDICTED]
    return tables.markdown(
      ["number", *columns],
      [
        [title]
        + [
          _cell(rows[task, f"{column}: {name.replace('_', ' ')}{suffix}"])
          for column in columns
        ]
        for name, title in circuits.NUMBERS.items()
      ],
    )

  outside = [f"{matrix}: share outside" for matrix in ("A1", "A2", "W")]
  blocks = [
    f"{block}: {name}"
    for block in _BLOCKS
    for name in ("cosine", "scale", "share")
  ]
  known = {f"{block}: share" for block in _BLOCKS}
  large = {
    number: None
    for (_, number), cells in rows.items()
    if number.endswith(": share") and (cells[0] or 0) >= _LARGE
  }
  found = {
    "others": by_task([name for name in large if name not in known]),
    "pace": by_task(_PACE),
    "scores": by_task(_SCORES),
    "blocks": by_task([*blocks, *outside]),
    "least": by_least(rows, tasks),
  }
  for task in tasks:
    found[f"{task} patches"] = by_predictor(task, "")
    found[f"{task} more"] = by_predictor(task, ", more prompts")
  return found


def by_least(rows: Mapping, tasks: Sequence[str]) -> str:
  """The least cosine over seeds of the two blocks of tokens."""
  return tables.markdown(
    ["least cosine of the seeds", *tasks],
    [
      [block, *(f"{rows[t, f'{block}: cosine'][2]:.4f}" for t in tasks)]
      for block in _BLOCKS[:2]
    ],
  )


def _cell(numbers: Sequence) -> str:
  """A mean with its standard error, of which two digits count."""
  mean, error = numbers[:2]
  if mean is None or error is None:
    return "-"
  if not error:
    return f"{mean:.4g} +- 0"
  if abs(mean) < 1e-4 > error:
    return f"{mean:.1e} +- {error:.0e}"
  digits = min(5, max(0, 1 - math.floor(math.log10(error))))
  return f"{mean:.{digits}f} +- {error:.{digits}f}"
