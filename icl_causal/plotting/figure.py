"""A matplotlib figure that a notebook shows as a picture."""

import io

from matplotlib import figure
from matplotlib.backends import backend_agg


class Figure(figure.Figure):
  """A Figure that needs no pyplot to be shown in Jupyter."""

  def _repr_png_(self) -> bytes:
    """The picture, by the name that IPython calls."""
    buffer = io.BytesIO()
    backend_agg.FigureCanvasAgg(self).print_png(buffer)
    return buffer.getvalue()
