from matplotlib.backends.backend_agg import FigureCanvasAgg
import pytest

from icl_causal.plotting import arcs


@pytest.mark.parametrize(
  ("recovered", "missed", "false"),
  [
    ([(1, 0), (5, 1)], [(3, 2)], [(4, 3)]),
    ([], [], []),
    ([(1, 0)], [], []),
  ],
)
def test_graph_drawing_counts_and_shows_every_edge(recovered, missed, false):
  figure = arcs.graph_drawing(7, recovered, missed, false)
  (axes,) = figure.axes
  FigureCanvasAgg(figure).draw()
  legend = [text.get_text() for text in figure.legends[0].get_texts()]
  assert legend == [
    f"recovered: {len(recovered)}",
    f"missed: {len(missed)}",
    f"false: {len(false)}",
  ]
  lines = [line for line in axes.lines if len(line.get_xdata()) > 0]
  assert len(lines) == len(recovered) + len(missed) + len(false)
  # Arrowheads are annotations without text.
  names = [text.get_text() for text in axes.texts if text.get_text()]
  assert names == [str(i) for i in range(7)]
  low, high = axes.get_ylim()
  for line in lines:
    assert low < min(line.get_ydata()) <= max(line.get_ydata()) < high
