"""A change of a part replaces its fields; a change of steps, the interval."""

import itertools

import pytest

from configs import single_parent
from icl_causal import config as configs
from icl_causal.config import build
from icl_causal.config import changes
from icl_causal.config import parts
from tests.config.parts_test import VALUES

PAIRS = [
  (kind, old, new)
  for kind, of_kind in parts.KINDS.items()
  for old, new in itertools.permutations(of_kind.table, 2)
]


@pytest.mark.parametrize(("kind", "old", "new"), PAIRS)
def test_every_part_can_replace_every_other(kind, old, new):
  """Its fields are there, shared ones keep their values, others are gone."""
  of_kind = parts.KINDS[kind]
  config = single_parent.get_config()
  group, choice = of_kind.group, f"{of_kind.group}.{of_kind.choice}"
  common = {name: config[group][name] for name in of_kind.common}
  fields = {name: VALUES[name] for name in of_kind.table[old].fields}
  config[group] = {of_kind.choice: old, **common, **fields}

  changes.choose(config, {choice: new})

  names = of_kind.table[new].fields
  shared = {name: fields[name] for name in names if name in fields}
  expected = dict.fromkeys(names) | shared | common | {of_kind.choice: old}
  assert config[group].to_dict() == expected
  config[group].update({name: VALUES[name] for name in names})
  assert config[group].to_dict() == expected | {n: VALUES[n] for n in names}


def test_a_part_is_chosen_with_its_fields():
  kgram = {"graph.name": "kgram", "graph.k": 1}
  config = configs.load(single_parent, **kgram)
  assert config.graph.to_dict() == {"name": "kgram", "T": 20, "k": 1}
  graph = build.graph(config)
  assert graph.parents_TxK[:4, 0].tolist() == [-1, 0, 1, 2]


def test_fields_without_a_value_are_named():
  with pytest.raises(configs.ConfigError) as caught:
    configs.load(single_parent, **{"graph.name": "random_forest"})
  assert "graph.seed (an integer from 0 to" in str(caught.value)
  assert "graph.root_probability (a number from 0 to 1)" in str(caught.value)


def test_a_field_that_the_new_part_lacks_is_refused():
  changed = {"train.optimizer": "sgd", "train.b2": 0.9}
  with pytest.raises(configs.ConfigError, match=r"train\.b2 is not a field"):
    configs.load(single_parent, **changed)


@pytest.mark.parametrize(
  ("steps", "interval"),
  [(2**14, 256), (10, 10), (1000, 250), (509, 1), (512, 256)],
)
def test_the_interval_fits_new_steps(steps, interval):
  config = configs.load(single_parent, **{"train.steps": steps})
  assert config.train.eval_every == interval


def test_an_interval_that_is_given_does_not_change():
  changed = {"train.steps": 1000, "train.eval_every": 256}
  with pytest.raises(configs.ConfigError, match="must be a multiple"):
    configs.load(single_parent, **changed)
