"""By hand on prompts of four and five tokens, and against numpy's fits."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import graphs
from icl_causal import latent
from icl_causal.analysis import selection

LAGS = graphs.lags(4, (1, 2))  # parents -1, -1, 1, 2 and -1, -1, 0, 1
NONE = [0, 0, 0, 0]


def test_next_parents_and_candidates_by_hand():
  np.testing.assert_array_equal(
    selection.next_parents(LAGS), [[-1, 1, 2, 3], [-1, 0, 1, 2]]
  )
  np.testing.assert_array_equal(
    selection.candidates(LAGS),
    [NONE, [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]],
  )
  trees = graphs.tree_examples(1, 3)
  np.testing.assert_array_equal(
    selection.candidates(trees),
    [
      [1, 0, 0, 0, 0],
      [1, 1, 0, 0, 0],
      [0, 0, 0, 0, 0],  # the next token is a root
      [0, 0, 0, 1, 0],
      [0, 0, 0, 1, 1],
    ],
  )


def test_parent_posterior_by_hand():
  w_TxM = jnp.array([[0.5, 0.5], [0.5, 0.5], [0.8, 0.2], [1.0, 0.0]])
  np.testing.assert_allclose(
    selection.parent_posterior(w_TxM, LAGS),
    [NONE, [0.5, 0.5, 0, 0], [0, 0.2, 0.8, 0], [0, 0, 0, 1]],
    atol=1e-6,
  )


def test_the_parent_posterior_copies_as_the_bayes_predictor():
  """With a known kernel, f = sum_j P(parent is j) pi(. | x_j)."""
  kernel = np.random.default_rng(0).dirichlet(np.ones(3), 4)
  kernel[3] = 1 / 3
  kernel = jnp.asarray(kernel, jnp.float32)
  x_T = jnp.array([2, 0, 1, 1])
  w_TxM = latent.graph_posterior(x_T, LAGS, kernel, 3, every=True)
  f_TxS = latent.model_average(x_T, LAGS, kernel, 3, every=True)
  weights_TxT = selection.parent_posterior(w_TxM, LAGS)
  np.testing.assert_allclose(
    (weights_TxT @ kernel[x_T])[1:], f_TxS[1:], atol=1e-6
  )


def test_successor_posterior_by_hand():
  """The tokens are 0, 0, 0, 1, 0.

  With lag 1, the tokens after a 0 are at positions 2 and 3, and after a 1 at 4.
  With lag 2, those two after a 0 are at 2, 3 and 4.
  """
  x_T, graphs_M = jnp.array([0, 0, 0, 1, 0]), graphs.lags(5, (1, 2))
  w_TxM = jnp.array([[0.5, 0.5]] * 3 + [[0.75, 0.25], [0.4, 0.6]])
  np.testing.assert_allclose(
    selection.successor_posterior(x_T, w_TxM, graphs_M),
    [
      [0] * 5,  # the next token is a root
      [0] * 5,  # no position has had a parent yet
      [0, 0, 1, 0, 0],  # both lags seek what followed a 0: position 2
      [0, 0, 0.125, 0.125, 0],  # lag 1 seeks a 1, and no parent was a 1
      # Lag 1 seeks a 0: positions 2 and 3; lag 2 a 1, and no parent was one.
      [0, 0, 0.2, 0.2, 0],
    ],
    atol=1e-6,
  )


@pytest.mark.parametrize(
  "graphs_M", [graphs.lags(6, (1, 2, 3)), graphs.tree_examples(2, 3)]
)
def test_rows_sum_to_the_posterior_of_the_graphs_with_a_match(graphs_M):
  T, rng = graphs_M.parents_TxK.shape[1], np.random.default_rng(0)
  of = jax.jit(selection.successor_posterior)
  for _ in range(5):
    x_T = rng.integers(0, 2, T)
    w_TxM = rng.dirichlet(np.ones(len(graphs_M.target_K)), T)
    found_TxT = of(jnp.asarray(x_T), jnp.asarray(w_TxM), graphs_M)
    expected_TxT = np.zeros((T, T))
    for m, (parents_Tx1, target) in enumerate(
      zip(np.asarray(graphs_M.parents_TxK), graphs_M.target_K, strict=True)
    ):
      parents = [*parents_Tx1[:, 0], int(target[0])]
      for t in range(T):
        if parents[t + 1] < 0:
          continue
        state = x_T[parents[t + 1]]
        matches = [
          i
          for i in range(t + 1)
          if parents[i] >= 0 and x_T[parents[i]] == state
        ]
        for i in matches:
          expected_TxT[t, i] += w_TxM[t, m] / len(matches)
    np.testing.assert_allclose(found_TxT, expected_TxT, atol=1e-6)
    assert (expected_TxT.sum(axis=1) <= 1 + 1e-6).all()


def test_attention_on_graphs_by_hand():
  att_TxT = jnp.array(
    [
      [1.0, 0, 0, 0],
      [0.3, 0.7, 0, 0],
      [0.2, 0.5, 0.3, 0],
      [0.1, 0.2, 0.3, 0.4],
    ]
  )
  np.testing.assert_allclose(
    selection.attention_on_graphs(att_TxT, LAGS),
    [[0, 0], [0.7, 0.3], [0.3, 0.5], [0.4, 0.3]],
    atol=1e-6,
  )


def test_evidence_by_hand():
  """sum_i a2(t, i) a1(i, p_m(i)): only positions 2 and 3 have parents.

  The second head of layer 1 attends evenly.
  """
  first_TxT = jnp.array(
    [
      [1.0, 0, 0, 0],
      [0.4, 0.6, 0, 0],
      [0.1, 0.7, 0.2, 0],  # on the parent: .7 for lag 1, .1 for lag 2
      [0.3, 0.1, 0.5, 0.1],  # .5 for lag 1, .1 for lag 2
    ]
  )
  even_TxT = jnp.asarray(np.tri(4) / np.arange(1, 5)[:, None], jnp.float32)
  first_HxTxT = jnp.stack([first_TxT, even_TxT])
  second_GxTxT = jnp.stack([jnp.eye(4), even_TxT])
  found = selection.evidence(first_HxTxT, second_GxTxT, LAGS)
  assert found.shape == (2, 2, 4, 2)
  np.testing.assert_allclose(
    found[0],
    [
      [[0, 0], [0, 0], [0.7, 0.1], [0.5, 0.1]],
      [[0, 0], [0, 0], [0.7 / 3, 0.1 / 3], [1.2 / 4, 0.2 / 4]],
    ],
    atol=1e-6,
  )
  third = 1 / 3
  np.testing.assert_allclose(
    found[1, 0],
    [[0, 0], [0, 0], [third, third], [0.25, 0.25]],
    atol=1e-6,
  )


def test_contrasts_by_hand():
  weights = jnp.array([[0.5, 0.125, 0.375], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
  mask = jnp.array([[True, True, False], [True, True, False], [False] * 3])
  log = np.log
  np.testing.assert_allclose(
    selection.contrasts(weights, mask, floor=0.01),
    [[log(4) / 2, -log(4) / 2, 0], [log(0.1), -log(0.1), 0], [0, 0, 0]],
    atol=1e-6,
  )
  assert np.isfinite(selection.contrasts(weights, mask)).all()


def test_contrasts_of_a_posterior_are_those_of_log_likelihoods():
  log_M = np.array([-3.0, -1.0, -2.5])
  w_M = jax.nn.softmax(jnp.asarray(log_M))
  np.testing.assert_allclose(
    selection.contrasts(w_M, jnp.ones(3, bool)),
    log_M - log_M.mean(),
    atol=1e-5,
  )


def test_fits_equal_those_of_numpy():
  """By row over the entries of a mask, and over all of them."""
  rng = np.random.default_rng(0)
  x_TxT = rng.normal(size=(4, 7))
  y_TxT = 0.5 * x_TxT + rng.normal(size=(4, 7)) + 2
  mask_TxT = rng.random((4, 7)) < 0.7
  assert mask_TxT.sum(axis=1).min() >= 3
  of = selection.moments(*map(jnp.asarray, (x_TxT, y_TxT, mask_TxT)))
  slope_T, correlation_T = selection.slope_and_correlation(of)
  for t, mask_T in enumerate(mask_TxT):
    x, y = x_TxT[t, mask_T], y_TxT[t, mask_T]
    assert of.n[t] == mask_T.sum()
    assert slope_T[t] == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-4)
    assert correlation_T[t] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-4)
  every = selection.Moments(*(np.asarray(a).sum() for a in of))
  slope, correlation = selection.slope_and_correlation(every)
  x, y = x_TxT[mask_TxT], y_TxT[mask_TxT]
  assert slope == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-4)
  assert correlation == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-4)


def test_constant_or_absent_entries_have_no_fit():
  x = jnp.array([[1.0, 1, 1], [1, 2, 3], [1, 2, 3]])
  y = jnp.array([[1.0, 2, 3], [5, 5, 5], [1, 2, 3]])
  mask = jnp.array([[True] * 3, [True] * 3, [False] * 3])
  slope, correlation = selection.slope_and_correlation(
    selection.moments(x, y, mask)
  )
  np.testing.assert_allclose(slope, [np.nan, 0, np.nan], atol=1e-6)
  assert np.isnan(correlation).all()


def test_several_parents_are_refused():
  graphs_M = graphs.stack([graphs.kgram(5, 2)])
  with pytest.raises(AssertionError):
    selection.candidates(graphs_M)
  with pytest.raises(AssertionError):
    selection.candidates(graphs.chain(5))


def test_a_probe_finds_a_linear_function_on_other_samples():
  """Signal x_0 - 2 x_1 of variance 5, noise of variance 1."""
  rng = np.random.default_rng(0)
  x_NxD = rng.normal(size=(4000, 3))
  signal_N = 7 + x_NxD[:, 0] - 2 * x_NxD[:, 1]
  y_Nx2 = np.stack([signal_N, np.full(4000, 3.0)], axis=1)
  assert selection.linear_probe(x_NxD, y_Nx2) == pytest.approx(1, abs=1e-9)
  y_Nx2[:, 0] += rng.normal(size=4000)
  assert selection.linear_probe(x_NxD, y_Nx2) == pytest.approx(5 / 6, abs=0.02)
  # What the first half alone can explain does not count.
  assert selection.linear_probe(x_NxD[:, 2:], y_Nx2) < 0.01
  doubled = np.concatenate([x_NxD, x_NxD], axis=1)  # dependent features
  assert selection.linear_probe(doubled, y_Nx2) == pytest.approx(
    selection.linear_probe(x_NxD, y_Nx2), abs=1e-9
  )
  noise_NxD = rng.normal(size=(60, 29))
  assert selection.linear_probe(noise_NxD, y_Nx2[:60]) < 0
  with pytest.raises(ValueError, match="targets of a probe must vary"):
    selection.linear_probe(x_NxD, np.ones((4000, 2)))
