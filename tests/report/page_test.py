"""Pages in a real browser: Chromium, which .ci/run installs."""

import json
import pathlib
import re

from playwright import sync_api
import pytest

from experiments.sweep import summary
from icl_causal import config
from icl_causal import graphs
from icl_causal import runs
from icl_causal.report import circuits
from icl_causal.report import data
from icl_causal.report import page
from icl_causal.report import run as report
from icl_causal.report import sweep
from tests.support import pages
from tests.support import recorded_run
from tests.support import records
from tests.support import small_sweeps

NO_PAGE = pages.CHROMIUM is None  # apt-get install chromium
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(NO_PAGE, reason="no Chromium: .ci/run has it"),
]
HOSTILE = "<img src=x onerror=document.title='hacked'></script><b>"


@pytest.fixture(scope="module")
def browser():
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(**pages.LAUNCH)
    yield browser
    browser.close()


@pytest.fixture
def opened(browser):
  """Opens a file; afterwards, there was no error and no other request."""
  tabs = []

  def opened(path: pathlib.Path, width=1280, **options):
    context = browser.new_context(
      viewport={"width": width, "height": 900}, **options
    )
    tab, problems, requests = context.new_page(), [], []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.resolve().as_uri())
    tabs.append((path, problems, requests, context))
    return tab

  yield opened
  for path, problems, requests, context in tabs:
    assert problems == []
    assert requests == [path.resolve().as_uri()]
    context.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  """The page of a run with two heads."""
  workdir = tmp_path_factory.mktemp("run") / "two heads"
  recorded_run.write(workdir, T=6, S=3, heads=2)
  text = page.page("run", "a run", data.of_run(runs.load(workdir)))
  (workdir / "report.html").write_text(text)
  return workdir / "report.html"


def _pixels(tab, name="#map") -> str:
  return tab.evaluate("name => document.querySelector(name).toDataURL()", name)


def _center(tab, selector: str):
  box = tab.locator(selector).first.bounding_box()
  return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_slider_moves_every_picture(opened, path):
  tab = opened(path)
  assert tab.locator("#step").inner_text().startswith("step 32: ")
  seen = set()
  for k, step in enumerate(recorded_run.STEPS):
    tab.locator("#time").fill(str(k))
    assert tab.locator("#step").inner_text().startswith(f"step {step}: ")
    pictures = [_pixels(tab)]
    for name in ("arcs", "tape", "laws"):
      pictures.append(tab.locator(f"#{name}").inner_html())
    pictures.append(tab.locator("#now").get_attribute("x1"))
    seen.add(tuple(pictures))
  for pictures in zip(*seen, strict=True):
    assert len(set(pictures)) == len(recorded_run.STEPS)


def test_the_map_shows_the_attention_of_the_run(opened, path):
  """The text of each entry is its number in the run directory."""
  tab = opened(path)
  maps = runs.load(path.parent).attention
  tab.locator("#time").fill("3")
  tab.locator("#head").select_option(index=1)
  tab.locator("#map").scroll_into_view_if_needed()
  box = tab.locator("#map").bounding_box()
  cell = (1 - 0.06 - 0.035) * box["width"] / 6
  for i in range(6):
    for j in range(i + 1):
      x = box["x"] + 0.06 * box["width"] + (j + 0.5) * cell
      y = box["y"] + 0.035 * box["width"] + (i + 0.5) * cell
      tab.mouse.move(x, y)
      text = tab.locator("#tip").inner_text()
      share = float(re.match(rf"{i} attends to {j}: ([\d.]+)", text)[1])
      assert abs(share - maps[recorded_run.STEPS[3]][1, i, j]) < 0.008
      assert text.endswith(", an edge") == (
        (i, j) in [(k, k - 1) for k in range(1, 5)]
      )
  assert f"Position {i} attends to" in tab.locator("#says").inner_text()


