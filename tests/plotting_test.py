import hashlib
import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
import numpy as np
import pytest

from icl_causal import plotting
from icl_causal import runs


def _texts(axes):
  return [text.get_text() for text in axes.texts]


def test_stream_blocks_name_and_size_every_block():
  assert plotting.stream_blocks(3, 5, ()) == [("token", 3), ("position", 5)]
  blocks = plotting.stream_blocks(3, 5, (2, 1))
  assert sum(size for _, size in blocks) == 2 * 3 * (3 + 5)
  names = [name for name, _ in blocks]
  assert names[::2] == [
    "token",
    "token 1.1",
    "token 1.2",
    "token 2.1",
    "token 1.1 2.1",
    "token 1.2 2.1",
  ]


def test_loss_curve_labels_every_line_without_overlap():
  lines = {"uniform": 2.30, "unigram": 2.301, "edge posterior": 1.76}
  figure = plotting.loss_curve([0, 10, 20], [2.3, 2.0, 1.8], lines)
  (axes,) = figure.axes
  FigureCanvasAgg(figure).draw()
  assert len(axes.texts) == 3
  boxes = [Text.get_window_extent(text) for text in axes.texts]
  for i, box in enumerate(boxes):
    assert not any(box.overlaps(other) for other in boxes[i + 1 :])
    assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
    assert 0 <= box.y0 <= box.y1 <= figure.bbox.height


@pytest.mark.parametrize("heads", [1, 2])
def test_graph_and_attention_frames_the_edges(heads):
  adjacency = np.zeros((6, 6), bool)
  adjacency[[1, 4], [0, 2]] = True
  figure = plotting.graph_and_attention(adjacency, np.zeros((heads, 6, 6)))
  maps = figure.axes[: heads + 1]
  for axes in maps:
    framed = {(p.get_y() + 0.5, p.get_x() + 0.5) for p in axes.patches}
    assert framed == {(1, 0), (4, 2)}
    assert axes.images[0].get_clim() == (0, 1)
  np.testing.assert_array_equal(maps[0].images[0].get_array(), adjacency)


def test_parameter_blocks_have_symmetric_scales_and_names():
  blocks = plotting.stream_blocks(2, 3, ())
  matrix = np.diag([1.0, -4.0, 0, 0, 0])
  panels = [plotting.Panel("A1", matrix, blocks, blocks)] * 2
  figure = plotting.parameter_blocks(panels)
  axes = figure.axes[0]
  assert axes.images[0].get_clim() == (-4, 4)
  names = [label.get_text() for label in axes.get_yticklabels()]
  assert names == ["token", "position"]
  np.testing.assert_allclose(axes.get_yticks(), [0.5, 3.0])


@pytest.mark.parametrize(
  ("recovered", "missed", "false"),
  [
    ([(1, 0), (5, 1)], [(3, 2)], [(4, 3)]),
    ([], [], []),
    ([(1, 0)], [], []),
  ],
)
def test_graph_drawing_counts_and_shows_every_edge(recovered, missed, false):
  figure = plotting.graph_drawing(7, recovered, missed, false)
  (axes,) = figure.axes
  FigureCanvasAgg(figure).draw()
  legend = [text.get_text() for text in figure.legends[0].get_texts()]
  assert legend == [
    f"recovered: {len(recovered)}",
    f"missed: {len(missed)}",
    f"false: {len(false)}",
  ]
  arcs = [line for line in axes.lines if len(line.get_xdata()) > 0]
  assert len(arcs) == len(recovered) + len(missed) + len(false)
  assert [text for text in _texts(axes) if text] == [str(i) for i in range(7)]
  low, high = axes.get_ylim()
  for arc in arcs:
    assert low < min(arc.get_ydata()) <= max(arc.get_ydata()) < high


def test_gradient_and_prediction_frames_and_colours_the_edges():
  measured = np.tril(np.random.default_rng(0).normal(size=(6, 6)))
  edges = np.zeros((6, 6), bool)
  edges[[1, 3, 4], [0, 1, 3]] = True
  figure = plotting.gradient_and_prediction(measured, 2 * measured, edges)
  FigureCanvasAgg(figure).draw()
  left, right, scatter = figure.axes[:3]
  for axes in (left, right):
    corners = {patch.get_xy() for patch in axes.patches}
    assert corners == {(j - 0.5, i - 0.5) for i, j in np.argwhere(edges)}
  np.testing.assert_allclose(
    left.images[0].get_array()[4, :5], 5 * measured[4, :5]
  )
  points = {
    dots.get_label(): np.asarray(dots.get_offsets())
    for dots in scatter.collections
  }
  np.testing.assert_allclose(points["edge"][:, 1], measured[edges])
  np.testing.assert_allclose(points["edge"][:, 0], 2 * measured[edges])
  # Rows 0 and 2 are roots; rows 1, 3, 4 have 2 + 4 + 5 entries, 3 are edges.
  assert len(points["row of a root"]) == 1 + 3
  assert len(points["row of a child, no edge"]) == 8


