"""The check of false parents, without training."""

import jax
import numpy as np
import pytest

from experiments.harness import forests
from experiments.theory import roots
from icl_causal import graphs
from tests.support import theory_checks

pytestmark = pytest.mark.slow


def test_roots_are_counted_on_the_same_graphs(monkeypatch):
  """Training is replaced: the larger batch has one false parent less."""
  seen = []

  def train(config, num_graphs, at_once):
    seen.append((config.graph.T, config.train.batch_size, config.prior.gamma))
    batch = jax.tree.map(
      lambda a: np.stack([a] * num_graphs),
      graphs.from_parents([-1, -1, 0, -1, -1]),
    )
    attention = np.zeros((num_graphs, 1, 5, 5))
    attention[:, 0, [1, 2, 3], [0, 0, 2]] = 0.9
    if config.train.batch_size == 128:
      attention[0, 0, 3, 2] = 0.1
    losses = np.ones((num_graphs, 1))
    baselines = {"dirichlet_edge_posterior": losses}
    return forests.Trained(batch, attention, losses, baselines, None)

  monkeypatch.setattr(forests, "train", train)
  config = theory_checks.config(
    "roots", T=(5,), batch_size=(64, 128), priors=((1.0, 0.1),), num_graphs=2
  )
  small, large = theory_checks.table(roots.check(config))
  assert seen == [(5, 64, 0.1), (5, 128, 0.1)]
  assert small["edges"] == large["edges"] == "2 of 2"
  assert (small["false parents"], large["false parents"]) == (
    "4 of 4",
    "3 of 4",
  )
  assert (small["same as above"], large["same as above"]) == ("-", "3")