def test_one_prompt_is_that_of_the_run(opened, path):
  tab, run = opened(path), runs.load(path.parent)
  x_PxT = run.prompts(4).x_T
  tab.locator("#time").fill("5")
  tab.locator("#own").check()
  for p in range(4):
    tab.locator("#of").select_option(index=p)
    texts = tab.locator("#tape text.token").all_text_contents()
    assert texts[:1] == [str(x_PxT[p, 0])]
    outputs = run.snapshots[recorded_run.STEPS[5]].prompts
    tab.locator("#tape [data-last='4']").scroll_into_view_if_needed()
    tab.mouse.move(*_center(tab, "#tape [data-last='4']"))
    text = tab.locator("#tip").inner_text()
    share = float(re.search(r"position 4: ([\d.]+)", text)[1])
    assert abs(share - outputs["attention_2"][p, 0, 4]) < 0.008
    assert text.endswith(f"whose token is {x_PxT[p, 4]}")
  legend = tab.locator("#legend").inner_text()
  for name in ("model", "edge posterior", "true law"):
    assert name in legend


def test_the_phases_are_those_of_the_run(opened, path):
  """Their texts at a step, their areas, and a click."""
  tab, run = opened(path), runs.load(path.parent)
  drawn = tab.locator("#phases polygon")
  names = [area.get_attribute("data-predictor") for area in drawn.all()]
  assert names == ["uniform", "unigram", "wrong graph", "edge posterior"]
  seen = set()
  for k in (0, 4, 10):
    tab.locator("#time").fill(str(k))
    phase = run.snapshots[recorded_run.STEPS[k]].phase
    for name, weight in phase.weights.items():
      name = name.replace("_", " ")
      text = tab.locator(f"#phases [data-weight='{name}']").text_content()
      assert float(text.split()[0]) == pytest.approx(weight, abs=0.0051)
      assert text.endswith(name)
    text = tab.locator("#phases [data-lack='layer 1 lacks']").text_content()
    lack = phase.decided_loss - phase.edge_loss
    assert float(text.split()[-1]) == pytest.approx(lack, abs=0.0051)
    assert (
      f"{phase.left:.3f} nats left" in tab.locator("#unlike").text_content()
    )
    label = tab.locator("#phases").get_attribute("aria-label")
    assert f"at step {recorded_run.STEPS[k]}: uniform" in label
    seen.add(tab.locator("#also").get_attribute("x1"))
  assert len(seen) == 3
  assert "uniform (1.00 at step 0)" in tab.locator("#phase").inner_text()
  face = tab.locator("#phases > rect").last
  face.scroll_into_view_if_needed()
  box = face.bounding_box()
  face.click(position={"x": 12, "y": box["height"] / 4})
  assert tab.locator("#step").inner_text().startswith("step 0: ")
  lines = tab.locator("#tip").inner_text().splitlines()
  assert lines[0] == "step 0"
  assert lines[4] == "1.00 uniform"
  assert lines[-1].startswith("layer 1 lacks 1.960, layer 2 0.000")


