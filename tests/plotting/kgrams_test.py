from matplotlib.backends.backend_agg import FigureCanvasAgg
import numpy as np

from icl_causal.plotting import kgrams

STEPS = np.array([0, 1, 4, 16])
GAPS = np.array([[0.3, 0.2, 0.1, 0.0], [0.3, 0.4, 0.3, 0.2]])


def test_a_column_for_each_order_and_a_line_for_each_seed():
  panels = {
    1: {"a": (STEPS, GAPS, GAPS + 1)},
    2: {"a": (STEPS, GAPS, GAPS + 1), "b": (STEPS, GAPS / 2, GAPS + 2)},
  }
  lines = {1: np.array([0.3, 0.0]), 2: np.array([0.3, 0.1, 0.0])}
  figure = kgrams.courses(panels, lines)
  FigureCanvasAgg(figure).draw()
  first, second, below, _ = figure.axes
  assert [first.get_title(), second.get_title()] == ["order 1", "order 2"]
  curves = [line.get_ydata() for line in first.lines[:3]]
  np.testing.assert_allclose(curves, [*GAPS, GAPS.mean(axis=0)])
  np.testing.assert_allclose(below.lines[0].get_ydata(), GAPS[0] + 1)
  # Two models of two seeds and a mean, and three lines.
  assert len(second.lines) == 2 * 3 + 3
  texts = [text.get_text() for text in second.texts]
  assert texts == ["token counts", "1-gram", "2-gram"]
  assert first.lines[2].get_color() == second.lines[2].get_color()
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
