"""The locks: every requirement has hashes, and none names an address."""

import pathlib
import re
import tomllib

from packaging import requirements
from packaging import version
import pytest

ROOT = pathlib.Path(__file__).parents[1]
DEMO, DEV = "requirements.lock", "requirements-dev.lock"
DOCS = "requirements-docs.lock"
# All of its releases are pre-releases.
_PRE_RELEASE = "sphinx-basic-ng"
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def _entries(name: str) -> list[tuple[requirements.Requirement, list[str]]]:
  """Each requirement of a lock, with its options."""
  text = (ROOT / name).read_text().replace("\\\n", " ")
  entries = []
  for line in text.splitlines():
    requirement, *options = re.split(r"\s+(?=--)", line.strip())
    entries.append((requirements.Requirement(requirement), options))
  return entries


@pytest.mark.parametrize("name", [DEMO, DEV, DOCS])
def test_every_requirement_has_one_version_and_hashes(name):
  for requirement, options in _entries(name):
    (pin,) = requirement.specifier
    assert pin.operator == "=="
    if requirement.name != _PRE_RELEASE:
      assert not version.Version(pin.version).is_prerelease, requirement
    assert options, requirement
    assert all(map(_HASH.fullmatch, options)), requirement


@pytest.mark.parametrize("name", [DEMO, DEV, DOCS])
def test_a_lock_has_no_addresses(name):
  text = (ROOT / name).read_text()
  assert "://" not in text
  assert not re.search(r"^\s*(-|#)(?!-hash)", text, re.MULTILINE)


@pytest.mark.parametrize("name", [DEV, DOCS])
def test_the_demo_has_the_versions_of_the_other_locks(name):
  demo, other = ({str(r): o for r, o in _entries(n)} for n in (DEMO, name))
  assert demo.items() <= other.items()
  assert len(demo) < 0.7 * len(other)


@pytest.mark.parametrize(
  ("name", "extras"),
  [(DEMO, ("build",)), (DEV, ("build", "dev")), (DOCS, ("build", "docs"))],
)
def test_a_lock_has_what_the_project_declares(name, extras):
  with (ROOT / "pyproject.toml").open("rb") as file:
    project = tomllib.load(file)["project"]
  declared = [*project["dependencies"]]
  for extra in extras:
    declared += project["optional-dependencies"][extra]
  locked: dict[str, list[str]] = {}
  for requirement, _ in _entries(name):
    (pin,) = requirement.specifier
    locked.setdefault(requirement.name.lower(), []).append(pin.version)
  for requirement in map(requirements.Requirement, declared):
    versions = locked[requirement.name.lower()]
    assert all(v in requirement.specifier for v in versions), requirement
