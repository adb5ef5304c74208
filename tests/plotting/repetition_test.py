import numpy as np

from icl_causal.plotting import repetition


def test_heat_maps_have_their_values_in_the_cells():
  values = np.array([[0.0, 1.0, 0.25], [0.5, np.nan, 0.75]])
  figure = repetition.heat_maps(
    {"edges": values, "loss": 2 * values, "more": values},
    ["4", "fresh"],
    [0, 8, 16],
  )
  first, second, third = figure.axes
  assert (first.get_title(), third.get_title()) == ("edges", "more")
  texts = [text.get_text() for text in second.texts]
  assert texts == ["0.00", "2.00", "0.50", "1.00", "1.50"]
  ticks = [label.get_text() for label in first.get_yticklabels()]
  assert ticks == ["4", "fresh"]
  np.testing.assert_allclose(first.images[0].get_array()[0], values[0])
