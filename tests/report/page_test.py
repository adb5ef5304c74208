import base64
import html.parser
import re

from icl_causal.report import page

PNG = b"\x89PNG placeholder"


def test_page_is_self_contained_and_escaped(tmp_path):
  image = tmp_path / "loss.png"
  image.write_bytes(PNG)
  markup = '<script>alert("x")</script>&'
  text = page.page(
    title=markup,
    rows=[("edges", "3 of 3"), (markup, markup)],
    figures=[(image, markup)],
    listings={"config.json": '{"name": "</pre><b>"}', markup: markup},
  )
  assert "<script" not in text
  assert "<b>" not in text
  assert "<td>edges</td><td>3 of 3</td>" in text
  assert not re.search(r"(src|href)=\"(?!data:)", text)
  assert base64.b64encode(PNG).decode() in text

  open_tags = []

  class Parser(html.parser.HTMLParser):
    def handle_starttag(self, tag, attrs):
      if tag not in ("meta", "img"):
        open_tags.append(tag)

    def handle_endtag(self, tag):
      assert open_tags.pop() == tag

  Parser().feed(text)
  assert open_tags == []
