"""Chains of order k, against counts in numpy."""

import jax
import numpy as np
import pytest

from configs import theory
from experiments.theory import kgram_runs
from experiments.theory import kgrams
from experiments.theory import registry
from icl_causal.config import fields

pytestmark = pytest.mark.slow

SMALL = {
  "T": 8,
  "steps": 2,
  "cases": (
    (2, "distances", 2, 2, 0.03, 2),
    (2, "positions", 1, 3, 0.03, 1),
    (1, "MLP", 1, 2, 0.03, 1),
  ),
  "transfers": ((2, 1),),
  "width": 8,
  "reach": 4,
  "batch_size": 4,
  "num_seeds": 2,
  "test_size": 16,
  "gradient_size": 8,
}


def _config(**changes):
  config = theory.get_config("kgrams")
  config.update(SMALL | changes)
  registry.validate(config)
  return config


@pytest.fixture(scope="module")
def rows():
  outcome = kgrams.check(_config())
  assert len(outcome.figure.axes) == 4
  return [dict(zip(outcome.header, row, strict=True)) for row in outcome.rows]


def test_every_case_has_a_row_and_every_transfer(rows):
  named = [(row["task"], row["k"], row["model"], row["heads"]) for row in rows]
  assert [name for name in named if name[0] == "trained"] == [
    ("trained", 2, "distances", "(2, 1)"),
    ("trained", 2, "positions", "(1, 1, 1)"),
    ("trained", 1, "MLP", "(1, 1)"),
  ]
  assert named[-1] == ("stationary", 2, "distances", "(2, 1)")
  last = rows[-1]
  assert last["order"] == 1
  assert 0 < last["norm / largest"] <= last["norm / start"]
  for row in rows[:3]:
    assert row["largest"] >= row["gap"]
    assert 0 <= row["weight"] <= 1


def test_the_predictors_count_what_follows_the_same_tokens():
  config = _config()
  batch = kgram_runs.sampler(config, 2, 3)(jax.random.key(0))
  laws = np.asarray(kgram_runs.predictors(config, 2, batch.x_T))
  x_NxT, (S, alpha) = np.asarray(batch.x_T), (config.S, config.alpha)
  for n, x_T in enumerate(x_NxT):
    for t in range(2, len(x_T)):
      tokens = np.bincount(x_T[: t + 1], minlength=S) + 1
      np.testing.assert_allclose(
        laws[0, n, t], tokens / tokens.sum(), rtol=1e-5
      )
      for k in (1, 2):
        counts = np.full(S, alpha)
        for i in range(k, t + 1):
          if (x_T[i - k : i] == x_T[t + 1 - k : t + 1]).all():
            counts[x_T[i]] += 1
        np.testing.assert_allclose(
          laws[k, n, t], counts / counts.sum(), rtol=1e-5
        )


def test_a_course_is_that_of_its_prompts():
  """Losses at the start and at the end, over the positions from k on."""
  config = _config()
  case = kgram_runs.Case(*config.cases[0])
  course = kgram_runs.trained(config, case, 2)
  assert kgram_runs.measured_at(4).tolist() == [0, 1, 2, 3, 4]
  assert course.loss_RxN.shape == course.norm_RxN.shape == (2, 5)
  model = kgram_runs.model_of(config, case)
  _, _, test_key = jax.random.split(jax.random.key(config.seed + 1), 3)
  test = kgram_runs.sampler(config, 2, 16)(test_key)
  params = jax.tree.map(lambda a: a[1], course.params)
  f_NxTxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
    test.x_T
  )
  y_NxTxS = np.asarray(test.y_S)
  loss_NxT = -(y_NxTxS * np.log(np.asarray(f_NxTxS))).sum(axis=2)
  assert course.loss_RxN[1, -1] == pytest.approx(loss_NxT[:, 2:].mean(), 1e-4)
  law_NxTxS = np.asarray(kgram_runs.predictors(config, 2, test.x_T))[2]
  best_NxT = -(y_NxTxS * np.log(law_NxTxS)).sum(axis=2)
  assert course.lines_RxL[1, 2] == pytest.approx(best_NxT[:, 2:].mean(), 1e-4)
  last = (loss_NxT - best_NxT)[:, -1].mean()
  assert course.last_R[1] == pytest.approx(last, abs=1e-4)
  # Seeds have different starts and prompts.
  assert np.abs(np.diff(course.loss_RxN[:, -1])) > 1e-4


def test_the_gradient_norm_is_that_of_a_difference_quotient():
  """Along the gradient, the loss changes by the square of the norm."""
  config = _config(gradient_size=16)
  case = kgram_runs.Case(*config.cases[0])
  course = kgram_runs.trained(config, case, 2)
  model = kgram_runs.model_of(config, case)
  _, _, test_key = jax.random.split(jax.random.key(config.seed), 3)
  test = kgram_runs.sampler(config, 2, 16)(test_key)
  params = jax.tree.map(lambda a: a[0], course.params)

  @jax.jit
  def loss(params):
    return jax.vmap(lambda p: kgram_runs.loss_T(model, params, p)[2:].mean())(
      test
    ).mean()

  gradient = jax.grad(loss)(params)
  size = 1e-2 / course.norm_RxN[0, -1]
  ahead, behind = (
    loss(jax.tree.map(lambda p, g, s=s: p + s * g, params, gradient))
    for s in (size, -size)
  )
  square = float(ahead - behind) / (2 * size)
  assert square == pytest.approx(course.norm_RxN[0, -1] ** 2, rel=0.02)


def test_a_plateau_is_named_by_its_line():
  """Of two seeds; the second has none."""
  case = kgram_runs.Case(2, "distances", 2, 2, 0.01, 4)
  steps = kgram_runs.measured_at(256)
  stairs = np.select([steps < 4, steps <= 16], [0.68, 0.41], 0.21)
  norm_N = np.where(steps <= 16, 0.1, 0.5)
  course = kgram_runs.Course(
    None,
    np.stack([stairs, np.full(len(steps), 0.25)]),
    np.stack([norm_N, norm_N]),
    np.array([[0.6, 0.4, 0.2]] * 2),
    np.array([0.0, 0.1]),
    np.array([1.0, 0.5]),
  )
  first, start, second = (
    dict(zip(kgrams.HEADER, row, strict=True))
    for row in kgrams.rows_of(case, 256, 2, course)
  )
  assert first["gap"] == pytest.approx(0.03)
  assert first["error"] == pytest.approx(0.02)
  assert first["largest"] == pytest.approx(0.05)
  assert first["last"] == pytest.approx(0.05)
  assert first["weight"] == pytest.approx(0.75)
  assert first["line k - 1"] == pytest.approx(0.2)
  assert (first["plateaus"], first["steps"]) == (2, 256)
  assert (start["from"], start["to"], start["line"]) == (1, 3, "uniform")
  assert start["distance"] == pytest.approx(0.68 - np.log(2))
  assert (second["from"], second["to"], second["line"]) == (4, 16, 1)
  assert second["seed"] == 0
  assert second["distance"] == pytest.approx(0.01)
  assert second["gap"] == pytest.approx(0.21)
  assert second["norm"] == pytest.approx(0.2)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"transfers": ((2, 2),)}, "must have a case of k, and order < k"),
    ({"transfers": ((3, 1),)}, "must have a case of k"),
    ({"cases": ((9, "MLP", 1, 2, 0.1, 4),)}, "k = 9 must be less than T = 8"),
  ],
)
def test_refused_configs(changes, message):
  with pytest.raises(fields.ConfigError, match=message):
    _config(**changes)
