from matplotlib.backends.backend_agg import FigureCanvasAgg
import numpy as np

from icl_causal.plotting import selection

POSITIONS, LEVELS = np.array([3, 4, 6]), np.array([0.25, 0.75])


def _model(offset, num_seeds=2):
  of_seed = np.arange(num_seeds)[:, None]
  return {
    "gap_by_position": offset + of_seed + POSITIONS / 10,
    "slope_by_position": offset - of_seed + POSITIONS / 5,
    "calibration": offset + of_seed + LEVELS,
  }


def _panels(models):
  figure = selection.selection(models, POSITIONS, LEVELS)
  FigureCanvasAgg(figure).draw()
  return figure.axes


def _lines(axes, num):
  return [np.stack(line.get_data(), axis=1) for line in axes.lines[:num]]


def test_each_seed_has_a_line_and_each_model_its_mean():
  models = {"deep": _model(0.0), "flat": _model(5.0, 3)}
  panels = _panels(models)
  fields = "gap_by_position", "calibration", "slope_by_position"
  for axes, field in zip(panels, fields, strict=True):
    xs = LEVELS if field == "calibration" else POSITIONS
    expected = []
    for of in models.values():
      expected += [*of[field], of[field].mean(axis=0)]
    found = _lines(axes, len(expected))
    for line, ys in zip(found, expected, strict=True):
      np.testing.assert_allclose(line, np.stack([xs, ys], axis=1))
  texts = [text.get_text() for text in panels[0].get_legend().get_texts()]
  assert texts == ["deep", "flat"]
  colors = {line.get_color() for line in panels[0].lines[:3]}
  assert len(colors) == 1
  assert panels[0].lines[3].get_color() not in colors


def test_missing_slopes_are_left_out_of_the_mean():
  model = _model(0.0)
  model["slope_by_position"][0, 1] = np.nan
  axes = _panels({"deep": model})[2]
  mean = _lines(axes, 3)[2][:, 1]
  expected = model["slope_by_position"].mean(axis=0)
  expected[1] = model["slope_by_position"][1, 1]
  np.testing.assert_allclose(mean, expected)


def test_a_position_without_any_slope_is_a_gap():
  """Without a warning."""
  model = _model(0.0)
  model["slope_by_position"][:, 0] = np.nan
  axes = _panels({"deep": model})[2]
  assert np.isnan(_lines(axes, 3)[2][0, 1])


def test_the_axes_name_their_units():
  gap, attention, slope = _panels({"deep": _model(0.0)})
  assert gap.get_ylabel() == "loss - Bayes (nats)"
  assert attention.get_xlabel() == "posterior weight"
  assert slope.get_xlabel() == "position"
