import numpy as np

from icl_causal.plotting import positions


def test_curves_bands_and_marks():
  x, y = np.arange(1, 4), np.array([0.3, 0.2, 0.1])
  figure = positions.by_position(
    [
      positions.Panel(
        "one", "nats", {"a": (x, y, 0.1 * y), "b": (x, -y, None)}
      ),
      positions.Panel("two", "share", {"c": (x, y, None)}, {"trained": 2.5}),
      positions.Panel("three", "share", {"c": (x, y, None)}),
    ]
  )
  one, two, three, empty = figure.axes
  np.testing.assert_allclose(one.lines[0].get_xydata(), np.stack([x, y], 1))
  np.testing.assert_allclose(one.lines[1].get_ydata(), -y)
  low, high = (
    one.collections[0].get_paths()[0].vertices[:, 1].min(),
    one.collections[0].get_paths()[0].vertices[:, 1].max(),
  )
  np.testing.assert_allclose([low, high], [0.09, 0.33])
  assert len(three.collections) == 0
  names = [text.get_text() for text in two.get_legend().get_texts()]
  assert names == ["c", "trained"]
  np.testing.assert_allclose(two.lines[1].get_xdata(), [2.5, 2.5])
  assert (one.get_title(), one.get_ylabel()) == ("one", "nats")
  assert not empty.axison
