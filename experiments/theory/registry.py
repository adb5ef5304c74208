"""The theory checks by name, and the functions that validate and run them.

A check is a module with

    FIELDS   the type and range of each field of its config
    NEEDS    rules between fields, each config -> message or None; optional
    check    config -> outcome.Outcome
"""

import importlib
import json
import pathlib
import time
import types

from PIL import Image

from configs import theory
from icl_causal import runs
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.config import record

# The checks are the entries of configs/theory.py.
CHECKS: dict[str, types.ModuleType] = {
  name: importlib.import_module(f"experiments.theory.{name}")
  for name in theory.CHECKS
}


def validate(config: build.Config):
  """Raises ConfigError for the first field or rule that is broken."""
  flat = config.to_dict()
  fields.check(flat, "seed", fields.SEED)
  fields.check(flat, "check", fields.one_of(CHECKS))
  module = CHECKS[config.check]
  fields.check_known(flat, ["check", "seed", *module.FIELDS])
  for name, field in module.FIELDS.items():
    fields.check(flat, name, field)
  for need in getattr(module, "NEEDS", ()):
    if message := need(config):
      raise fields.ConfigError(message)


def result(
  config: build.Config, workdir: pathlib.Path, overwrite: bool = False
) -> dict:
  """The result of a check, read from `workdir` if it is finished there.

  Args:
    config: validated.
    workdir: the run directory; created if it is missing.
    overwrite: runs the check again if it is finished.

  Returns:
    The contents of result.json: `header`, `rows` and `wall_seconds`.
  """
  with runs.opened(workdir, config.to_dict(), overwrite) as finished:
    if not finished:
      started = time.monotonic()
      outcome = CHECKS[config.check].check(config)
      if outcome.figure is not None:
        runs.save_figure(workdir, config.check, outcome.figure)
      runs.write_result(
        workdir,
        {
          "header": outcome.header,
          "rows": outcome.rows,
          "wall_seconds": time.monotonic() - started,
        },
      )
  return runs.read_result(workdir, {"header": list, "rows": list})


def write_recorded(results: pathlib.Path, config: build.Config, result: dict):
  """Writes a result under results/TIER, to be committed.

  The first line of the file has the config and all but the rows of the table,
  then there is a line for each row.

  Args:
    results: the folder results/TIER.
    config: of the check.
    result: from `result`.
  """
  head = {"config": config.to_dict(), **result}
  rows = head.pop("rows")
  path = _recorded(results, config)
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = [json.dumps(line, allow_nan=False) + "\n" for line in (head, *rows)]
  runs.write_text(path, "".join(lines))


def copy_figure(
  results: pathlib.Path, config: build.Config, workdir: pathlib.Path
):
  """Copies the figure of a finished check to results/theory, if it has one.

  The copy has a palette of 256 colors, a third of the size.
  """
  figure = workdir / "figures" / f"{config.check}.png"
  if figure.exists():
    with Image.open(figure) as picture:
      small = picture.convert("RGB").quantize(256)
      small.save(_recorded(results, config).with_suffix(".png"), optimize=True)


def read_recorded(results: pathlib.Path, config: build.Config) -> dict | None:
  """The result that `write_recorded` wrote for this config, or None."""
  path = _recorded(results, config)
  if not path.exists():
    return None
  head, *rows = map(json.loads, path.read_text().splitlines())
  written = record.canonical(head.pop("config"))
  if written != record.canonical(config.to_dict()):
    return None
  return head | {"rows": rows}


def _recorded(results: pathlib.Path, config: build.Config) -> pathlib.Path:
  return results / "theory" / f"{config.check}.jsonl"
