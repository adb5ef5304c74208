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
  attention = {edge: 0.5 for edge in [*recovered, *missed, *false]}
  figure = arcs.graph_drawing(7, recovered, missed, false, attention, [6], 6)
  (axes,) = figure.axes
  FigureCanvasAgg(figure).draw()
  legend = [text.get_text() for text in figure.legends[0].get_texts()]
  assert legend == [
    f"recovered: {len(recovered)}",
    f"missed: {len(missed)}",
    f"false: {len(false)}",
  ]
  lines = [line for line in axes.lines if len(line.get_xdata()) > 0]
  assert len(lines) == len(recovered) + len(missed) + len(false) + 1
  # Arrowheads are annotations without text.
  names = [text.get_text() for text in axes.texts if text.get_text()]
  assert names == [*"0123456?", "target", "query"]
  low, high = axes.get_ylim()
  for line in lines:
    assert low < min(line.get_ydata()) <= max(line.get_ydata()) < high


def test_the_width_of_an_arc_is_the_attention():
  attention = {(1, 0): 0.99, (3, 2): 0.15, (4, 3): 0.6}
  figure = arcs.graph_drawing(
    6, [(1, 0)], [(3, 2)], [(4, 3)], attention, [1, 5], None
  )
  (axes,) = figure.axes
  recovered, missed, false, *to_target = (
    line for line in axes.lines if len(line.get_xdata()) > 0
  )
  widths = [line.get_linewidth() for line in (missed, false, recovered)]
  assert widths == sorted(widths)
  assert max(false.get_ydata()) < 0 < min(recovered.get_ydata())
  assert widths[2] > 3 * widths[0]
  # The predicted token is at the end, after position 5.
  assert [round(line.get_xdata()[0]) for line in to_target] == [1, 5]
  assert [round(line.get_xdata()[-1]) for line in to_target] == [6, 6]
  assert "query" not in [text.get_text() for text in axes.texts]
