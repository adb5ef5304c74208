"""A self-contained HTML page: it embeds its figures and needs no network."""

import base64
from collections.abc import Mapping, Sequence
import html
import pathlib

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td { padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid #ddd;
     white-space: pre; }
figure { margin: 2rem 0; }
img { max-width: 100%; }
figcaption { color: #555; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 13px; }
"""


def page(
  title: str,
  rows: Sequence[tuple[str, str]],
  figures: Sequence[tuple[pathlib.Path, str]],
  listings: Mapping[str, str],
) -> str:
  """The HTML of a page with a table, figures and listings, in this order.

  Args:
    title: heading of the page.
    rows: (name, value) for each row of the table.
    figures: (PNG file, caption) for each figure.
    listings: verbatim texts by heading.
  """
  table = "".join(
    f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
    for name, value in rows
  )
  images = "".join(_figure(path, caption) for path, caption in figures)
  texts = "".join(
    f"<details><summary>{html.escape(name)}</summary>"
    f"<pre>{html.escape(text)}</pre></details>"
    for name, text in listings.items()
  )
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
    f"<body><h1>{html.escape(title)}</h1><table>{table}</table>"
    f"{images}{texts}</body></html>\n"
  )


def _figure(path: pathlib.Path, caption: str) -> str:
  data = base64.b64encode(path.read_bytes()).decode()
  caption = html.escape(caption)
  return (
    f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
    f"<figcaption>{caption}</figcaption></figure>"
  )
