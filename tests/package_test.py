"""The distributions, and an installed wheel outside the source tree."""

import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile

import pytest

from tests.support import recorded_run

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = re.findall(
  r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_DESCRIBE = """
import json
import icl_causal
from icl_causal.runs import environment
made = environment.environment()
print(json.dumps([icl_causal.__file__, icl_causal.__version__, made]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  """(wheel, source distribution)."""
  folder = tmp_path_factory.mktemp("dist")
  command = [sys.executable, "-m", "hatchling", "build", "-d", folder]
  subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
  (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
  return wheel, sdist


@pytest.fixture(scope="module")
def user(built, tmp_path_factory):
  """A user's repository whose environment, in .venv, has the wheel.

  The environment borrows the packages of this one. They come after its own, and
  without the .pth file of an editable installation.
  """
  folder = tmp_path_factory.mktemp("user")
  venv.create(folder / ".venv")
  (packages,) = (folder / ".venv").glob("lib/python*/site-packages")
  (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
  pip = [sys.executable, "-m", "pip", "--python", folder / ".venv"]
  install = ["install", "--no-deps", "--no-index", "--no-cache-dir", built[0]]
  subprocess.run([*pip, *install], check=True, capture_output=True)
  recorded_run.write(folder / "runs/demo", T=20, S=10, heads=1)
  (folder / ".gitignore").write_text(".venv/\nruns/\n")
  git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
  for arguments in (["init"], ["add", "."], ["commit", "--message=first"]):
    command = [*git, *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
  return folder


def _python(user: pathlib.Path, code: str) -> str:
  """What the code prints in the environment of the user."""
  variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  done = subprocess.run(
    [user / ".venv/bin/python", "-W", "error", "-c", code],
    cwd=user,
    env=variables | {"JAX_NUMPY_RANK_PROMOTION": "raise"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_the_wheel_has_the_package_and_nothing_else(built):
  names = set(zipfile.ZipFile(built[0]).namelist())
  metadata = f"icl_causal-{PROJECT['version']}.dist-info/"
  package = {name for name in names if not name.startswith(metadata)}
  assert package == {
    str(path.relative_to(ROOT))
    for path in (ROOT / "icl_causal").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
  }
  assert "icl_causal/py.typed" in package


def test_the_source_distribution_is_small_and_has_no_results(built):
  assert built[1].stat().st_size < 400_000
  with tarfile.open(built[1]) as archive:
    paths = [pathlib.PurePath(name).parts[1:] for name in archive.getnames()]
  assert {path[0] for path in paths} == {
    *(".gitignore", "CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile"),
    *("PKG-INFO", "README.md", "configs", "experiments", "icl_causal"),
    *("pyproject.toml", "requirements.lock"),
  }
  suffixes = {pathlib.PurePath(path[-1]).suffix for path in paths}
  assert not suffixes & {".csv", ".json", ".jsonl", ".npz", ".pdf", ".png"}


def test_the_citation_is_of_this_version():
  citation = (ROOT / "CITATION.cff").read_text()
  assert f"\nversion: {PROJECT['version']}\n" in citation
  assert f"\nlicense: {PROJECT['license']}\n" in citation


def test_an_installed_wheel_knows_its_version_and_no_revision(user):
  file, version, made = json.loads(_python(user, _DESCRIBE))
  assert pathlib.Path(file).is_relative_to(user / ".venv")
  assert version == made["icl_causal"] == PROJECT["version"]
  assert made["git_revision"] is None


def test_there_are_three_examples_of_at_most_15_lines():
  assert len(EXAMPLES) == 3
  for example in EXAMPLES:
    assert len([line for line in example.splitlines() if line.strip()]) <= 15


def test_the_first_example_of_the_readme_finds_all_edges(user):
  assert _python(user, EXAMPLES[0]).startswith("4 of 4 edges, ")


def test_the_second_example_of_the_readme_opens_a_run_in_four_lines(user):
  statements = [line for line in EXAMPLES[1].splitlines() if line]
  assert len(statements) == 4
  printed = _python(
    user, EXAMPLES[1].replace("print(", "print(law_BxS.shape, ")
  )
  assert printed.startswith("(8, 10) [")


def test_the_third_example_of_the_readme_finds_all_parents(user):
  output = _python(user, EXAMPLES[2])
  recovered, edges = re.findall(r"tops (\d+) of (\d+) rows", output)[0]
  assert recovered == edges
  assert output.endswith("[]\n")  # no violations


@pytest.mark.parametrize("is_named", [True, False])
def test_compiled_programs_are_kept_on_disk(is_named, tmp_path):
  """In a folder by name, or in the user's cache folder."""
  script = (
    "import sys, icl_causal; "
    "icl_causal.enable_compile_cache(*sys.argv[1:]); "
    "import jax; print(jax.jit(lambda x: x + 1)(1.0))"
  )
  named = [str(tmp_path / "named")] if is_named else []
  environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  done = subprocess.run(
    [sys.executable, "-c", script, *named],
    env=environment | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
    capture_output=True,
    text=True,
  )
  assert done.stdout == "2.0\n", done.stderr
  folder = tmp_path / ("named" if is_named else "icl_causal/jax")
  assert list(folder.glob("jit*-cache"))
