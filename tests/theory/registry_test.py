"""Fields of the theory checks, and how a check is run and read back."""

import pathlib
import types

from ml_collections import ConfigDict
from PIL import Image
import pytest

from configs import theory
from experiments.theory import outcome
from experiments.theory import registry
from icl_causal import runs
from icl_causal.config import fields


@pytest.mark.parametrize(
  ("check", "field", "value", "message"),
  [
    ("information", "S", (3, 1), r"S = \(3, 1\): must be a tuple of one or mo"),
    ("information", "num_forests", 7, "num_forests = 7: must be a multiple of"),
    (
      "estimates",
      "priors",
      ((0.1,),),
      r"priors = \(\(0.1,\),\): must be a tup",
    ),
    (
      "estimates",
      "num_kernels",
      1,
      "num_kernels = 1: must be an integer of at",
    ),
    ("gradient", "cases", (), r"cases = \(\): must be a tuple of one or more"),
    ("gradient", "num_prompts", 100, "num_prompts = 100: must be a multiple"),
    ("gradient", "num_prompts", 256, "num_prompts = 256: must be at least twi"),
    ("roots", "num_graphs", 0, "num_graphs = 0: must be an integer of at leas"),
    ("pooled", "alpha", 0.0, "alpha = 0.0: must be a number from 1e-06 to"),
    ("pooled", "heads", 2, "heads is not a field of this experiment"),
    ("theorems", "num_runs", 1, "num_runs = 1: must be an integer of at least"),
    ("theorems", "T", (16,), r"T = \(16,\): must be two or more numbers in in"),
    ("theorems", "T", (32, 16), r"T = \(32, 16\): must be two or more numbers"),
    ("assumptions", "cases", ((3, 1.0, 1.0),), r"cases = \(\(3, 1.0, 1.0\),"),
    ("theorems", "gamma", 1.5, "gamma = 1.5: must be a number from 0 to 1"),
    ("roots", "check", "root", "check = 'root': must be one of information, "),
    ("roots", "seed", -1, "seed = -1: must be an integer from 0 to"),
  ],
)
def test_fields_of_theory(check, field, value, message):
  config = theory.get_config(check).unlock()
  registry.validate(config)
  config[field] = value
  with pytest.raises(fields.ConfigError, match="^" + message):
    registry.validate(config)


@pytest.mark.parametrize("check", theory.CHECKS)
def test_theory_reads_what_its_config_holds(check):
  registry.validate(theory.get_config(check))


def test_every_check_of_the_folder_has_a_config():
  folder = pathlib.Path(__file__).parents[2] / "experiments" / "theory"
  files = {p.stem for p in folder.glob("*.py") if "\nFIELDS" in p.read_text()}
  assert files == set(theory.CHECKS)


def _coin(monkeypatch) -> list:
  """Adds a toy check, as CONTRIBUTING's recipe does; returns its calls.

  It stands for a file experiments/theory/coin.py and its config.
  """
  calls = []

  def needs_even(config):
    if config.tosses % 2:
      return f"tosses = {config.tosses}: must be even"
    return None

  def check(config):
    calls.append(config.tosses)
    rows = [["fair", config.tosses, config.tosses * config.probability]]
    return outcome.Outcome(["coin", "tosses", "heads"], rows, None)

  coin = types.SimpleNamespace(
    FIELDS={"tosses": fields.at_least(1), "probability": fields.SHARE},
    NEEDS=(needs_even,),
    check=check,
  )
  monkeypatch.setitem(registry.CHECKS, "coin", coin)
  return calls


def _coin_config(**changes) -> ConfigDict:
  defaults = {"check": "coin", "seed": 0, "tosses": 4, "probability": 0.5}
  return ConfigDict(defaults | changes)


def test_add_a_theory_check(monkeypatch, tmp_path):
  calls = _coin(monkeypatch)
  config = _coin_config()
  registry.validate(config)
  result = registry.result(config, tmp_path / "coin")
  assert result["header"] == ["coin", "tosses", "heads"]
  assert result["rows"] == [["fair", 4, 2.0]]
  assert result["wall_seconds"] >= 0
  assert runs.read_result(tmp_path / "coin", {"header": list}) == result
  assert not (tmp_path / "coin" / "figures").exists()

  assert registry.result(config, tmp_path / "coin") == result
  assert calls == [4]
  registry.result(config, tmp_path / "coin", overwrite=True)
  assert calls == [4, 4]


def test_a_recorded_result_is_read_for_its_config_only(tmp_path):
  config = _coin_config(probability=(0.5, 0.25))
  assert registry.read_recorded(tmp_path, config) is None
  result = {"header": ["a", "b"], "rows": [["x", 0.1], ["-", 2]]}
  result["wall_seconds"] = 1.5
  registry.write_recorded(tmp_path, config, result)
  assert registry.read_recorded(tmp_path, config) == result
  assert registry.read_recorded(tmp_path, _coin_config()) is None
  lines = (tmp_path / "theory/coin.jsonl").read_text().splitlines()
  assert lines[1:] == ['["x", 0.1]', '["-", 2]']


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"tosses": 0}, "tosses = 0: must be an integer of at least 1"),
    ({"tosses": 3}, "tosses = 3: must be even"),
    ({"sides": 2}, "sides is not a field of this experiment"),
  ],
)
def test_refused_configs_of_an_added_check(monkeypatch, changes, message):
  _coin(monkeypatch)
  with pytest.raises(fields.ConfigError, match="^" + message):
    registry.validate(_coin_config(**changes))


def test_a_figure_is_copied_beside_the_result(tmp_path):
  config = _coin_config()
  registry.copy_figure(tmp_path, config, tmp_path / "none")
  assert not list(tmp_path.rglob("*.png"))
  figures = tmp_path / "workdir" / "figures"
  figures.mkdir(parents=True)
  color = (200, 30, 60)
  Image.new("RGBA", (3, 2), (*color, 255)).save(figures / "coin.png")
  registry.write_recorded(tmp_path, config, {"header": [], "rows": []})
  registry.copy_figure(tmp_path, config, tmp_path / "workdir")
  with Image.open(tmp_path / "theory" / "coin.png") as copied:
    assert copied.size == (3, 2)
    assert copied.mode == "P"
    assert copied.convert("RGB").getpixel((0, 0)) == color
