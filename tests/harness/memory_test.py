"""Sizes are estimated and refused before anything is allocated."""

import pathlib
import resource
import subprocess
import sys

import pytest

from configs import several_parents
from configs import single_parent
from experiments.harness import grid
from experiments.harness import memory
from icl_causal import config as configs
from icl_causal import sampling
from icl_causal.config import build

ROOT = pathlib.Path(__file__).parents[2]
PEAK = """
import pathlib
import jax
from configs import latent, several_parents, single_parent
from experiments.harness import batches, grid, memory
from icl_causal import config as configs
from icl_causal.config import build

changes = {"eval.posterior_prompts": 0, "train.batch_size": 64} | CHANGES
config = configs.load(MODULE, **changes)
run = grid.Run(config, build.graph(config), {}, pathlib.Path("none"))
jax.jit(lambda x: x + 1)(1.0)
# Of this program; ru_maxrss starts at the peak of the process that forked it.
status = pathlib.Path("/proc/self/status")
used = lambda: 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
before = used()
trainer = batches.stacked([run] * NUM, 1)
trainer.evaluate(trainer.start, 1)
print(memory.needed([run] * NUM), used() - before)
"""


def _run(module=single_parent, variant="chain", **changes):
  config = configs.load(module, variant, **changes)
  return grid.Run(config, build.graph(config), {}, pathlib.Path("none"))


@pytest.mark.parametrize(
  "changes",
  [
    {"eval.test_size": 10**8, "eval.batch_size": 10**4},
    {"train.batch_size": 10**8},
    {"graph.T": 100_000},
    {"prior.S": 20_000},
  ],
)
def test_too_large_is_refused_with_the_estimate(changes, monkeypatch):
  monkeypatch.setattr(memory, "available", lambda: 2**35)
  with pytest.raises(configs.ConfigError, match="GiB of memory, and there are"):
    memory.check([_run(**changes)])
  memory.check([_run()])


def test_rows_that_no_prompt_visits_need_no_memory(monkeypatch):
  """With 50 states and four parents, a kernel has 6.8 million rows."""
  changes = {"graph.k": 4, "prior.S": 50, "model.heads": (4, 1)}
  run = _run(several_parents, "bigram", **changes)
  monkeypatch.setattr(memory, "available", lambda: 2**33)
  memory.check([run])
  run.config.prior.root_law = "uniform"
  memory.check([run])
  monkeypatch.setattr(sampling, "visits_rows", lambda *arguments: False)
  with pytest.raises(configs.ConfigError, match="GiB of memory, and there are"):
    memory.check([run])


@pytest.mark.parametrize("name", ["train.batch_size", "train.steps", "prior.S"])
def test_numbers_of_more_than_31_bits_are_refused(name):
  with pytest.raises(configs.ConfigError, match=r"below 2\*\*31"):
    _run(**{name: 2**33})


@pytest.mark.slow
@pytest.mark.parametrize(
  ("module", "changes", "num"),
  [
    ('single_parent, "chain"', {"eval.test_size": 2**17}, 1),
    (
      'single_parent, "chain"',
      {"graph.T": 1500, "prior.S": 3, "eval.test_size": 64},
      1,
    ),
    (
      'several_parents, "bigram"',
      {
        "graph.k": 3,
        "prior.S": 10,
        "model.heads": (3, 1),
        "eval.test_size": 2**15,
      },
      1,
    ),
    (
      'latent, "fresh"',
      {"graph.T": 128, "model.heads": (1, 1), "eval.test_size": 2**12},
      1,
    ),
  ],
)
def test_estimate_against_the_measured_peak(module, changes, num):
  """Within a factor of two, apart from 200 MiB of compiled programs."""
  changes = {"eval.batch_size": 64} | changes
  script = PEAK.replace("CHANGES", repr(changes)).replace("NUM", str(num))
  script = script.replace("MODULE", module)
  done = subprocess.run(
    [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
  )
  needed, measured = map(int, done.stdout.split())
  assert needed / 2 <= measured <= 2 * needed + 200 * 2**20


def test_the_limit_of_the_process_counts(monkeypatch):
  before = memory.available()
  monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**20, 2**20))
  assert memory.available() == int(0.9 * 2**20) < before
  monkeypatch.setattr(memory, "_of_cgroups", lambda: [2**19])
  assert memory.available() == int(0.9 * 2**19)
