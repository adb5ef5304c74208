"""Sizes and times of the pages, in headless Chromium.

    make demo
    python -m tests.support.pages

Opens the page of the demo, of a run with T = 128 and two heads, and of a sweep
of 1,000 runs. Prints the size, the time until the page is drawn, and the time
of a step of the slider, medians and maxima in milliseconds; before that, the
time in which `runs.load` opens the demo.
"""

from collections.abc import Mapping
import pathlib
import shutil
import statistics
import tempfile
import time
from typing import Any

from playwright import sync_api

from experiments.sweep import summary
from icl_causal import runs
from icl_causal.report import data
from icl_causal.report import page
from icl_causal.report import sweep
from tests.support import recorded_run
from tests.support import small_sweeps

CHROMIUM = shutil.which("chromium")  # apt-get install chromium
LAUNCH: Mapping[str, Any] = {
  "executable_path": CHROMIUM,
  "args": ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
}
_DEMO = pathlib.Path("runs/demo/report.html")
_REPEATS = 7
_SLIDE = """async () => {
  const slider = document.getElementById("time"), times = [];
  const drawn = () => new Promise(
    done => requestAnimationFrame(() => setTimeout(done)));
  for (let k = 0; k <= slider.max; k++) {
    const started = performance.now();
    slider.value = k;
    slider.dispatchEvent(new Event("input"));
    await drawn();
    times.push(performance.now() - started);
  }
  return times;
}"""
_OPENED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def slider_milliseconds(tab: sync_api.Page) -> list[float]:
  """The time of each step of the slider, from the first to the last."""
  return tab.evaluate(_SLIDE)


def repeated(of_sweep: Mapping, num: int) -> str:
  """The page of a sweep with `num` copies of one of its runs."""
  row = next(one for one in of_sweep["rows"] if "curves" in one)
  rows = [{**row, "graph.seed": n, "run": f"{n:012x}"} for n in range(num)]
  changes = {"rows": rows, "finished": num, "pages": 0}
  return page.page("sweep", f"{num} runs", {**of_sweep, **changes})


def main():
  """The command."""
  started = time.perf_counter()
  runs.load(_DEMO.parent)
  print(f"runs.load opens the demo in {time.perf_counter() - started:.2f} s")
  with tempfile.TemporaryDirectory() as name, sync_api.sync_playwright() as p:
    folder = pathlib.Path(name)
    recorded_run.write(folder / "run", T=128, S=10, heads=2)
    long = data.of_run(runs.load(folder / "run"))
    (folder / "long.html").write_text(page.page("run", "long", long))
    planned = small_sweeps.train(small_sweeps.config(), folder / "sweep")
    summary.write_table(folder / "sweep", summary.rows(planned))
    many = repeated(sweep.data(folder / "sweep"), 1000)
    (folder / "many.html").write_text(many)
    browser = p.chromium.launch(**LAUNCH)
    for what, path in (
      ("demo", _DEMO),
      ("T = 128, 2 heads", folder / "long.html"),
      ("sweep of 1,000 runs", folder / "many.html"),
    ):
      opened, steps = [], []
      for _ in range(_REPEATS):
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(path.resolve().as_uri())
        opened.append(tab.evaluate(_OPENED))
        if tab.locator("#time").count():
          steps += slider_milliseconds(tab)
        tab.close()
      print(f"{what:20} {path.stat().st_size:>9} bytes, opens", _text(opened))
      if steps:
        print(f"{'':20} a step of the slider", _text(steps))


def _text(times: list[float]) -> str:
  return f"{statistics.median(times):.0f} (at most {max(times):.0f}) ms"


if __name__ == "__main__":
  main()
