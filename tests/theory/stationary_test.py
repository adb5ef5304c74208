"""Gradients at sub-k-grams, against counts, loops and difference quotients."""

import itertools

import jax
import numpy as np
import pytest

from configs import theory
from experiments.theory import registry
from experiments.theory import stationary
from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from icl_causal.config import fields

pytestmark = pytest.mark.slow

SMALL = {
  "cases": ((1.0, 2, 1), (0.3, 3, 2)),
  "lengths": (8, 16),
  "num_blocks": 3,
  "batch_size": 8,
  "num_kernels": 32,
}


def _config(**changes):
  config = theory.get_config("stationary")
  config.update(SMALL | changes)
  registry.validate(config)
  return config


def test_rows_of_the_check():
  outcome = stationary.check(_config())
  rows = [dict(zip(outcome.header, row, strict=True)) for row in outcome.rows]
  assert [(row["task"], row["alpha"], row["k"], row["T"]) for row in rows] == [
    *(
      ("norm", alpha, k, T) for alpha, k in ((1, 2), (0.3, 3)) for T in (8, 16)
    ),
    *(("power", 1, 2, None), ("power", 0.3, 3, None)),
    *(("limit", 1, 2, None), ("limit", 0.3, 3, None)),
  ]
  for row in rows[:4]:
    assert row["rest"] > 0
    assert row["error of rest"] > 0
  for row in rows[-2:]:
    assert row["error of skip"] > 0
    assert row["rest"] is None
  found = stationary.gradients(_config(), 1.0, 2, 1, 8)
  assert rows[0]["excess"] == pytest.approx(found.excess_B.mean())
  sizes = {part: g.shape for part, g in found.of_part.items()}
  # A stream of 2 + 2 (2 + 4): A1, U1, A2 and U2 have 8, 16, 196 and 56 entries.
  assert sizes == {"skip": (3, 4), "rest": (3, 8 + 16 + 196 + 56)}
  # The first head is certain, and no other block than `skip` is left out.
  assert np.count_nonzero(found.of_part["rest"][0]) < 8 + 16 + 196 + 56 - 4


