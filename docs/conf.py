"""Sphinx configuration of the documentation; `make docs` builds it."""

import collections
import logging
import os
import pathlib
import re
import sys

from docutils import nodes
from latex2mathml import converter
from sphinx import errors
from sphinx.util import nodes as sphinx_nodes

sys.path.insert(0, os.path.dirname(__file__))
import offline

ROOT = pathlib.Path(__file__).parents[1]
BUILD = ROOT / "docs" / "_build"

# Read by the kernels that execute the pages, and by the commands in them.
os.environ["PATH"] = os.pathsep.join(
  [os.path.dirname(sys.executable), os.environ["PATH"]]
)
os.environ.update(
  JAX_COMPILATION_CACHE_DIR=str(BUILD / "compiled"),
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
  JAX_PLATFORMS="cpu",
  JAX_NUM_CPU_DEVICES="1",  # the same sums on every machine
  # The programs of the pages are small: compiling them takes most of the time.
  XLA_FLAGS="--xla_backend_optimization_level=0 "
  "--xla_llvm_disable_expensive_passes=true",
  IPYTHONDIR=str(BUILD / "ipython"),
  MPLCONFIGDIR=str(BUILD / "matplotlib"),
)

(BUILD / "extra").mkdir(parents=True, exist_ok=True)

# Kernels would warn on the terminal that their connection is not encrypted, and
# would send the output of a cell in parts.
_profile = BUILD / "ipython" / "profile_default"
_profile.mkdir(parents=True, exist_ok=True)
(_profile / "ipython_kernel_config.py").write_text(
  'get_config().IPKernelApp.log_level = "ERROR"\n'
  "get_config().InteractiveShellApp.exec_lines = "
  "['__import__(\"sys\").stdout.flush_interval = 60']\n"
)

for _name in ("traitlets", "matplotlib"):  # their progress
  logging.getLogger(_name).setLevel(logging.WARNING)

project = "icl_causal"
author = "the icl_causal authors"
project_copyright = ""
html_title = "icl_causal"

extensions = [
  "myst_nb",
  "sphinx.ext.autodoc",
  "sphinx.ext.napoleon",
  "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "benchmark", "demo", "recipes/*"]
smartquotes = False  # would change -- in commands
nitpicky = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

nb_execution_mode = "force"
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True

html_theme = "furo"
html_static_path = ["_static"]
html_extra_path = ["_build/extra"]  # pages of runs, which the notebooks write
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "special-members": "__call__"}
default_role = "py:obj"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 76
toc_object_entries_show_parents = "hide"

# Other projects are not linked, because the build makes no network request.
_OTHERS = "jax|flax|numpy|optax|chex|matplotlib|ml_collections|collections"
_OTHERS += "|pathlib|types|typing|contextlib"
nitpick_ignore_regex = [
  ("py:.*", rf"({_OTHERS})(\..*)?"),
  ("py:class", r"Figure|ArrayTree|.*\.checkpoints\.State|<class 'int'>"),
  ("py:class", r"int \| float}"),
]

# Where a docstring may leave out the first part of a name.
_PREFIXES = ("icl_causal.", "icl_causal.analysis.", "icl_causal.config.")


def setup(app):
  """Connects the handlers below."""
  app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
  app.connect("source-read", _fill)
  app.connect("autodoc-process-docstring", _mark_code, priority=400)
  app.connect("autodoc-process-signature", _shorten)
  app.connect("autodoc-skip-member", _skip_fields)
  app.connect("missing-reference", _resolve)
  app.connect("build-finished", _check_offline)


def _fill(app, docname, source):
  """Links the configs to their page, and fills in rows of the results."""
  del app
  page = "../configs.md" if "/" in docname else "configs.md"
  text = source[0].replace("](../configs)", f"]({page})")
  source[0] = re.sub(r"<!-- rows of (.*) -->", _rows, text)


def _rows(match: re.Match) -> str:
  """The rows of the table of tier quick that start with a text."""
  table = (ROOT / "results" / "quick" / "verify.md").read_text().splitlines()
  head = [line for line in table if line.startswith(("| what", "| ---"))]
  rows = [line for line in table if line.startswith(f"| {match[1]}")]
  return "\n".join([*head, *rows])


def _inline(self, node):
  self.body.append(converter.convert(node.astext()))
  raise nodes.SkipNode


def _display(self, node):
  formula = converter.convert(node.astext(), display="block")
  self.body.append(f'<div class="math">{formula}</div>')
  raise nodes.SkipNode


def _mark_code(app, what, name, obj, options, lines):
  """Marks indented blocks as code, and puts blank lines around lists."""
  del app, what, name, obj, options
  marked, kind = [], "none"
  for line in lines:
    starts_item = line.startswith("- ")
    if line.startswith(" "):
      if kind == "paragraph" and not marked[-1]:
        marked += [".. code-block:: none", ""]
        kind = "code"
    elif line:
      before, kind = kind, "list" if starts_item else "paragraph"
      if kind != before and "list" in (kind, before) and marked and marked[-1]:
        marked.append("")
    marked.append(line)
  lines[:] = marked


def _shorten(app, what, name, obj, options, signature, returns):
  """Leaves out the two arguments that Flax adds to every module."""
  del app, what, name, obj, options
  if signature and ", parent=" in signature:
    signature = signature[: signature.index(", parent=")] + ")"
  elif signature and ", parent:" in signature:
    signature = signature[: signature.index(", parent:")] + ")"
  return signature, returns


def _skip_fields(app, what, name, obj, skip, options):
  """Leaves out the fields of NamedTuples: their docstring explains them."""
  del app, what, name, options
  is_field = isinstance(obj, type(collections.namedtuple("_", "a").a))
  return True if is_field else skip


def _resolve(app, env, node, contnode):
  """Resolves a name in a docstring; a name of something else stays code."""
  if node.get("refdomain") != "py":
    return None
  target = node["reftarget"]
  objects = env.domains["py"].objects
  for name in _candidates(target):
    if name in objects:
      entry = objects[name]
      return sphinx_nodes.make_refnode(
        app.builder,
        node["refdoc"],
        entry.docname,
        entry.node_id,
        contnode,
        name,
      )
  return contnode if node["reftype"] == "obj" else None


def _check_offline(app, exception):
  """Refuses a site that a browser can't show without a network."""
  found = offline.in_site(pathlib.Path(app.outdir))
  if found and exception is None:
    raise errors.SphinxError("\n".join(found))


def _candidates(target: str):
  yield from (prefix + target for prefix in _PREFIXES)
  parts = target.split(".")
  if parts[:2] in (["icl_causal", "runs"], ["icl_causal", "config"]):
    yield ".".join([*parts[:2], *parts[3:]])  # exported by the package
