"""The tables of docs/interventions.md, from a recorded result."""

from collections.abc import Mapping

from experiments.harness import tables
from experiments.theory import intervention_scores
from experiments.theory import interventions

_MEASURED = {
  intervention_scores.BEST: "best possible",
  intervention_scores.UNKNOWN: "best possible, unknown",
  intervention_scores.GRADIENT: "gradient, dropped",
  intervention_scores.GRADIENT_UNKNOWN: "gradient, unknown",
}
_CLOSED = {
  intervention_scores.BEST: "measured",
  interventions.GUARANTEED: "guaranteed",
  interventions.MARGIN: "margin",
}


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
  others = {k: v for k, v in _MEASURED.items() if k != intervention_scores.BEST}
  return {
    "interventions shares": _shares(rows, _CLOSED),
    "interventions methods": _shares(rows, others),
    "interventions best": _best(rows),
    "interventions designs": _designs(rows),
  }


def _settings(rows: list[dict]) -> dict[tuple, list[dict]]:
  """The rows by setting."""
  names = dict.fromkeys((r["graph"], r["S"], r["alpha"]) for r in rows)
  return {
    name: [r for r in rows if (r["graph"], r["S"], r["alpha"]) == name]
    for name in names
  }


def _of(rows: list[dict], method: str, design: str) -> list[dict]:
  return [
    row
    for row in rows
    if (row["method"], row["design"]) == (method, design)
    and row["quantity"] != "best share"
  ]


def _shares(rows: list[dict], names: Mapping[str, str]) -> str:
  """Values without set tokens, and ratios by share.

  Below what is measured of the best possible, the ratio of the unset tokens.
  """
  lines, header = [], []
  for setting, of_setting in _settings(rows).items():
    for method, name in names.items():
      none, *others = _of(of_setting, method, interventions.INDEPENDENT)
      header = ["graph", "S", "alpha", "", "share 0"]
      header += [f"{row['share']:g}" for row in others]
      cells = [_value(none), *(_ratio(row) for row in others)]
      lines.append([*setting, name, *cells])
      if method == intervention_scores.BEST:
        cells = [_ratio(row, 1 - row["share"]) for row in others]
        lines.append([*setting, "unset tokens", "-", *cells])
  return tables.markdown(header, lines)


def _best(rows: list[dict]) -> str:
  """The best share of each method and closed form, and the ratio there."""
  names = _CLOSED | {
    method: _MEASURED[method]
    for method in (intervention_scores.BEST, intervention_scores.GRADIENT)
  }
  lines = []
  for setting, of_setting in _settings(rows).items():
    best = {r["method"]: r for r in of_setting if r["quantity"] == "best share"}
    cells = []
    for method in names:
      cells += [best[method]["share"], _ratio(best[method])]
    lines.append([*setting, *cells])
  header = ["graph", "S", "alpha"]
  for name in names.values():
    header += [name, "ratio"]
  return tables.markdown(header, lines)


def _designs(rows: list[dict]) -> str:
  """The ratios of the other designs."""
  lines = []
  for setting, of_setting in _settings(rows).items():
    line = [*setting]
    for design in (interventions.ONE, interventions.ROOTS):
      of_methods = [
        _of(of_setting, method, design)[0]
        for method in (
          intervention_scores.BEST,
          interventions.GUARANTEED,
          intervention_scores.GRADIENT,
        )
      ]
      line += [of_methods[0]["share"], *map(_ratio, of_methods)]
    lines.append(line)
  header = ["graph", "S", "alpha"]
  for design in (interventions.ONE, interventions.ROOTS):
    header += [f"{design}: share", "best possible", "guaranteed", "gradient"]
  return tables.markdown(header, lines)


def _value(row: dict) -> str:
  if row["value"] is None:
    return "-"
  digits = 2 if row["value"] < 10 else 1
  return f"{row['value']:.{digits}f} ± {row['error']:.{digits}f}"


def _ratio(row: dict, factor: float = 1.0) -> str:
  if row["ratio"] is None:
    return "-"
  ratio, error = factor * row["ratio"], factor * row["error of ratio"]
  return f"{ratio:.2f} ± {error:.2f}"
