import numpy as np

from icl_causal.plotting import times


def _figure():
  points = {
    ((0.1, 0.0), 0): (np.array([10.0, 40.0]), np.array([[11.0, 44.0]])),
    ((0.1, 0.0), 1): (np.array([20.0]), np.array([[21.0], [np.inf]])),
    ((1.0, 0.1), 0): (np.array([30.0]), np.array([[33.0], [31.0]])),
  }
  curves = np.linspace(0.2, 0.9, 2 * 6 * 2).reshape(2, 6, 2)
  by_strength = {
    1.0: (np.array([5, 4]), np.array([50.0, 40.0]), np.array([52.0, 41.0])),
    0.5: (np.array([4]), np.array([90.0]), np.array([88.0])),
  }
  return times.learning_times(points, [3, 9], curves, by_strength), curves


def test_points_are_the_edges_that_are_learned():
  figure, _ = _figure()
  left = figure.axes[0]
  drawn = [np.array(line.get_xydata()) for line in left.lines[:-1]]
  np.testing.assert_allclose(drawn[0], [[10, 11], [40, 44]])
  np.testing.assert_allclose(drawn[1], [[20, 21]])
  np.testing.assert_allclose(drawn[2], [[30, 33], [30, 31]])
  labels = [text.get_text() for text in left.get_legend().get_texts()]
  assert labels == ["Dirichlet(0.1), floor 0", "Dirichlet(1), floor 0.1"]
  assert left.get_xlim() == left.get_ylim()


def test_rows_and_strengths():
  figure, curves = _figure()
  _, middle, right = figure.axes
  np.testing.assert_allclose(middle.lines[0].get_ydata(), curves[0, :, 0])
  np.testing.assert_allclose(middle.lines[3].get_ydata(), curves[1, :, 1])
  labels = [text.get_text() for text in middle.get_legend().get_texts()]
  assert labels == ["i = 3", "i = 9"]
  line, dots = right.lines[:2]
  np.testing.assert_allclose(line.get_xydata(), [[4, 41], [5, 52]])
  np.testing.assert_allclose(dots.get_xydata(), [[5, 50], [4, 40]])
