"""Finds what a page would load from the network."""

from html import parser
import pathlib
import re

# Attributes that a browser loads without a click.
_LOADED = {"src", "srcset", "poster", "data"}
_REMOTE = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
_REMOTE_IN_CSS = re.compile(
  r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE
)


def in_html(text: str) -> list[str]:
  """The addresses that a browser loads with a page."""
  found = _Loaded()
  found.feed(text)
  return [a for a in found.addresses if _REMOTE.match(a)] + in_css(text)


def in_css(text: str) -> list[str]:
  """The addresses that a style sheet loads."""
  return _REMOTE_IN_CSS.findall(text)


def in_site(directory: pathlib.Path) -> list[str]:
  """A line for each address that the pages of a site load."""
  checks = {".html": in_html, ".css": in_css}
  return [
    f"{path.relative_to(directory)} loads {address}"
    for path in sorted(directory.rglob("*"))
    if path.suffix in checks
    for address in checks[path.suffix](path.read_text(errors="replace"))
  ]


class _Loaded(parser.HTMLParser):
  """Collects the addresses of scripts, styles, pictures and frames."""

  def __init__(self):
    super().__init__()
    self.addresses: list[str] = []

  def handle_starttag(self, tag, attrs):
    values = {name: value or "" for name, value in attrs}
    names = _LOADED | ({"href"} if tag in ("link", "image", "use") else set())
    if values.get("rel") in ("canonical", "search", "index", "next", "prev"):
      return
    self.addresses += [values[name] for name in names & values.keys()]
