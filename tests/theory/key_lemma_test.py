"""The check of the key lemma: what it counts, and where the lemma fails."""

import jax
import numpy as np
import pytest

from experiments.theory import key_lemma
from icl_causal import graphs
from icl_causal import models
from icl_causal import sampling
from icl_causal.config import build
from tests.support import theory_checks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows() -> dict:
  config = theory_checks.config(
    "key_lemma",
    T=10,
    cases=((3, 0.1, 0.0, 0.0), (3, 0.1, 0.0, 0.7)),
    num_graphs=4,
    num_batches=16,
    num_kernels=2048,
  )
  table = theory_checks.table(key_lemma.check(config))
  return {(row["stay"], row["graph"]): row for row in table}


@pytest.mark.parametrize("graph", ["forests", "chain"])
def test_the_parent_wins_under_a_constant_mean(rows, graph):
  row = rows[0.0, graph]
  assert row["share, j < i"] == row["share, j <= i"] == 1
  assert row["wrong"] == row["wrong beyond noise"] == 0
  assert row["least z"] > 2
  assert abs(row["R on the diagonal"]) < 0.1 < row["R at the parent"]
  assert row["graphs"] == 4
  assert row["rows"] == 32 or graph != "chain"


@pytest.mark.parametrize("graph", ["forests", "chain"])
def test_the_diagonal_wins_if_kernels_stay(rows, graph):
  """R is stay (S - 1) = 1.4 on the diagonal, more than at the parent."""
  row = rows[0.7, graph]
  assert row["share, j < i"] > 0.9
  assert row["share, j <= i"] == 0
  assert row["wrong"] == row["rows"]
  assert row["wrong beyond noise"] > row["rows"] / 2
  assert row["least z"] < -2
  assert row["R on the diagonal"] == pytest.approx(1.4, abs=0.1)
  assert 0.1 < row["R at the parent"] < 1.2


def test_rows_by_hand():
  """Row 1: the diagonal wins; row 2: the parent 0 wins by twice its error."""
  graph = graphs.from_parents([-1, 0, 0, -1])
  gradient_BxTxT = np.zeros((2, 4, 4))
  gradient_BxTxT[:, 1, :2] = [[0.0, 0.5], [0.2, 0.5]]
  gradient_BxTxT[:, 2, :3] = [[0.4, 0.3, 0.1], [0.8, 0.5, 0.1]]
  rows = key_lemma.compare(gradient_BxTxT, graph)
  assert rows.before.tolist() == [True, True]
  assert rows.including.tolist() == [False, True]
  # Gaps -.5 and -.3, then .1 and .3: means -.4 and .2, both with error .1.
  np.testing.assert_allclose(rows.z, [-4, 2])


def test_gradients_are_of_the_loss_on_fresh_prompts():
  """Batch by batch, against differences of the loss by A1."""
  config: build.Config = theory_checks.config(
    "key_lemma", T=4, num_batches=2, batch_size=64, beta0=0.5
  )
  graph = graphs.from_parents([-1, 0, 1, -1])
  measured = np.asarray(
    key_lemma.start_gradients(config, 3, graph, np.int32(1), (1.0, 0.1, 0.2))
  )
  assert measured.shape == (2, 4, 4)
  assert (np.abs(measured[0] - measured[1])[1] > 0).any()
  model = models.Reduced(3, 4, config.beta0)
  key = jax.random.fold_in(jax.random.key(config.seed + 1), 1)
  batch = sampling.sample_batch(
    jax.random.split(key, 2)[0], graph, key_lemma.sticky(1.0, 0.1, 0.2), 3, 64
  )

  def loss(A1):
    params = {"A1": A1, "A2": config.beta0 * np.eye(3, dtype=np.float32)}
    f = jax.vmap(lambda x_T: model.apply({"params": params}, x_T)[0])(batch.x_T)
    logs = np.log(np.asarray(f, np.float64) + config.epsilon)
    return -(np.asarray(batch.y_S, np.float64) * logs).sum(1).mean()

  for i, j in ((1, 0), (2, 2)):
    step = np.zeros((4, 4), np.float32)
    step[i, j] = 0.05
    slope = (loss(step) - loss(-step)) / 0.1
    np.testing.assert_allclose(measured[0, i, j], -slope, rtol=0.05, atol=2e-6)
