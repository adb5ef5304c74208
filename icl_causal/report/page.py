"""Self-contained HTML pages: they hold their data and need no network."""

from collections.abc import Mapping
import functools
import html
import importlib.resources
import json
from typing import Any

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
"""


def page(name: str, title: str, data: Mapping[str, Any]) -> str:
  """The HTML of a page.

  Args:
    name: `run` or `sweep`; NAME.html is the body and NAME.js the script.
    title: of the page; escaped.
    data: what the script shows, as JSON; the script writes it as text only.
  """
  text = json.dumps(data, allow_nan=False, separators=(",", ":"))
  text = text.replace("<", "\\u003c")  # or a text could end the script
  return (
    _HEAD.format(title=html.escape(title), style=_asset("style.css"))
    + f"<body>\n<h1>{html.escape(title)}</h1>\n"
    + _asset(f"{name}.html")
    + f'<script id="data" type="application/json">{text}</script>\n'
    + f"<script>\n{_asset('common.js')}{_asset(f'{name}.js')}</script>\n"
    + "</body>\n</html>\n"
  )


@functools.cache
def _asset(name: str) -> str:
  folder = importlib.resources.files("icl_causal.report") / "assets"
  return (folder / name).read_text()
