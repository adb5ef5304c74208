"""Small configs, and commands that run whole with them."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

from ml_collections import ConfigDict
import pytest

from configs import many_graphs
from configs import paper
from configs import recipes as recipes_configs
from configs import standard_seeds
from configs import theory
from configs import two_stage
from configs import variants
from experiments import recipes
from experiments.harness import grid
from experiments.harness import smoke
from experiments.harness import suite
from experiments.theory import registry
from icl_causal.config import build

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"


def test_sizes_are_lowered_and_other_fields_stay():
  config = ConfigDict(
    {
      "train": {"steps": 2**14, "batch_size": 8, "learning_rate": 100.0},
      "graph": {"T": 20, "parents": ((0,), (1,), (2,))},
      "T": (16, 32, 64),
      "num_sequences": (100, 1000, 10000),
      "settings": ((3, 0.1, 20, 200),) * 3,
      "sweep": {"grid": {"train": {"b2": (0.9, 0.99, 0.999)}}, "samples": 64},
      "recipes": (("a", {"heads": (1, 1, 1)}, {"steps": 100}),) * 3,
    }
  )
  smoke.shrink(config)
  assert config.to_dict() == {
    "train": {"steps": 16, "batch_size": 8, "learning_rate": 100.0},
    "graph": {"T": 20, "parents": ((0,), (1,), (2,))},
    "T": (16, 32),
    "num_sequences": (100, 256),
    "settings": ((3, 0.1, 20, 200),) * 2,
    "sweep": {"grid": {"train": {"b2": (0.9, 0.99)}}, "samples": 2},
    "recipes": (("a", {"heads": (1, 1, 1)}, {"steps": 16}),) * 3,
  }


@pytest.mark.parametrize("tier", variants.TIERS)
@pytest.mark.parametrize("name", paper.EXPERIMENTS)
def test_small_experiments_are_accepted(name, tier, tmp_path):
  planned = suite.planned(name, tier, 1, tmp_path, small=True)
  assert len(planned) == (2 if name == "forests" else 1)
  for run in planned:
    assert run.config.train.steps == 16
    build.optimizer(run.config, build.model(run.config, run.graph))


@pytest.mark.parametrize("check", theory.CHECKS)
def test_small_checks_are_accepted(check):
  config = theory.get_config(check)
  smoke.shrink(config)
  registry.validate(config)


@pytest.mark.parametrize("task", recipes_configs.TASKS)
def test_small_recipes_are_accepted(task, tmp_path):
  config = recipes_configs.get_config(task)
  smoke.shrink(config)
  for group in recipes.planned(config, tmp_path).values():
    assert len(group) in (2, 4)


@pytest.mark.parametrize(
  "config",
  [
    standard_seeds.get_config(),
    *map(many_graphs.get_config, many_graphs.VARIANTS),
  ],
)
def test_small_sweeps_are_accepted(config, tmp_path):
  smoke.shrink(config)
  assert 2 <= len(grid.every_run(config, tmp_path)) <= 8


@pytest.mark.parametrize("variant", two_stage.VARIANTS)
def test_small_two_stage_training_is_accepted(variant):
  config = two_stage.get_config(variant)
  smoke.shrink(config)
  build.check(config)


def _shown() -> dict[str, list[str]]:
  """The commands of README.md, and two more, by name, with their flags."""
  lines = re.findall(
    r"^    python -m experiments\.(\w+)(.*)$", README.read_text(), re.MULTILINE
  )
  flags = {name: shlex.split(rest, comments=True) for name, rest in lines}
  return {
    "latent": ["--config=configs/selection.py:lags"],
    "diversity": ["--config=configs/diversity.py:forest"],
    **flags,
  }


# Of those that take --smoke, `verify`, `recipes` and `benchmark` take minutes.
@pytest.mark.slow
@pytest.mark.parametrize(
  "command",
  ["train", "sweep", "forests", "figures", "theory", "latent", "diversity"],
)
def test_a_command_of_the_readme_runs_whole(command, tmp_path):
  """Nothing is written outside its run directory."""
  before = _status()
  done = subprocess.run(
    [
      *(sys.executable, "-m", f"experiments.{command}", *_shown()[command]),
      *("--smoke", f"--workdir={tmp_path / 'run'}"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    env={**os.environ, "PYTHONWARNINGS": "error"},
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout
  assert _status() == before


def _status() -> str:
  return subprocess.run(
    ["git", "status", "--porcelain", "results", "docs"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
