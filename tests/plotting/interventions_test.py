import math

from matplotlib.backends.backend_agg import FigureCanvasAgg
import numpy as np

from icl_causal.plotting import interventions

SHARES = (0.0, 0.2, 0.8)
BEST = interventions.Curve(SHARES, (20.0, 12.0, 40.0), (2.0, 1.0, 4.0))
GRADIENT = interventions.Curve(SHARES, (60.0, 70.0, math.nan), (5.0,) * 3)
BOUND = interventions.Curve(SHARES, (30.0, 25.0, 80.0), (1.0,) * 3, True)
NEVER = interventions.Curve(SHARES, (math.nan,) * 3, (math.nan,) * 3)


def test_curves_error_bars_and_least_values():
  figure = interventions.needed_by_share(
    {
      "a": {"best": BEST, "gradient": GRADIENT, "bound": BOUND},
      "b": {"gradient": GRADIENT},
      "c": {"best": NEVER},
    },
    "prompts",
  )
  FigureCanvasAgg(figure).draw()
  a, b, c, hidden = figure.axes
  assert not hidden.get_visible()
  assert (a.get_title(), a.get_yscale()) == ("a", "log")
  best, least, gradient, *_, bound, _ = a.lines
  np.testing.assert_allclose(best.get_xydata(), np.stack([SHARES, BEST[1]], 1))
  np.testing.assert_allclose(least.get_xydata(), [[0.2, 12]])
  assert bound.get_linestyle() == "--" != best.get_linestyle()
  bars = a.collections[0].get_segments()
  np.testing.assert_allclose(bars[2][:, 1], [36, 44])
  assert len(a.collections) == 2
  assert b.lines[0].get_color() == gradient.get_color() != best.get_color()
  assert len(c.lines) == 1
  (legend,) = figure.legends
  names = [text.get_text() for text in legend.get_texts()]
  assert names == ["best", "gradient", "bound"]
  box = legend.get_window_extent()
  assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
