import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import pytest

import icl_causal
from icl_causal import runs
from icl_causal.config import record
from icl_causal.runs import environment


def test_environment_has_versions_devices_and_revision():
  made = environment.environment()
  assert made["icl_causal"] == icl_causal.__version__
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


def _git(folder: pathlib.Path, *arguments: str) -> str:
  command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
  return subprocess.check_output(command, cwd=folder, text=True).strip()


def _commit(folder: pathlib.Path) -> str:
  """The revision of a new repository with the files of the folder."""
  _git(folder, "init", "--quiet")
  _git(folder, "add", ".")
  _git(folder, "commit", "--quiet", "--message=all")
  return _git(folder, "rev-parse", "HEAD")


def _copy(folder: pathlib.Path):
  """The module, imported from a copy of its file in the folder."""
  path = folder / "icl_causal/runs/environment.py"
  if not path.exists():
    path.parent.mkdir(parents=True)
    shutil.copy(environment.__file__, path)
  spec = importlib.util.spec_from_file_location("a_copy", path)
  assert spec
  assert spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _install(folder: pathlib.Path, source: dict | None, monkeypatch):
  """Adds the metadata that pip writes, and the folder to sys.path."""
  metadata = folder / "icl_causal-9.9.dist-info"
  metadata.mkdir(parents=True)
  (metadata / "METADATA").write_text("Name: icl-causal\nVersion: 9.9\n")
  if source is not None:
    (metadata / "direct_url.json").write_text(json.dumps(source))
  monkeypatch.syspath_prepend(folder)


@pytest.fixture
def project(tmp_path):
  """A user's repository, which ignores its environment."""
  (tmp_path / ".gitignore").write_text(".venv/\n")
  _commit(tmp_path)
  return tmp_path


@pytest.mark.parametrize(
  ("source", "revision"),
  [
    (None, None),  # from an index
    ({"url": "file:///a.whl", "archive_info": {}}, None),
    ({"url": "file:///a", "dir_info": {}}, None),
    ({"url": "https://a", "vcs_info": {"vcs": "git", "commit_id": "f"}}, "f"),
  ],
)
def test_the_revision_of_an_installation_is_the_one_that_pip_records(
  project, monkeypatch, source, revision
):
  folder = project / ".venv/site-packages"
  _install(folder, source, monkeypatch)
  assert _copy(folder)._git_revision() == revision


def test_a_clone_has_its_own_revision_whatever_is_installed(
  tmp_path, monkeypatch
):
  installed = {"url": "https://a", "vcs_info": {"commit_id": "f"}}
  _install(tmp_path / "site-packages", installed, monkeypatch)
  clone = tmp_path / "clone"
  _copy(clone)
  revision = _commit(clone)
  assert _copy(clone)._git_revision() == revision
  with (clone / "icl_causal/runs/environment.py").open("a") as file:
    file.write("# a change\n")
  assert _copy(clone)._git_revision() == revision + "+"


def test_files_that_no_repository_tracks_have_no_revision(project, monkeypatch):
  installed = {"url": "https://a", "vcs_info": {"commit_id": "f"}}
  _install(project / "site-packages", installed, monkeypatch)
  assert _copy(project / "unpacked")._git_revision() is None


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