def test_the_bottom_of_a_stack_is_the_top_of_the_one_below(opened, path):
  tab, last = opened(path), None
  for area in tab.locator("#phases polygon").all():
    points = area.get_attribute("points").split()
    top, bottom = points[: len(points) // 2], points[len(points) // 2 :][::-1]
    assert last in (None, bottom)
    last = top
  assert last is not None
  heights = [float(point.split(",")[1]) for point in last]
  assert heights == pytest.approx([18.0] * len(heights), abs=0.05)


def test_the_circuit_is_that_of_the_record(opened, tmp_path):
  """Each entry has its measured and its predicted change; names are text."""
  T, workdir = 6, tmp_path / "run"
  recorded_run.write(workdir, T=T, S=3, heads=1)
  record = records.circuit(T)
  record["blocks"][0]["row"] = HOSTILE
  runs.write_circuits(workdir, record)
  report.write(workdir)
  tab = opened(workdir / "report.html")
  assert "On 64 prompts" in tab.locator("#circuit").inner_text()
  assert HOSTILE in tab.locator("#blocks").inner_text()
  assert tab.locator("#agreement tr").count() == 12
  assert tab.locator("#measured [data-pair]").count() == 10
  for change, by in (
    ("token alone", "edge posterior"),
    ("whole row", "fitted layer 2"),
  ):
    tab.locator("#change").select_option(change)
    tab.locator("#by").select_option(by)
    for id in ("measured", "predicted"):
      cell = tab.locator(f"#{id} [data-pair='3,2']")
      cell.scroll_into_view_if_needed()
      cell.hover()
      first, *lines = tab.locator("#tip").inner_text().splitlines()
      assert first == f"position 3, {change} of 2, its parent"
      for line, word, name in zip(
        lines, ("measured", "predicted"), (change, by), strict=True
      ):
        assert line == f"{word} +{record['patches'][name][3][2]:.4f} nats"
  face = tab.locator("#scores > rect").last
  box = face.bounding_box()
  face.click(position={"x": 12, "y": box["height"] / 4})
  assert tab.locator("#step").inner_text().startswith("step 0: ")
  parent = circuits.curves(runs.load(workdir), [0])["parent"][0]
  assert f"parent {parent:.2f}"[8:] in tab.locator("#tip").inner_text()


def test_a_page_without_a_circuit_shows_none(opened, path):
  assert not opened(path).locator("#circuits").is_visible()


def test_play_keyboard_and_clicks(opened, path):
  tab = opened(path)
  tab.locator("#play").click()
  assert tab.locator("#step").inner_text().startswith("step 0: ")
  sync_api.expect(tab.locator("#step")).to_contain_text("step 3: ")
  tab.locator("#play").click()
  assert tab.locator("#play").get_attribute("aria-label") == "play the training"
  before = tab.locator("#step").inner_text()
  tab.locator("#time").focus()
  tab.keyboard.press("ArrowRight")
  assert tab.locator("#step").inner_text() != before
  tab.locator("#map").focus()
  for _ in range(3):
    tab.keyboard.press("ArrowDown")
  assert "Position 2 attends to" in tab.locator("#says").inner_text()
  box = tab.locator("#loss > rect").bounding_box()
  tab.locator("#loss > rect").click(position={"x": 12, "y": box["height"] / 2})
  assert tab.locator("#step").inner_text().startswith("step 0: ")
  assert "loss 2.0000" in tab.locator("#tip").inner_text()


def test_evaluations_are_filtered_and_sorted(opened, path):
  tab = opened(path)
  rows = tab.locator("#history tbody tr")
  assert rows.count() == 5
  assert tab.locator("#count").inner_text() == "5 of 5 rows"
  for text, num in (
    ("step > 8", 3),
    ("step > 8, loss < 0.1", 2),
    ("false parents >= 0", 5),
    ("step = 16", 1),
    ("no such text", 0),
  ):
    tab.locator("#filter").fill(text)
    assert rows.count() == num, text
  tab.locator("#filter").fill("")
  tab.locator("#history th button").nth(1).click()
  steps = [row.split("\t")[0] for row in rows.all_inner_texts()]
  assert steps == ["32", "24", "16", "8", "0"]
  assert tab.locator("#history th").nth(1).get_attribute("aria-sort") == (
    "ascending"
  )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_no_horizontal_scrolling(opened, path, scheme):
  tab = opened(path, width=390, color_scheme=scheme)
  assert tab.evaluate("document.documentElement.scrollWidth") == 390
  background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
  assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_names_stay_text(opened, tmp_path):
  """Also as the title, in a script and in the config."""
  config.register(
    "graph",
    HOSTILE,
    config.Part(graphs.chain, {"T": config.fields.at_least(2)}),
  )
  workdir = tmp_path / "<img src=x onerror=alert(1)>"
  recorded_run.write(workdir, T=4, S=2, heads=1, name=HOSTILE)
  report.write(workdir)
  tab = opened(workdir / "report.html")
  assert HOSTILE in tab.locator("h1").inner_text()
  assert tab.title().startswith(HOSTILE)
  assert tab.locator("img, b > b").count() == 0
  for details in tab.locator("details").all():
    details.locator("summary").click()
  assert (
    HOSTILE
    in json.loads(tab.locator("pre").first.inner_text())["graph"]["name"]
  )


def test_long_prompts_with_two_heads(opened, tmp_path):
  """`tests.support.pages` measures the time of a step of the slider."""
  recorded_run.write(tmp_path / "run", T=128, S=10, heads=2)
  text = page.page("run", "long", data.of_run(runs.load(tmp_path / "run")))
  assert len(text) < 2_000_000
  (tmp_path / "page.html").write_text(text)
  tab = opened(tmp_path / "page.html")
  assert len(pages.slider_milliseconds(tab)) == len(recorded_run.STEPS)
  assert tab.locator("#step").inner_text().startswith("step 32: ")


@pytest.mark.parametrize(
  ("steps", "num", "expected"),
  [
    ([0, 1, 2, 4], 9, [0, 1, 2, 4]),
    ([0, 1, 2, 4, 8, 16, 32, 64, 128], 5, [0, 2, 8, 32, 128]),
    (range(1000), 3, [0, 31, 999]),
    (range(5), 4, [0, 1, 2, 4]),
  ],
)
def test_frames_are_thinned_evenly(steps, num, expected):
  assert data.thinned(list(steps), num) == expected


def test_a_page_without_prompts(opened, tmp_path):
  """As of a run with very long prompts."""
  recorded_run.write(tmp_path / "run", T=4, S=2, heads=1)
  run = runs.load(tmp_path / "run")
  snapshots = {
    step: one._replace(prompts={}) for step, one in run.snapshots.items()
  }
  of_run = data.of_run(run._replace(snapshots=snapshots))
  assert of_run["prompts"] is None
  (tmp_path / "page.html").write_text(page.page("run", "short", of_run))
  tab = opened(tmp_path / "page.html")
  assert not tab.locator("#prompt").is_visible()
  assert tab.locator("#map").is_visible()


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
  """A sweep of six runs, of which three failed, and one has a page."""
  workdir = tmp_path_factory.mktemp("sweep") / "six"
  planned = small_sweeps.train(small_sweeps.config(), workdir)
  summary.write_table(workdir, summary.rows(planned))
  report.write(planned[0].workdir)
  sweep.write(workdir)
  return workdir, planned


def test_the_page_of_a_sweep(opened, swept):
  workdir, planned = swept
  tab = opened(workdir / "report.html")
  assert "6 runs, of which 3 are finished" in tab.locator("#lead").inner_text()
  assert "--members" in tab.locator("#lead").inner_text()
  assert tab.locator("#runs tbody tr").count() == 6
  assert tab.locator("#runs polyline").count() == 3
  (link,) = tab.locator("#runs a").all()
  assert link.inner_text() == planned[0].name
  target = workdir / link.get_attribute("href")
  assert target == planned[0].workdir / "report.html"
  assert target.exists()
  shown = tab.locator("#runs tbody tr")
  tab.locator("#filter").fill("status = finished, graph.seed > 0")
  assert shown.count() == 2
  curves = set()
  for name in ("loss", "excess_loss", "edges_recovered"):
    tab.locator("#what").select_option(name)
    curves.add(_pixels(tab, "#curves"))
  for name in ("graph.seed", "train.learning_rate", "status"):
    tab.locator("#by").select_option(name)
    assert name in tab.locator("#legend").inner_text()
    curves.add(_pixels(tab, "#curves"))
  assert len(curves) >= 4


def test_a_thousand_runs(opened, swept, tmp_path):
  """`tests.support.pages` measures the time to open the page."""
  text = pages.repeated(sweep.data(swept[0]), 1000)
  (tmp_path / "page.html").write_text(text)
  tab = opened(tmp_path / "page.html")
  assert tab.locator("#runs tbody tr").count() == 1000


def test_a_phone_shows_a_sweep(opened, swept):
  tab = opened(swept[0] / "report.html", width=390)
  assert tab.evaluate("document.documentElement.scrollWidth") == 390
