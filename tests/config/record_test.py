import json

import pytest

from configs import several_parents
from icl_causal.config import record

CONFIG = {"seed": 0, "graph": {"name": "chain", "T": 5}, "heads": (1, 1)}


def test_equal_configs_have_one_text_and_one_digest():
  reordered = {"heads": [1, 1], "graph": {"T": 5, "name": "chain"}, "seed": 0}
  assert record.canonical(CONFIG) == record.canonical(reordered)
  assert record.digest(CONFIG) == record.digest(reordered)
  assert record.digest(CONFIG) != record.digest(CONFIG | {"seed": 1})
  with pytest.raises(ValueError, match="JSON compliant"):
    record.canonical({"loss": float("nan")})


def test_flatten_joins_names_with_dots():
  nested = {"a": 1, "b": {"c": (2, 3), "d": {"e": None}}, "empty": {}}
  assert record.flatten(nested) == {
    "a": 1,
    "b.c": (2, 3),
    "b.d.e": None,
    "empty": {},
  }


def test_config_survives_a_round_trip_through_json():
  config = several_parents.get_config("three")
  text = record.canonical(config.to_dict())
  read = record.from_record(json.loads(text))
  assert read.to_dict() == config.to_dict()
  assert read.graph.parents[3] == (0, 1, 2)
  assert record.digest(read.to_dict()) == record.digest(config.to_dict())