def test_attention_by_position_leaves_out_what_nobody_has():
  figure = plotting.attention_by_position(
    [None, 0.9, None, 0.8], [None, 0.1, None, 0.0], [0, 1, 2, 0], [0, 1, 0, 0]
  )
  FigureCanvasAgg(figure).draw()
  above, below = figure.axes
  np.testing.assert_array_equal(above.lines[0].get_xdata(), [1, 3])
  np.testing.assert_array_equal(above.lines[0].get_ydata(), [0.9, 0.8])
  assert [bar.get_height() for bar in below.patches] == [0, 1, 2, 0, 0, 1, 0, 0]


def test_saved_figures_are_reproducible(tmp_path):
  digests = []
  for name in ("one", "two"):
    (tmp_path / name).mkdir()
    figure = plotting.loss_curve([0, 1], [2, 1], {"uniform": 2})
    runs.save_figure(tmp_path / name, "loss", figure)
    files = sorted((tmp_path / name / "figures").iterdir())
    assert [file.name for file in files] == ["loss.pdf", "loss.png"]
    digests.append([hashlib.sha256(f.read_bytes()).digest() for f in files])
  assert digests[0] == digests[1]


def test_heat_maps_print_every_cell_that_is_there():
  values = np.array([[0.25, np.nan], [1.0, 0.5]])
  figure = plotting.heat_maps(
    {"share": (values, 0, 1)}, ("rate", (0.1, 0.2)), ("seed", (0, 1))
  )
  (axes,) = figure.axes
  assert [text.get_text() for text in axes.texts] == ["0.25", "1", "0.5"]
  assert [label.get_text() for label in axes.get_yticklabels()] == [
    "0.1",
    "0.2",
  ]
  assert axes.images[0].get_clim() == (0, 1)


def test_bands_hold_their_curves():
  figure = plotting.bands(
    {"a": np.array([[0, 1], [2, 3], [1, 2], [4, 5]])}, "step", "loss"
  )
  (axes,) = figure.axes
  np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2, 3])
  box = axes.collections[0].get_paths()[0].get_extents()
  assert (box.y0, box.y1) == (1, 5)


def test_labels_of_a_logarithmic_scatter_do_not_meet():
  points = {"a": ([0.0021, 0.04], [1.0, 2.0])}
  figure = plotting.scatter(points, "rate", "loss", log=True)
  figure.draw_without_rendering()
  (axes,) = figure.axes
  boxes = [
    label.get_window_extent()
    for label in [*axes.get_xticklabels(), *axes.get_xticklabels(minor=True)]
    if label.get_text()
  ]
  edges = [(box.x0, box.x1) for box in sorted(boxes, key=lambda box: box.x0)]
  assert len(edges) >= 3
  for (_, left), (right, _) in itertools.pairwise(edges):
    assert left < right


def test_scaling_has_a_panel_and_a_curve_for_each_name():
  x, curves = [20, 64, 512], {"textbook": [5, 50, 5000], "ours": [1, 3, 250]}
  figure = plotting.scaling({"S = 3": (x, curves)}, "T", "ms")
  (axes,) = figure.axes
  FigureCanvasAgg(figure).draw()
  assert axes.get_title() == "S = 3"
  assert axes.get_xscale() == axes.get_yscale() == "log"
  assert [t.get_text() for t in axes.get_xticklabels()] == ["20", "64", "512"]
  for line, (name, y) in zip(axes.lines, curves.items(), strict=True):
    assert line.get_label() == name
    assert list(line.get_xdata()) == x
    assert list(line.get_ydata()) == y


@pytest.mark.parametrize(("T", "frames"), [(20, 19), (200, 0)])
def test_frames_do_not_hide_the_entries_of_long_maps(T, frames):
  chain_TxT = np.eye(T, k=-1)
  figure = plotting.graph_and_attention(chain_TxT, chain_TxT[None])
  assert len(figure.axes[1].patches) == frames
  FigureCanvasAgg(figure).draw()
  boxes = [t.get_window_extent() for t in figure.axes[1].get_xticklabels()]
  for one, other in itertools.pairwise(boxes):
    assert one.x1 + 2 < other.x0
