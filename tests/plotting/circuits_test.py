from matplotlib.backends.backend_agg import FigureCanvasAgg
import numpy as np

from icl_causal.plotting import circuits

T = 5
NAMES = ("token alone", "whole row", "edge posterior", "fitted layer 2")


def _matrix(scale):
  pairs = np.tri(T, k=-1, dtype=bool)
  return np.where(pairs, scale * np.arange(T * T).reshape(T, T), np.nan)


def test_the_matrices_have_one_scale_without_the_second():
  changes = {n: _matrix(s) for n, s in zip(NAMES, (1, 50, 2, 1), strict=True)}
  figure = circuits.patches(changes, np.eye(T, k=-1, dtype=bool))
  FigureCanvasAgg(figure).draw()
  *panels, bar = figure.axes
  assert [axes.get_title() for axes in panels] == list(NAMES)
  for axes, matrix in zip(panels, changes.values(), strict=True):
    (image,) = axes.images
    np.testing.assert_array_equal(
      np.ma.filled(image.get_array(), np.nan), matrix
    )
    assert image.get_clim() == (-2 * 23, 2 * 23)
    frames = [p.get_xy() for p in axes.patches]
    assert frames == [(i - 1.5, i - 0.5) for i in range(1, T)]
  assert "nats" in bar.get_ylabel()


def test_courses_are_drawn_by_run_and_as_their_mean():
  values = np.array([[0.5, 0.3, 0.1], [0.5, 0.1, 0.3]])
  excess = {"chain": {"trained": values, "clamped": values / 2}}
  figure = circuits.courses([0, 8, 16], excess)
  FigureCanvasAgg(figure).draw()
  (axes,) = figure.axes
  lines = {line.get_label(): line.get_ydata() for line in axes.lines}
  np.testing.assert_allclose(lines["trained"], [0.5, 0.2, 0.2])
  np.testing.assert_allclose(lines["clamped"], [0.25, 0.1, 0.1])
  texts = [text.get_text() for text in axes.get_legend().get_texts()]
  assert texts == ["trained", "clamped"]
