"""The sources of the documentation; `make docs` builds and executes it."""

import importlib.util
import pathlib
import pkgutil
import re

import pytest

import icl_causal

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
  path for path in DOCS.rglob("*.md") if "_build" not in path.parts
)
NOTEBOOKS = [page for page in PAGES if "{code-cell}" in page.read_text()]
_TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
_MODULE = re.compile(r"python -m ((?:experiments|tests)[\w.]*)")
_CONFIG = re.compile(r"--config=configs/(\w+)\.py(?::([\w,]*))?")


def _name(path: pathlib.Path) -> str:
  return path.relative_to(DOCS).with_suffix("").as_posix()


def _offline():
  spec = importlib.util.spec_from_file_location("offline", DOCS / "offline.py")
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_every_page_is_in_one_table_of_contents():
  listed = [
    _name((page.parent / line).resolve())
    for page in PAGES
    for block in _TOCTREE.findall(page.read_text())
    for line in block.splitlines()
    if line and not line.startswith(":")
  ]
  assert sorted(listed) == [_name(p) for p in PAGES if _name(p) != "index"]


def test_the_pages_that_are_promised_are_executed():
  how_to = ("graph", "prior", "model", "sweep", "cluster", "figure")
  promised = {"tutorial", "reading_a_run", *(f"howto/{p}" for p in how_to)}
  assert promised <= {_name(page) for page in NOTEBOOKS}


@pytest.mark.parametrize("page", NOTEBOOKS, ids=_name)
def test_a_notebook_opens_in_jupyter(page):
  _, front, _ = page.read_text().split("---\n", 2)
  assert "format_name: myst" in front
  assert "name: python3" in front


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_name_modules_and_configs_that_exist(page):
  text = page.read_text()
  for module in _MODULE.findall(text):
    assert importlib.util.find_spec(module.rstrip(".")), module
  for name, variant in _CONFIG.findall(text):
    if name == "NAME":
      continue
    assert (ROOT / f"configs/{name}.py").exists(), name
    if not variant.isupper():
      config = importlib.import_module(f"configs.{name}")
      config.get_config(*([variant] if variant else []))


def test_every_module_is_in_the_api():
  modules = {
    module.name
    for module in pkgutil.walk_packages(icl_causal.__path__, "icl_causal.")
  } - {f"icl_causal.{name}" for name in ("analysis", "plotting", "report")}
  listed = re.findall(
    r"automodule:: (\S+)",
    "".join(page.read_text() for page in (DOCS / "api").glob("*.md")),
  )
  assert sorted(listed) == sorted(modules)


@pytest.mark.parametrize(
  ("page", "loaded"),
  [
    ('<script src="https://a.b/c.js"></script>', ["https://a.b/c.js"]),
    ('<link rel="stylesheet" href="//a.b/c.css">', ["//a.b/c.css"]),
    ('<img src="HTTP://a.b/c.png">', ["HTTP://a.b/c.png"]),
    ("<style>@import 'https://a.b/c.css';</style>", ["https://a.b/c.css"]),
    ("<p style='background: url(http://a.b/c)'>", ["http://a.b/c"]),
    ('<a href="https://a.b">a link</a><img src="c.png">', []),
    ('<link rel="canonical" href="https://a.b">', []),
  ],
)
def test_what_a_page_loads_from_the_network(page, loaded):
  """`make docs` applies this to every page that it builds."""
  assert _offline().in_html(page) == loaded
