"""Changes of single fields, and the other fields that depend on them."""

from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from icl_causal.config import fields
from icl_causal.config import parts


def choose(config: Any, changes: Mapping[str, Any]):
  """Replaces the fields of each part that the changes exchange.

  The new part keeps the values of the fields that it shares with the old one.
  Its other fields have no value, until they are set.

  Args:
    config: a ConfigDict, changed in place.
    changes: new values by dotted field names, such as `graph.name`.
  """
  for kind in parts.KINDS.values():
    name = changes.get(f"{kind.group}.{kind.choice}")
    if kind.group not in config or name not in list(kind.table):
      continue  # `build.check` refuses an unknown name
    group, part = config[kind.group], kind.table[name]
    old = kind.table.get(group[kind.choice], parts.Part(part.make))
    with config.unlocked():
      for field in old.fields:
        if field not in part.fields:
          del group[field]
      for field, allowed in part.fields.items():
        if field not in group:
          group[field] = config_dict.placeholder(allowed.type)


def fit_interval(config: Any, changes: Mapping[str, Any]):
  """Fits `train.eval_every` to a change of `train.steps` alone.

  It becomes the largest divisor of the steps that is not above it.
  """
  if "train.steps" not in changes or "train.eval_every" in changes:
    return
  train, count = config.train, fields.at_least(1)
  if fields.holds(count, train.steps) and fields.holds(count, train.eval_every):
    train.eval_every = next(
      divisor
      for divisor in range(train.eval_every, 0, -1)
      if train.steps % divisor == 0
    )
