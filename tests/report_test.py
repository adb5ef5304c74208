import base64
import html.parser
import re

from icl_causal import report

PNG = b"\x89PNG not really"


def test_page_is_self_contained_and_escaped(tmp_path):
  image = tmp_path / "loss.png"
  image.write_bytes(PNG)
  evil = '<script>alert("x")</script>&'
  page = report.page(
    title=evil,
    rows=[("edges", "3 of 3"), (evil, evil)],
    figures=[(image, evil)],
    listings={"config.json": '{"name": "</pre><b>"}', evil: evil},
  )
  assert "<script" not in page
  assert "<b>" not in page
  assert "<td>edges</td><td>3 of 3</td>" in page
  assert not re.search(r"(src|href)=\"(?!data:)", page)
  assert base64.b64encode(PNG).decode() in page

  balance = []

  class Parser(html.parser.HTMLParser):
    def handle_starttag(self, tag, attrs):
      if tag not in ("meta", "img"):
        balance.append(tag)

    def handle_endtag(self, tag):
      assert balance.pop() == tag

  Parser().feed(page)
  assert balance == []
