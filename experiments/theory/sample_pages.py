"""The tables of docs/samples.md, from a recorded result of theory:samples."""

from collections.abc import Mapping

from experiments.harness import tables
from experiments.theory import sample_curves
from experiments.theory import sample_methods
from experiments.theory import samples

_NEEDED = (
  sample_curves.BEST,
  sample_curves.MOMENT,
  sample_curves.QUERY_ROW,
  sample_curves.QUERY_MOMENT,
  sample_curves.SOFT,
  sample_curves.SOFTMAX,
  sample_curves.HARD,
  sample_curves.GENIE,
  sample_curves.GENIE_HARD,
  samples.ROOTED,
  sample_methods.ASCENT,
  sample_methods.SHANNON,
  sample_methods.CHI2,
  samples.NORMAL,
  samples.SADDLE,
  samples.GUARANTEED,
  samples.NO_METHOD,
  samples.FANO,
)
_WHOLE = (
  sample_curves.BEST,
  sample_curves.SOFT,
  sample_methods.ASCENT,
  sample_methods.ALGORITHM_1,
  sample_methods.JOINT,
  sample_methods.SHANNON,
  sample_methods.POOLED,
  sample_methods.CHOW_LIU,
  sample_methods.PC,
  samples.GUESS,
)
_FACTORS = {
  "one row": (sample_curves.QUERY_ROW, sample_curves.BEST),
  "a moment": (sample_curves.QUERY_MOMENT, sample_curves.QUERY_ROW),
  "shares of tokens": (sample_curves.SOFT, sample_curves.QUERY_MOMENT),
  "all three": (sample_curves.SOFT, sample_curves.BEST),
  "hard label": (sample_curves.HARD, sample_curves.SOFT),
}
_WHOLE_SIZES = (16, 64, 256, 1024)


def shown(recorded: Mapping | None) -> dict[str, str]:
  """The tables in Markdown, by name.

  Args:
    recorded: the result, with `header` and `rows`; None if the config has
      changed since, and then there are no tables.
  """
  if recorded is None:
    return {}
  rows = [
    dict(zip(recorded["header"], row, strict=True)) for row in recorded["rows"]
  ]
  lengths = list(dict.fromkeys(row["T"] for row in rows))
  return {
    **{f"samples T = {T}": _needed(rows, T) for T in lengths},
    "samples whole": _whole(rows),
    "samples factors": _factors(rows),
    "samples over": _over(rows),
  }


def _settings(rows: list[dict]) -> list[tuple]:
  return list(dict.fromkeys((r["S"], r["alpha"], r["T"]) for r in rows))


def _of(rows: list[dict], setting: tuple) -> dict[tuple[str, str], dict]:
  """The rows of a setting, by method and quantity."""
  return {
    (row["method"], row["quantity"]): row
    for row in rows
    if (row["S"], row["alpha"], row["T"]) == setting
  }


def _needed(rows: list[dict], T: int) -> str:
  """N90 and N99 of each method, two columns a setting."""
  settings = [setting for setting in _settings(rows) if setting[2] == T]
  header = [f"T = {T}"]
  for S, alpha, _ in settings:
    header += [f"S = {S}, Dir({alpha:g}): N90", "N99"]
  lines = []
  for method in _NEEDED:
    line = [method]
    for setting in settings:
      row = _of(rows, setting)[method, "edges"]
      line += [_with_error(row, level) for level in ("N90", "N99")]
    lines.append(line)
  return tables.markdown(header, lines)


def _with_error(row: dict, level: str) -> str:
  value, error = row[level], row[f"error of {level}"]
  if isinstance(value, str):
    return value
  digits = 0 if value >= 20 else 1
  return f"{value:.{digits}f} ± {error:.{digits}f}"


def _whole(rows: list[dict]) -> str:
  """What whole methods find in the first setting, and what they lose."""
  by_name = _of(rows, _settings(rows)[0])
  header = ["method", "quantity", *(f"N = {N}" for N in _WHOLE_SIZES)]
  lines = [
    [method, quantity, *(row[f"N = {N}"] for N in _WHOLE_SIZES)]
    for method in _WHOLE
    for (of, quantity), row in by_name.items()
    if of == method
  ]
  return tables.markdown(
    [*header, "largest error"],
    [[*line, by_name[line[0], line[1]]["largest error"]] for line in lines],
  )


def _factors(rows: list[dict]) -> str:
  """The factors at N90, a line for each setting."""
  lines = []
  for S, alpha, T in _settings(rows):
    by_name = _of(rows, (S, alpha, T))
    cells = [
      _ratio(by_name[f"{first} / {second}", "factor"])
      for first, second in _FACTORS.values()
    ]
    lines.append([S, alpha, T, S - 1, *cells])
  return tables.markdown(["S", "alpha", "T", "S - 1", *_FACTORS], lines)


def _ratio(row: dict) -> str:
  value, error = row["N90"], row["error of N90"]
  return value if isinstance(value, str) else f"{value:.2f} ± {error:.2f}"


def _over(rows: list[dict]) -> str:
  """How many methods are above the best possible, and the largest z."""
  judged = [row for row in rows if row["over the best"] != "-"]
  z = [float(row["over the best"].rpartition(" ")[2]) for row in judged]
  above = sum(not row["over the best"].startswith("no") for row in judged)
  return tables.markdown(
    ["methods and settings", "above the best possible", "largest z"],
    [[len(judged), above, max(z)]],
  )
