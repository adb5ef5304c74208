"""A config as JSON text, as a digest, and as flat fields."""

from collections.abc import Mapping
import hashlib
import json
from typing import Any

from ml_collections import ConfigDict


def canonical(record: Mapping) -> str:
  """The JSON text of a record: sorted keys, tuples as lists, no NaN."""
  return json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"


def digest(record: Mapping) -> str:
  """Twelve hexadecimal digits that name a config."""
  return hashlib.sha256(canonical(record).encode()).hexdigest()[:12]


def flatten(record: Mapping, prefix: str = "") -> dict[str, Any]:
  """Nested fields under dotted names, such as `train.steps`."""
  flat = {}
  for key, value in record.items():
    if isinstance(value, Mapping) and value:
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def from_record(record: Mapping) -> Any:
  """The ConfigDict of a config.json, whose lists are tuples in a config."""
  return ConfigDict(_tuples(record))


def _tuples(value):
  if isinstance(value, Mapping):
    return {name: _tuples(entry) for name, entry in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
