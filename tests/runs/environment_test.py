import re
import sys

import jax

from icl_causal import runs
from icl_causal.config import record
from icl_causal.runs import environment


def test_environment_has_versions_devices_and_revision():
  made = environment.environment()
  assert made["icl_causal"] == environment.version()
  assert made["format"] == environment.FORMAT
  assert made["versions"]["jax"] == jax.__version__
  assert set(made["versions"]) >= {"jaxlib", "flax", "optax", "numpy"}
  assert made["backend"] == jax.default_backend()
  assert len(made["devices"]) == jax.device_count()
  assert made["processes"] == 1
  assert made["command"] == sys.argv
  assert made["git_revision"] is None or re.fullmatch(
    r"[0-9a-f]{40}\+?", made["git_revision"]
  )
  record.canonical(made)


def test_without_git_there_is_no_revision(monkeypatch):
  monkeypatch.setenv("PATH", "")
  environment._git_revision.cache_clear()
  assert environment.environment()["git_revision"] is None
  environment._git_revision.cache_clear()


def test_a_run_that_resumes_elsewhere_says_so_once(
  tmp_path, monkeypatch, capsys
):
  config, here = {"seed": 0}, environment.machine()
  workdirs = [tmp_path / "a", tmp_path / "b"]

  def prepare():
    for workdir in workdirs:
      runs.prepare(workdir, config, overwrite=False)
    return capsys.readouterr().err

  assert prepare() == ""
  assert prepare() == ""
  versions = here["versions"] | {"jax": "0.0.1"}
  there = here | {"devices": ["cpu"] * 7, "versions": versions}
  monkeypatch.setattr(environment, "machine", lambda: there)
  assert prepare() == (
    f"warning: a run resumes elsewhere (versions.jax was {jax.__version__} and "
    f"is 0.0.1, devices was {here['devices']} and is {there['devices']}): "
    "numbers may differ from those of an uninterrupted run in the last digits\n"
  )
  assert prepare() == ""
  for workdir in workdirs:
    made = runs.read_environment(workdir)
    assert made["devices"] == here["devices"]
    assert made["resumed"] == [there]
