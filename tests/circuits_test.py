"""The command that measures the circuit of a run."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from configs import several_parents
from configs import single_parent
from configs import standard
from experiments import circuits
from experiments.harness import app
from icl_causal import runs
from tests.support import recorded_run

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]


def _circuits(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.circuits", *arguments],
    cwd=ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_a_run_gets_a_record_figures_and_a_page(tmp_path):
  workdir = tmp_path / "run"
  recorded_run.write(workdir, T=6, S=3, heads=1)
  done = _circuits(f"--workdir={workdir}", "--num_prompts=64")
  assert done.returncode == 0, done.stderr
  assert "token 2.1 > next token" in done.stdout
  assert "token alone, edge posterior" in done.stdout
  found = runs.read_circuits(workdir, 6)
  assert found is not None
  assert (found["step"], found["prompts"]) == (32, 64)
  for name in ("patches", "gauge_fixed"):
    assert (workdir / f"figures/{name}.png").exists()
  text = (workdir / "report.html").read_text()
  _, _, rest = text.partition('type="application/json">')
  shown = json.loads(rest.partition("</script>")[0])["circuits"]
  assert shown["text"].startswith("On 64 prompts")
  # Its parameters are zero, so no patch changes anything.
  changes = np.array(found["patches"]["token alone"], float)
  np.testing.assert_array_equal(np.isnan(changes), ~_pairs(6))
  np.testing.assert_allclose(changes[_pairs(6)], 0, atol=1e-6)
  assert (np.array(found["patches"]["edge posterior"], float) != 0).any()


def _pairs(T):
  pairs = np.tri(T, k=-1, dtype=bool)
  pairs[-1] = False
  return pairs


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "--workdir is missing"),
    (["--workdir=none"], "none does not exist: no run has been there"),
    (["--workdir=tests"], "tests has no config.json"),
  ],
)
def test_refused(arguments, message):
  done = _circuits(*arguments)
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: {message}")
  assert done.stderr.count("\n") == 1


def test_prompts_are_a_multiple_of_the_groups(tmp_path):
  recorded_run.write(tmp_path / "run", T=6, S=3, heads=1)
  done = _circuits(f"--workdir={tmp_path}/run", "--num_prompts=100")
  assert done.returncode == 2
  assert "--num_prompts=100 must be a multiple of 64" in done.stderr


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (single_parent.get_config("chain"), "is not finished"),
    (standard.get_config("chain"), "is not finished"),
    (several_parents.get_config("half"), "is not finished"),
  ],
)
def test_unfinished_runs_are_refused(config, message, tmp_path):
  runs.prepare(tmp_path, config.to_dict(), overwrite=False)
  with pytest.raises(app.Refused, match=message):
    circuits.check(runs.load(tmp_path))


def test_other_heads_are_refused_with_the_run(tmp_path):
  recorded_run.write(tmp_path / "run", T=6, S=3, heads=2)
  with pytest.raises(app.Refused, match="one head in each of two layers") as e:
    circuits.check(runs.load(tmp_path / "run"))
  assert str(e.value).startswith(f"{tmp_path}/run: ")
