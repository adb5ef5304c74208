from matplotlib.backends.backend_agg import FigureCanvasAgg
import numpy as np

from icl_causal.plotting import diversity

STEPS, SIZES = [32, 64, 128], [1, 4]
WEIGHTS = {"uniform": [0.7, 0.2, 0.1], "retrieval": [0.3, 0.8, 0.9]}


def _figure():
  panels = {
    title: {size: (STEPS, WEIGHTS) for size in SIZES} for title in ("a", "b")
  }
  graph = {
    "small": {
      "edges": np.array([[0.1, 0.5], [0.3, 0.7]]),
      "attention": np.array([[0.2, 0.4], [0.2, 0.6]]),
    }
  }
  figure = diversity.weights(panels, graph, SIZES)
  FigureCanvasAgg(figure).draw()
  return figure


def test_there_is_a_panel_for_each_row_and_size_and_two_of_the_graph():
  figure = _figure()
  assert len(figure.axes) == 2 * 2 + 2
  titles = [axes.get_title() for axes in figure.axes]
  assert titles[:2] == ["M = 1", "M = 4"]
  assert [axes.get_ylabel() for axes in figure.axes[:4]] == ["a", "", "b", ""]
  assert titles[-2:] == ["edges recovered", "attention on the parents"]
  labels = [axes.get_xlabel() for axes in figure.axes]
  assert labels == ["", "", *["step"] * 2, *["kernels in the pool"] * 2]


def test_weights_are_stacked_by_step():
  axes = _figure().axes[0]
  _, upper = axes.collections
  top = upper.get_paths()[0].vertices
  assert {32.0, 64.0, 128.0} <= set(top[:, 0])
  at_64 = top[top[:, 0] == 64, 1]
  np.testing.assert_allclose([at_64.min(), at_64.max()], [0.2, 1.0])
  assert axes.get_xlim() == (32, 128)


def test_each_seed_has_a_line_and_the_mean_has_markers():
  edges, attention = _figure().axes[-2:]
  lines = [line.get_ydata() for line in edges.lines]
  np.testing.assert_allclose(lines, [[0.1, 0.5], [0.3, 0.7], [0.2, 0.6]])
  np.testing.assert_allclose(attention.lines[-1].get_ydata(), [0.2, 0.5])
  texts = [text.get_text() for text in edges.get_legend().get_texts()]
  assert texts == ["small"]
