"""The rules of the layout: who may import whom, and where names stand."""

import ast
import importlib
import pathlib

import pytest

from icl_causal.config import parts

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = [
  path
  for folder in ("icl_causal", "experiments", "configs")
  for path in sorted((ROOT / folder).rglob("*.py"))
]
COMMANDS = {
  f"experiments.{path.stem}"
  for path in (ROOT / "experiments").glob("*.py")
  if path.stem != "__init__"
} | {
  f"experiments.{path.parent.name}.__main__"
  for path in (ROOT / "experiments").glob("*/__main__.py")
}
SCIENCE = [*(ROOT / "icl_causal").glob("*.py")]
SCIENCE += (ROOT / "icl_causal" / "analysis").glob("*.py")


def _name(path: pathlib.Path) -> str:
  return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports(path: pathlib.Path) -> set[str]:
  """The dotted names of all modules and members that a file imports."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
      names.add(str(node.module))
  return names


def _is_command(path: pathlib.Path) -> bool:
  return 'if __name__ == "__main__":' in path.read_text()


def test_files_directly_in_experiments_are_commands():
  for name in COMMANDS:
    path = ROOT / (name.replace(".", "/") + ".py")
    assert _is_command(path), path
  assert {"experiments.train", "experiments.sweep.__main__"} <= COMMANDS


def test_only_commands_can_be_run():
  runnable = {_name(path) for path in SOURCES if _is_command(path)}
  assert runnable == COMMANDS


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_module_can_be_imported(path):
  importlib.import_module(_name(path).removesuffix(".__init__"))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_nothing_imports_a_command(path):
  assert not _imports(path) & COMMANDS


@pytest.mark.parametrize("path", SCIENCE, ids=_name)
def test_science_imports_no_config_run_or_picture(path):
  others = ("config", "runs", "plotting", "report")
  forbidden = tuple(f"icl_causal.{name}" for name in others)
  assert not [n for n in _imports(path) if n.startswith(forbidden)]


@pytest.mark.parametrize(
  "path", [p for p in SOURCES if "icl_causal" in p.parts], ids=_name
)
def test_the_library_does_not_import_the_commands(path):
  for name in _imports(path):
    assert not name.startswith(("experiments", "configs", "absl"))


def test_only_plotting_draws_and_only_runs_writes():
  """Other modules may import a Figure as a type."""
  for path in SOURCES:
    parent = path.parent.name
    if parent != "plotting":
      drawing = [n for n in _imports(path) if n.startswith("matplotlib")]
      assert set(drawing) <= {"matplotlib.figure", "matplotlib.figure.Figure"}
    if "icl_causal" in path.parts and parent != "runs":
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
          function = ast.unparse(node.func)
          assert function != "open", path
          writes = function.endswith(("write_text", "write_bytes", "savefig"))
          assert not writes or function.startswith("runs."), path


@pytest.mark.parametrize("kind", ["model", "optimizer"])
def test_names_of_a_config_stand_in_the_table_alone(kind):
  folder = ROOT / "icl_causal" / "config"
  tables = (folder / "parts.py", folder / "optimizer_parts.py")
  for path in SOURCES:
    if path in tables or path.parent.name == "configs":
      continue
    constants = {
      node.value
      for node in ast.walk(ast.parse(path.read_text()))
      if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not constants & set(parts.KINDS[kind].table), path


def test_functions_and_modules_are_short():
  for path in SOURCES:
    text = path.read_text()
    assert text.count("\n") <= 350, path
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef):
        length = (node.end_lineno or 0) - node.lineno + 1
        assert length <= 70, f"{path}: {node.name} has {length} lines"


def test_one_function_loops_over_checkpoints():
  """`loop.train` alone saves states."""
  savers = {
    _name(path) for path in SOURCES if "runs.save_state(" in path.read_text()
  }
  assert savers == {"experiments.harness.loop"}
