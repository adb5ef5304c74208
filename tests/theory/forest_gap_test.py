"""The divergence, groups and errors of the check, and a small run of it."""

import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from experiments.theory import forest_gap
from icl_causal import graphs
from icl_causal import models
from tests.support import theory_checks

pytestmark = pytest.mark.slow

GRAPH = graphs.from_parents([-1, 0, 0, -1, 3, -1])


def test_the_bias_of_the_divergence_cancels():
  """With noisy estimates of a known law; a plain estimate is far off."""
  law_S, f_S = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.3, 0.2])
  expected = float((law_S * np.log(law_S / f_S)).sum())
  estimates = np.random.default_rng(0).dirichlet(50 * law_S, (40_000, 2))
  values = np.asarray(
    jax.vmap(forest_gap.divergence, (0, None))(jnp.asarray(estimates), f_S)
  )
  error = values.std() / len(values) ** 0.5
  assert abs(values.mean() - expected) < 4 * error
  one = estimates[:, 0]
  plain = (one * np.log(one / f_S)).sum(axis=1).mean()
  assert plain - expected > 10 * error


def test_layer_1_is_the_graph():
  A1 = forest_gap.set_to_graph(GRAPH, S=3)
  model = models.Disentangled(3, 6, (1, 1))
  x_T = jnp.array([0, 2, 1, 0, 1, 2])
  params = model.init(jax.random.key(0), x_T)["params"] | {"A1": A1}
  attention = model.apply({"params": params}, x_T)[1]["attention_1"][0]
  expected = np.tri(6) / np.arange(1, 7)[:, None]
  for child, parent in ((1, 0), (2, 0), (4, 3)):
    expected[child] = np.eye(6)[parent]
  np.testing.assert_allclose(attention, expected, atol=1e-6)


def test_only_the_chosen_rows_of_A1_are_trained():
  rows_D = jnp.array([0.0, 1.0, 0.0])
  optimizer = forest_gap.only_rows(optax.sgd(1.0), rows_D)
  params = {"A1": jnp.zeros((1, 3, 3)), "W": jnp.zeros((2, 2))}
  gradient = jax.tree.map(jnp.ones_like, params)
  updates, _ = optimizer.update(gradient, optimizer.init(params), params)
  np.testing.assert_array_equal(
    updates["A1"][0], [[0, 0, 0], [-1, -1, -1], [0, 0, 0]]
  )
  np.testing.assert_array_equal(updates["W"], -np.ones((2, 2)))


def test_groups_by_hand():
  """The query is the last token; positions 1, 2 and 4 have parents 0, 0, 3."""
  x_NxT = np.array(
    [
      [0, 1, 2, 0, 1, 2],  # no parent is 2
      [2, 1, 1, 0, 1, 2],  # 0 matches: 1 and 1 follow
      [2, 1, 0, 0, 1, 2],  # 1 and 0 follow
      [2, 1, 1, 2, 0, 2],  # 1, 1 and 0 follow
    ]
  )
  masks = forest_gap.groups(x_NxT, GRAPH, np.array([0, 0.1, 0, 0.2]))
  assert masks["no match"].tolist() == [True, False, False, False]
  equal, different = (
    "matches with equal tokens",
    "matches with different tokens",
  )
  assert masks[equal].tolist() == [False, True, False, False]
  assert masks[different].tolist() == [False, False, True, True]
  assert masks["roots add 0.05 or more"].tolist() == [False, True, False, True]
  assert masks["graphs with fewer than 10 roots"].all()
  assert not masks["graphs with 10 roots or more"].any()


def test_the_error_of_a_ratio_is_that_of_the_jackknife():
  random = np.random.default_rng(1)
  share_G = random.uniform(0.3, 0.5, 40)
  part_G = share_G * random.normal(0.1, 0.02, 40)
  mean, error = forest_gap.ratio(part_G, share_G)
  without = np.array(
    [
      np.delete(part_G, g).mean() / np.delete(share_G, g).mean()
      for g in range(40)
    ]
  )
  jackknife = (39 * without.var()) ** 0.5
  assert mean == part_G.mean() / share_G.mean()
  np.testing.assert_allclose(error, jackknife, rtol=0.05)
  assert forest_gap.ratio(part_G, 0 * share_G) == [None, None]


def test_forest_gap_at_a_small_size():
  config = theory_checks.config(
    "forest_gap", num_graphs=2, num_prompts=64, posterior_samples=16, steps=16
  )
  rows = theory_checks.table(forest_gap.check(config))
  assert len(rows) == 4 * 8
  for start in range(0, len(rows), 8):
    group = rows[start : start + 8]
    for parts in (group[1:4], group[4:6], group[6:8]):
      total = sum(row["part of the mean"] for row in parts)
      np.testing.assert_allclose(total, group[0]["excess"], rtol=1e-6)
      assert abs(sum(row["share"] for row in parts) - 1) < 1e-9
  by_name = {row["predictor"]: row["excess"] for row in rows[::8]}
  assert len(set(by_name.values())) == 4
  assert by_name["edge posterior"] < min(
    value for name, value in by_name.items() if name != "edge posterior"
  )
