"""The figure of missed edges."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
import numpy as np

from icl_causal.plotting import samples

N = (1, 4, 16, 64)
BEST = samples.Curve(N, (0.2, 0.7, 0.95, 1.0))
CURVES = {
  "gradient": samples.Curve(N, (0.2, 0.4, 0.7, 0.9)),
  "predicted": samples.Curve(N, (0.2, 0.45, 0.7, 0.9), is_prediction=True),
  "ascent": samples.Curve((16, 64), (0.9, 1.0)),
}


def test_missed_edges_on_logarithmic_axes():
  panels = {
    "a": (BEST, CURVES),
    "b": (BEST, {"ascent": CURVES["ascent"]}),
    "c": (BEST, {}),
  }
  figure = samples.missed_edges(panels, lowest=0.01)
  FigureCanvasAgg(figure).draw()
  first, second, _, hidden = figure.axes
  assert not hidden.get_visible()
  best, gradient, predicted, ascent, *_ = first.lines
  np.testing.assert_allclose(best.get_ydata(), [0.8, 0.3, 0.05, 0.001])
  np.testing.assert_allclose(gradient.get_ydata(), [0.8, 0.6, 0.3, 0.1])
  assert list(ascent.get_xdata()) == [16, 64]
  assert predicted.get_color() == gradient.get_color() != ascent.get_color()
  assert predicted.get_linestyle() == "--" != gradient.get_linestyle()
  assert second.lines[1].get_color() == ascent.get_color()
  assert first.get_xscale() == first.get_yscale() == "log"


def test_the_region_below_the_best_possible_is_shaded():
  (axes,) = samples.missed_edges({"a": (BEST, {})}, columns=1).axes
  (region,) = (c for c in axes.collections if isinstance(c, PolyCollection))
  (path,) = region.get_paths()
  assert path.contains_point((4, 0.29))
  assert not path.contains_point((4, 0.31))
  assert not path.contains_point((64, 0.01))


def test_names_are_inside_the_figure():
  figure = samples.missed_edges({"a": (BEST, CURVES), "b": (BEST, CURVES)})
  FigureCanvasAgg(figure).draw()
  (legend,) = figure.legends
  names = [text.get_text() for text in legend.get_texts()]
  assert names == ["best possible", *CURVES]
  box = legend.get_window_extent()
  assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
  assert 0 <= box.y0 <= box.y1 <= figure.bbox.height
