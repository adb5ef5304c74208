import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
import numpy as np
import pytest

from icl_causal import blocks
from icl_causal.plotting import matrices


def test_stream_blocks_name_and_size_every_block():
  assert blocks.of_stream(3, 5, ()) == [("token", 3), ("position", 5)]
  stream = blocks.of_stream(3, 5, (2, 1))
  assert sum(size for _, size in stream) == 2 * 3 * (3 + 5)
  names = [name for name, _ in stream]
  assert names[::2] == [
    "token",
    "token 1.1",
    "token 1.2",
    "token 2.1",
    "token 1.1 2.1",
    "token 1.2 2.1",
  ]


@pytest.mark.parametrize("heads", [1, 2])
def test_graph_and_attention_frames_the_edges(heads):
  adjacency = np.zeros((6, 6), bool)
  adjacency[[1, 4], [0, 2]] = True
  figure = matrices.graph_and_attention(adjacency, np.zeros((heads, 6, 6)))
  maps = figure.axes[: heads + 1]
  for axes in maps:
    framed = {(p.get_y() + 0.5, p.get_x() + 0.5) for p in axes.patches}
    assert framed == {(1, 0), (4, 2)}
    assert axes.images[0].get_clim() == (0, 1)
  np.testing.assert_array_equal(maps[0].images[0].get_array(), adjacency)


@pytest.mark.parametrize(("T", "frames"), [(20, 19), (200, 0)])
def test_long_maps_have_no_frames_and_labels_do_not_overlap(T, frames):
  chain_TxT = np.eye(T, k=-1)
  figure = matrices.graph_and_attention(chain_TxT, chain_TxT[None])
  assert len(figure.axes[1].patches) == frames
  FigureCanvasAgg(figure).draw()
  boxes = [t.get_window_extent() for t in figure.axes[1].get_xticklabels()]
  for one, other in itertools.pairwise(boxes):
    assert one.x1 + 2 < other.x0


def test_an_entry_shared_by_two_heads_is_darker_than_either():
  first, second = np.eye(3), np.eye(3)
  second[2] = [1, 0, 0]
  image = matrices._blend_heads(np.stack([first, second]))
  white, blue = image[0, 1], image[2, 2]
  orange, both = image[2, 0], image[1, 1]
  np.testing.assert_array_equal(white, 1)
  assert blue[2] > blue[0]
  assert orange[0] > orange[2]
  np.testing.assert_array_less(both, np.minimum(blue, orange) + 1e-6)
  assert (image >= 0).all()
  assert (image <= 1).all()


def test_a_run_with_fewer_steps_leaves_the_rest_of_its_row_empty():
  maps = {step: np.eye(3)[None] for step in (16, 64, 256)}
  short = {step: maps[step] for step in (16, 64)}
  figure = matrices.attention_over_training(
    np.eye(3), {"long": maps, "short": short}
  )
  labels = [axes.get_xlabel() for axes in figure.axes if axes.axison]
  long = ["graph", "step 16", "step 64", "step 256"]
  assert labels == [*long, *long[:-1]]


def test_gradient_and_prediction_frames_and_colours_the_edges():
  measured = np.tril(np.random.default_rng(0).normal(size=(6, 6)))
  edges = np.zeros((6, 6), bool)
  edges[[1, 3, 4], [0, 1, 3]] = True
  figure = matrices.gradient_and_prediction(measured, 2 * measured, edges)
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
  # Rows 0 and 2 are roots. Rows 1, 3 and 4 have 2 + 4 + 5 = 11 entries, of
  # which 3 are edges.
  assert len(points["row of a root"]) == 1 + 3
  assert len(points["row of a child, no edge"]) == 8


def test_heat_maps_print_every_finite_cell():
  values = np.array([[0.25, np.nan], [1.0, 0.5]])
  figure = matrices.heat_maps(
    {"share": (values, 0, 1, False)}, ("rate", (0.1, 0.2)), ("seed", (0, 1))
  )
  (axes,) = figure.axes
  assert [text.get_text() for text in axes.texts] == ["0.25", "1", "0.5"]
  assert [label.get_text() for label in axes.get_yticklabels()] == [
    "0.1",
    "0.2",
  ]
  assert axes.images[0].get_clim() == (0, 1)


def test_better_cells_of_heat_maps_are_lighter():
  values = np.array([[0.0, 1.0]])
  panels = {"loss": (values, 0, 1, True), "share": (values, 0, 1, False)}
  figure = matrices.heat_maps(panels, ("rate", (0.1,)), ("seed", (0, 1)))
  for axes, best in zip(figure.axes, (0, 1), strict=True):
    (image,) = axes.images
    light = image.cmap(image.norm(values[0]))[:, :3].mean(axis=1)
    assert light.argmax() == best
    assert axes.texts[best].get_color() == "black"
    assert axes.texts[1 - best].get_color() == "white"


def test_false_parents_are_framed_in_the_maps_only():
  adjacency = np.zeros((6, 6), bool)
  adjacency[1, 0] = True
  false, maps = [(3, 1), (4, 0)], np.zeros((1, 6, 6))
  for figure in (
    matrices.graph_and_attention(adjacency, maps, false),
    matrices.weights({"run": (adjacency, maps, false, [])}),
  ):
    FigureCanvasAgg(figure).draw()
    graph, attention = figure.axes[:2]
    framed = [
      [(p.get_y() + 0.5, p.get_x() + 0.5) for p in axes.patches]
      for axes in (graph, attention)
    ]
    assert framed == [[(1, 0)], [(1, 0), *false]]
    for axes in (graph, attention):  # the legend leaves room for the titles
      assert axes.title.get_window_extent().y1 <= figure.bbox.height
    edge, *others = (patch.get_edgecolor() for patch in attention.patches)
    assert edge not in others
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
      "edge",
      "false parent of a root",
    ]


def test_parameter_blocks_have_symmetric_scales_and_names():
  stream = blocks.of_stream(2, 3, ())
  matrix = np.diag([1.0, -4.0, 0, 0, 0])
  block = blocks.ParameterBlock("A1", matrix, stream, stream)
  figure = matrices.parameter_blocks([block] * 2)
  axes = figure.axes[0]
  assert axes.images[0].get_clim() == (-4, 4)
  names = [label.get_text() for label in axes.get_yticklabels()]
  assert names == ["token", "position"]
  np.testing.assert_allclose(axes.get_yticks(), [0.5, 3.0])
