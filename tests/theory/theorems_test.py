"""The check of the theorems: priors, training, errors and slopes."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments.theory import theorems
from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from icl_causal.config import build
from tests.support import theory_checks

pytestmark = pytest.mark.slow


def test_kernel_families_are_what_their_names_say():
  S, gamma = 4, 0.2
  families = theorems.kernel_families(1.0, gamma)
  draws = {
    name: np.asarray(
      jax.jit(jax.vmap(lambda key, prior=prior: prior(key, S, 1)))(
        jax.random.split(jax.random.key(0), 200)
      )
    )
    for name, prior in families.items()
  }
  for name, kernel in draws.items():
    assert kernel.shape == (200, S + 1, S)
    np.testing.assert_allclose(kernel.sum(-1), 1, atol=1e-5, err_msg=name)
    pi, mu = kernel[:, :S], kernel[:, S]
    np.testing.assert_allclose(
      np.einsum("ns,nst->nt", mu, pi), mu, atol=1e-5, err_msg=name
    )
    if name != "deterministic, no floor":
      assert pi.min() >= gamma / S - 1e-6
    assert len(np.unique(pi.round(4), axis=0)) > 10
  for name in ("permutations", "doubly stochastic"):
    np.testing.assert_allclose(draws[name][:, :S].sum(1), 1, atol=1e-5)
  assert set(np.unique(draws["deterministic, no floor"][:, :S])) == {0, 1}
  high = 1 - gamma + gamma / S
  assert set(np.unique(draws["permutations"][:, :S].round(4))) == {
    np.float32(gamma / S).round(4),
    np.float32(high).round(4),
  }


def test_slopes_are_fitted_for_each_run():
  """Slopes -1 and -1/2: mean -3/4, standard error 1/4."""
  T = np.array([8, 16, 32])
  values_TxR = np.stack([3 / T, 2 / T**0.5], axis=1)
  assert theorems.slope(T, values_TxR) == pytest.approx([-0.75, 0.25])
  assert theorems.slope(T, values_TxR, values_TxR * T[:, None]) == (
    pytest.approx([-1, 0], abs=1e-9)
  )
  assert theorems.slope(T, 0 * values_TxR) == ["-", "-"]
  assert theorems.slope(T, values_TxR, 0 * values_TxR) == ["-", "-"]


def test_a_row_says_whether_stage_1_has_converged(monkeypatch):
  least = {"a": 0.95, "b": 0.5, theorems.GRAPH: 1.0, theorems.UNTRAINED: 0.1}

  def measure(config, T):
    values = {}
    for method, attention in least.items():
      error = np.array([0.0, 1 - attention])
      values[method, "forest", theorems.ATTENTION] = error
      values[method, "forest", theorems.EXCESS] = np.array([1 / T, 2 / T])
    return values

  monkeypatch.setattr(theorems, "measure", measure)
  config = theory_checks.config("theorems", T=(8, 16, 32), num_runs=2)
  rows = theory_checks.table(theorems.check(config))
  assert [row["converged"] for row in rows[::2]] == ["yes", "no", "yes", "no"]
  for row in rows:
    assert row["least attention"] == pytest.approx(least[row["layer 1"]])
    assert row["runs"] == 2
  assert rows[0]["slope"] == "-"
  assert rows[1]["T = 16"] == 1.5 / 16
  assert rows[1]["slope"] == pytest.approx(-1)
  assert rows[1]["slope over graph"] == pytest.approx(0, abs=1e-9)


def _tiny(**changes) -> build.Config:
  small = {
    "T": (4, 6),
    "schedules": ((1.0, 1.0),),
    "learning_rate": 40.0,
    "first_steps": 2,
    "second_steps": 2,
    "batch_size": 16,
    "num_runs": 2,
    "test_size": 8,
  }
  return theory_checks.config("theorems", **(small | changes))


def _softmax(a):
  a = np.exp(a - a.max(axis=-1, keepdims=True))
  return a / a.sum(axis=-1, keepdims=True)


def _predict(params, x_T):
  """f = X^T softmax(softmax(mask A1) X A2^T x_T), and the map of layer 1."""
  A1_TxT, A2_SxS = params["A1"], params["A2"]
  T, X = len(x_T), np.eye(len(A2_SxS))[x_T]
  map_TxT = _softmax(np.where(np.tri(T), A1_TxT, -np.inf))
  return X.T @ _softmax(map_TxT @ X @ A2_SxS.T @ X[-1]), map_TxT


def test_training_follows_algorithm_1():
  """Gradient steps on A1 alone, then on A2 alone, at the rates of the start."""
  config, T = _tiny(), 6
  graph = graphs.from_parents([-1, 0, 1, -1, 2, -1])
  run = theorems.Run(graph, np.int32(1))
  start = theorems.Start(
    np.zeros((T, T), np.float32), np.float32(600), np.int32(3)
  )
  trained = theorems.train(config, run, start)
  key = jax.random.fold_in(jax.random.key(config.seed), 1)
  data_key = jax.random.split(key, 3)[1]
  params = {
    "A1": np.zeros((T, T)),
    "A2": config.beta0 * np.eye(3),
  }
  prior = priors.floored_dirichlet(config.alpha, config.gamma)
  model = models.Reduced(3, T)
  for step in range(5):
    batch = sampling.sample_batch(
      jax.random.fold_in(data_key, step), graph, prior, 3, 16
    )

    def loss(params, batch=batch):
      f_BxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
        batch.x_T
      )
      return -(batch.y_S * jnp.log(f_BxS + 1 / T)).sum(axis=1).mean()

    gradient = jax.grad(loss)(jax.tree.map(jnp.float32, params))
    name = "A1" if step < 3 else "A2"
    rate = 600 if step < 3 else config.second_learning_rate
    params[name] = params[name] - rate * np.asarray(gradient[name])
  assert np.abs(params["A1"]).max() > 0.1
  for name, value in params.items():
    np.testing.assert_allclose(trained[name], value, rtol=1e-3, atol=1e-4)


def test_errors_from_their_definitions():
  config = _tiny(gamma=0.2)
  graph = graphs.from_parents([-1, 0, -1, 2, -1])
  random = np.random.default_rng(0)
  params = {
    "A1": random.normal(size=(5, 5)).astype(np.float32),
    "A2": random.normal(size=(3, 3)).astype(np.float32),
  }
  maps, values = theorems.errors(
    config, theorems.Run(graph, np.int32(0)), params
  )
  test_key = jax.random.split(
    jax.random.fold_in(jax.random.key(config.seed), 0), 3
  )[2]
  families = theorems.kernel_families(config.alpha, 0.2)
  largest = []
  for i, (name, prior) in enumerate(families.items()):
    prompts = sampling.sample_batch(
      jax.random.fold_in(test_key, i), graph, prior, 3, 8
    )
    f = np.array([_predict(params, x)[0] for x in prompts.x_T])
    y = np.asarray(prompts.y_S, np.float64)
    error = np.abs(f - y).max(axis=1).mean()
    assert values[f"sup error, {name}"] == pytest.approx(error, rel=1e-4)
    if name == "the prior":
      smooth = (f + 1 / 5) / (1 + 3 / 5)
      excess = (y * np.log(y / smooth)).sum(axis=1).mean()
      assert values[theorems.EXCESS] == pytest.approx(excess, rel=1e-3)
    if name != theorems.NO_FLOOR:
      largest.append(error)
  assert len(largest) == 5
  assert values[theorems.LARGEST] == pytest.approx(max(largest), rel=1e-4)
  map_TxT = _predict(params, prompts.x_T[0])[1]
  np.testing.assert_allclose(maps[0], map_TxT, atol=1e-5)


def test_what_is_measured():
  """The graph has no error, the untrained layer attends with 1 / i."""
  config = _tiny()
  values = theorems.measure(config, 6)
  methods = {method for method, _, _ in values}
  schedule = "rate T^1, steps T^1"
  assert methods == {schedule, theorems.GRAPH, theorems.UNTRAINED}
  assert {graph for _, graph, _ in values} == {"chain", "pairs", "forest"}
  for (method, graph, quantity), by_run in values.items():
    assert by_run.shape == (2,)
    if quantity == theorems.ATTENTION and method == theorems.GRAPH:
      np.testing.assert_allclose(by_run, 0, atol=1e-6)
    elif quantity != theorems.ATTENTION:
      assert by_run[0] != by_run[1]  # runs are independent
    elif method == theorems.UNTRAINED and graph != "forest":
      last = {"chain": 5, "pairs": 4}[graph]  # the last position with a parent
      np.testing.assert_allclose(by_run, 1 - 1 / last, atol=1e-6)
  untrained = values[theorems.UNTRAINED, "chain", theorems.ATTENTION]
  trained = values[schedule, "chain", theorems.ATTENTION]
  assert (trained != untrained).all()


def test_rates_and_steps_grow_by_their_powers():
  config = _tiny(schedules=((2.0, 0.0), (1.0, 1.5)), T=(4, 16))
  run = theorems.Run(graphs.chain(16), np.int32(0))
  starts = theorems.starts(config, 16, [run])
  (square,), (mixed,), (exact,), (untrained,) = starts.values()
  assert (square.rate, square.steps) == (40 * 16, 2)
  assert (mixed.rate, mixed.steps) == (40 * 4, 16)
  assert exact.steps == untrained.steps == 0
  assert exact.A1_TxT.argmax(axis=1).tolist() == [0, *range(14), 0]
  assert (untrained.A1_TxT == 0).all()
