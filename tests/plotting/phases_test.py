from matplotlib.backends.backend_agg import FigureCanvasAgg
import numpy as np

from icl_causal.plotting import phases

STEPS = [0, 1, 4, 16]
WEIGHTS = {
  "uniform": [1.0, 0.5, 0.25, 0.0],
  "unigram": [0.0, 0.5, 0.25, 0.1],
  "dirichlet edge posterior": [0.0, 0.0, 0.5, 0.9],
}


def _figure():
  lacks = [0.5, 0.3, 0.1, 0.0], [-0.1, 0.2, 0.1, 0.05]
  figure = phases.phases(STEPS, WEIGHTS, [0.0, 0.01, 0.02, 0.03], *lacks)
  FigureCanvasAgg(figure).draw()
  return figure


def test_the_areas_are_stacked_in_order_and_fill_the_panel():
  above, _ = _figure().axes
  total = np.zeros(4)
  for area, weights in zip(above.collections, WEIGHTS.values(), strict=True):
    total += weights
    vertices = area.get_paths()[0].vertices
    for step, top in zip(STEPS, total, strict=True):
      found = max(y for x, y in vertices if x == step)
      np.testing.assert_allclose(found, top, atol=1e-9)
  np.testing.assert_allclose(total, 1)
  texts = [text.get_text() for text in above.get_legend().get_texts()]
  assert texts == [
    "dirichlet edge posterior 0.90",
    "unigram 0.10",
    "uniform 0.00",
  ]


def test_the_lines_are_those_of_the_layers_and_of_what_is_left():
  figure = _figure()
  _, below = figure.axes
  lines = {line.get_label(): list(line.get_ydata()) for line in below.lines}
  assert lines["layer 1 lacks 0.000"] == [0.5, 0.3, 0.1, 0.0]
  assert lines["layer 2 lacks 0.050"] == [-0.1, 0.2, 0.1, 0.05]
  assert lines["left of the mix 0.030"][-1] == 0.03
  for axes in figure.axes:
    box = axes.get_legend().get_window_extent()
    assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
    assert 0 <= box.y0 <= box.y1 <= figure.bbox.height


def test_a_single_step_is_drawn():
  phases.phases([0], {"uniform": [1.0]}, [0.0], [0.5], [0.0])
