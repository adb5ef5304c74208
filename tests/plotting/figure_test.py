import numpy as np

from icl_causal import graphs
from icl_causal.plotting import matrices


def test_a_notebook_shows_a_picture():
  """IPython shows what `_repr_png_` returns."""
  graph = graphs.chain(4)
  figure = matrices.graph_and_attention(
    graphs.adjacency(graph), np.tri(4)[None] / 4
  )
  assert figure._repr_png_().startswith(b"\x89PNG\r\n")
