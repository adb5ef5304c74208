"""Configs and tables of theory checks."""

import json

from configs import theory


def config(check: str, **changes):
  """The config of a check with some fields changed."""
  changed = theory.get_config(check)
  changed.update(changes)
  return changed


def table(outcome) -> list[dict]:
  """The rows as dicts; fails if they cannot be written to result.json."""
  json.dumps(outcome.rows, allow_nan=False)
  return [dict(zip(outcome.header, row, strict=True)) for row in outcome.rows]
