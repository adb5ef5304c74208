import hashlib
import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
import numpy as np
import pytest

from icl_causal import runs
from icl_causal.plotting import curves

BASELINES = {"uniform": 2.30, "unigram": 2.301, "edge posterior": 1.76}
LOSSES = {0: 2.3, 10: 2.0, 20: 1.8}


def _loss_curve(losses=LOSSES, baselines=BASELINES):
  estimates = {1: 2.29, 4: 2.1}
  shares = {"edges": {0: 0.0, 4: 0.5, 20: 1.0}, "attention": {0: 0.1, 20: 0.8}}
  figure = curves.loss_curve(losses, baselines, estimates, shares)
  FigureCanvasAgg(figure).draw()
  return figure


def test_loss_curve_labels_every_baseline_without_overlap():
  figure = _loss_curve()
  above, _ = figure.axes
  assert len(above.texts) == 3
  boxes = [Text.get_window_extent(text) for text in above.texts]
  for i, box in enumerate(boxes):
    assert not any(box.overlaps(other) for other in boxes[i + 1 :])
    assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
    assert 0 <= box.y0 <= box.y1 <= figure.bbox.height


def test_loss_curve_of_losses_alone():
  (axes,) = curves.loss_curve({16: 2.0, 64: 1.9}, BASELINES).axes
  assert list(axes.lines[0].get_xdata()) == [16, 64]
  assert [text.get_text() for text in axes.get_xticklabels()] == ["16", "64"]


def test_loss_curve_has_a_logarithmic_axis_with_every_point():
  above, below = _loss_curve().axes
  curve, full, estimates, *_ = above.lines
  assert list(curve.get_xdata()) == [0, 1, 4, 10, 20]
  assert list(full.get_xdata()) == [0, 10, 20]
  assert list(estimates.get_ydata()) == [2.29, 2.1]
  places = below.transData.transform([(x, 0.5) for x in (0, 1, 2, 4, 8)])[:, 0]
  gaps = np.diff(places)
  np.testing.assert_allclose(gaps[1:], gaps[1])
  assert gaps[0] > 0
  assert [line.get_label() for line in below.lines] == ["edges", "attention"]


@pytest.mark.parametrize(("entropy", "is_line"), [(1.3, True), (0.8, False)])
def test_an_entropy_far_below_is_a_label(entropy, is_line):
  above, _ = _loss_curve(baselines={**BASELINES, "entropy": entropy}).axes
  assert (above.get_ylim()[0] < entropy) == is_line
  texts = [text.get_text() for text in above.texts]
  assert f"entropy {entropy:.3f}" + ("" if is_line else ", below") in texts


def test_saved_figures_are_reproducible(tmp_path):
  digests = []
  for name in ("one", "two"):
    (tmp_path / name).mkdir()
    runs.save_figure(tmp_path / name, "loss", _loss_curve())
    files = sorted((tmp_path / name / "figures").iterdir())
    assert [file.name for file in files] == ["loss.pdf", "loss.png"]
    digests.append([hashlib.sha256(f.read_bytes()).digest() for f in files])
  assert digests[0] == digests[1]


def test_scaling_has_a_panel_and_a_curve_for_each_name():
  x, times = [20, 64, 512], {"textbook": [5, 50, 5000], "ours": [1, 3, 250]}
  figure = curves.scaling({"S = 3": (x, times)}, "T", "ms")
  (axes,) = figure.axes
  FigureCanvasAgg(figure).draw()
  assert axes.get_title() == "S = 3"
  assert axes.get_xscale() == axes.get_yscale() == "log"
  assert [t.get_text() for t in axes.get_xticklabels()] == ["20", "64", "512"]
  for line, (name, y) in zip(axes.lines, times.items(), strict=True):
    assert line.get_label() == name
    assert list(line.get_xdata()) == x
    assert list(line.get_ydata()) == y


def test_bands_draw_the_middle_curve_and_the_range():
  figure = curves.bands(
    {"a": np.array([[0, 1], [2, 3], [1, 2], [4, 5]])}, "step", "loss"
  )
  (axes,) = figure.axes
  np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2, 3])
  box = axes.collections[0].get_paths()[0].get_extents()
  assert (box.y0, box.y1) == (1, 5)


def test_labels_of_a_logarithmic_scatter_do_not_overlap():
  points = {"a": ([0.0021, 0.04], [1.0, 2.0])}
  figure = curves.scatter(points, "rate", "loss", log=True)
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


def test_attention_by_position_omits_positions_without_a_parent():
  figure = curves.attention_by_position(
    [None, 0.9, None, 0.8], [None, 0.3, None, 0.0], [0, 1, 2, 0], [0, 1, 0, 0]
  )
  FigureCanvasAgg(figure).draw()
  above, below = figure.axes
  np.testing.assert_array_equal(above.lines[0].get_xdata(), [1, 3])
  np.testing.assert_array_equal(above.lines[0].get_ydata(), [0.9, 0.8])
  band = above.collections[0].get_paths()[0].get_extents()
  np.testing.assert_allclose((band.y0, band.y1), (0.6, 1))  # a share is below 1
  assert [bar.get_height() for bar in below.patches] == [0, 1, 2, 0, 0, 1, 0, 0]