def test_the_gradient_of_skip_is_that_of_counts():
  """A score for tokens b, if the token before the last one is a, in numpy."""
  config = _config(num_blocks=3, batch_size=4)
  alpha, k, T, S, size = 1.0, 2, 12, 2, 1e-4
  found = stationary.gradients(config, alpha, k, 1, T)
  assert found.of_part["skip"].shape == (3, S * S)
  keys = jax.random.split(jax.random.key(config.seed + T), 3)
  batch = jax.jit(
    lambda key: sampling.sample_batch(
      key, graphs.kgram(T, k), priors.dirichlet(alpha, "uniform"), S, 4, True
    )
  )(keys[1])

  def loss(x_T, y_TxS, a, b, score):
    # The first position copies itself.
    before_T = np.append(x_T[:1], x_T[:-1])
    losses = []
    for t in range(T // 2, T):
      weights = (before_T[: t + 1] == x_T[t]).astype(float)
      if not weights.sum():
        weights += 1
      if before_T[t] == a:
        weights *= np.exp(score * (x_T[: t + 1] == b))
      p_S = np.bincount(x_T[: t + 1], weights, minlength=S) / weights.sum()
      f_S = (1 - 1 / T) * p_S + 1 / (S * T)
      losses.append(-y_TxS[t] @ np.log(f_S))
    return np.mean(losses)

  x_NxT, y_NxTxS = np.asarray(batch.x_T), np.asarray(batch.y_S, float)
  expected = [
    np.mean(
      [
        (loss(x, y, a, b, size) - loss(x, y, a, b, -size)) / (2 * size)
        for x, y in zip(x_NxT, y_NxTxS, strict=True)
      ]
    )
    for a, b in itertools.product(range(S), repeat=2)
  ]
  np.testing.assert_allclose(found.of_part["skip"][1], expected, atol=2e-5)


def test_a_norm_has_no_bias():
  """The mean square over repetitions is that of the mean; so is the error."""
  rng = np.random.default_rng(0)
  mean_E, B = np.array([0.3, 0.0, -0.4]), 16
  found = [
    stationary.norm_of(mean_E + rng.normal(size=(B, 3))) for _ in range(4000)
  ]
  norms, errors = np.array(found).T
  squares = np.where(norms > 0, norms**2, np.nan)
  clear = rng.normal(size=(200, B, 3)) * 0.1 + mean_E
  norms = np.array([stationary.norm_of(g) for g in clear])
  assert norms[:, 0].mean() == pytest.approx(0.5, abs=0.004)
  assert norms[:, 1].mean() == pytest.approx(norms[:, 0].std(), rel=0.15)
  # Noise of norm sqrt(3 / B) = .43 beside .5 would add .19 to the square.
  assert np.nanmean(squares) < 0.25 + 0.19 / 2
  assert errors.min() > 0


def test_a_power_and_its_error():
  lengths = (8, 16, 32)
  norms = [(3.0 * T**-0.7, 0.01 * T**-0.7) for T in lengths]
  power, error = stationary.power_of(lengths, norms)
  assert power == pytest.approx(-0.7)
  rng = np.random.default_rng(1)
  slopes = [
    np.polyfit(
      np.log(lengths), np.log([n + e * rng.normal() for n, e in norms]), 1
    )[0]
    for _ in range(2000)
  ]
  assert error == pytest.approx(np.std(slopes), rel=0.1)
  assert stationary.power_of(lengths, [(0.0, 1.0), *norms[1:]]) == (None, None)


@pytest.mark.parametrize(("S", "k", "order"), [(2, 2, 1), (3, 2, 1), (2, 3, 1)])
def test_dependence_is_that_of_a_long_chain(S, k, order):
  """The law of k + 1 tokens after many steps, by loops."""
  rng = np.random.default_rng(k)
  kernel = rng.dirichlet(np.ones(S), size=(S,) * k)
  law = np.full((S,) * k, S**-k)
  for _ in range(200):
    law = (law[..., None] * kernel).sum(axis=0)
  np.testing.assert_allclose(stationary.stationary_law(kernel), law, atol=1e-9)
  expected = np.zeros((S, S))
  of = {}
  for tokens in itertools.product(range(S), repeat=k + 1):
    x, *c, y = tokens[k - order - 1 :]
    key = (x, tuple(c), y)
    of[key] = of.get(key, 0) + law[tokens[:-1]] * kernel[tokens]
  for c in itertools.product(range(S), repeat=order):
    total = sum(p for (_, d, _), p in of.items() if d == c)
    for a, b in itertools.product(range(S), repeat=2):
      x = sum(of[a, c, y] for y in range(S))
      y = sum(of[x, c, b] for x in range(S))
      expected[a, b] += of[a, c, b] - x * y / total
  found = stationary.dependence(kernel, order)
  np.testing.assert_allclose(found, expected, atol=1e-9)
  assert np.abs(found).max() > 1e-3


def test_the_limit_is_the_norm_of_the_mean_dependence():
  config = _config(num_kernels=2048)
  found, error = stationary.limit(config, 1.0, 2, 1)
  rng = np.random.default_rng(7)
  blocks = [
    stationary.dependence(rng.dirichlet(np.ones(2), size=(2, 2)), 1)
    for _ in range(2**14)
  ]
  assert found == pytest.approx(
    np.linalg.norm(np.mean(blocks, axis=0)), abs=4 * error
  )
  assert found > 4 * error


def test_a_chain_of_the_order_has_no_dependence():
  kernel = np.random.default_rng(0).dirichlet(np.ones(2), size=(2,))
  same = np.broadcast_to(kernel, (2, 2, 2))
  np.testing.assert_allclose(stationary.dependence(same, 1), 0, atol=1e-12)


def test_kernels_have_the_moments_of_the_prior():
  rng, alpha = np.random.default_rng(0), 0.5
  laws = np.stack([stationary._kernel(rng, alpha, 3, 2) for _ in range(500)])
  np.testing.assert_allclose(laws.sum(axis=-1), 1)
  p = laws[..., 0].ravel()
  assert p.mean() == pytest.approx(1 / 3, abs=4 * p.std() / len(p) ** 0.5)
  variance = (1 / 3) * (2 / 3) / (3 * alpha + 1)
  assert p.var() == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"cases": ((1.0, 2, 2),)}, "must have order < k"),
    ({"cases": ((1.0, 4, 2),)}, "k = 4 must be less than half of 8"),
  ],
)
def test_refused_configs(changes, message):
  with pytest.raises(fields.ConfigError, match=message):
    _config(**changes)
