import jax
from jax import numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from icl_causal.analysis import dynamics
from icl_causal.analysis import gradient
from icl_causal.analysis import information
from tests.support import enumeration

FORESTS = {
  "one edge": graphs.from_parents([-1, 0, -1]),
  "T = 2": graphs.from_parents([-1, -1]),
  "roots only": graphs.from_parents([-1, -1, -1]),
  "chain": graphs.chain(5),
}


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


def enumerated_score(graph, kernel, epsilon):
  """E g over all prompts of a kernel, from the formula of beta0's slope."""
  T, S = len(graph.parents_TxK), kernel.shape[-1]
  g = np.zeros((T, T))
  for tokens, probability in enumeration.sequences(graph, kernel):
    y = kernel[tokens[-1]]
    p = np.bincount(tokens, minlength=S) / T
    for i in range(T):
      for j in range(i + 1):
        if tokens[j] == tokens[-1]:
          own = y[tokens[i]] / (p[tokens[i]] + epsilon)
          mean = sum(y[s] * p[s] / (p[s] + epsilon) for s in range(S))
          g[i, j] += probability * (own - mean)
  return g


@pytest.mark.parametrize("name", FORESTS)
@pytest.mark.parametrize("S", [2, 3])
def test_finite_score_by_enumeration(name, S):
  graph = FORESTS[name]
  kernel = enumeration.random_kernel(3, S, 1)
  prior = priors.fixed(jnp.asarray(kernel))
  g_TxT, error_TxT = dynamics.finite_score(
    jax.random.key(0), graph, prior, S, 3 * 2**13, 0.1
  )
  expected = enumerated_score(graph, kernel, 0.1)
  difference = np.abs(np.asarray(g_TxT) - expected)
  assert (difference <= 4.5 * np.asarray(error_TxT) + 1e-12).all()
  assert (np.asarray(error_TxT)[np.tril_indices(len(expected))] < 0.02).all()
  assert not np.triu(g_TxT, 1).any()
  assert not np.triu(error_TxT, 1).any()


def test_the_standard_error_is_that_of_single_prompts():
  """Against the spread of independent estimates."""
  graph, prior = graphs.chain(6), priors.dirichlet(0.5)

  @jax.jit
  def estimate(key):
    return dynamics.finite_score(key, graph, prior, 3, 256, 0.1)

  g_NxTxT, error_NxTxT = jax.lax.map(
    estimate, jax.random.split(jax.random.key(1), 400)
  )
  lower = np.tril_indices(6)
  spread = np.asarray(g_NxTxT.std(axis=0, ddof=1))[lower]
  stated = np.asarray(error_NxTxT.mean(axis=0))[lower]
  # The relative error of a standard deviation of 400 values is 3.5 %.
  np.testing.assert_allclose(stated, spread, rtol=0.18)


def test_finite_score_needs_two_prompts():
  with pytest.raises(ValueError, match="at least 2, got 1"):
    dynamics.finite_score(
      jax.random.key(0), graphs.chain(4), priors.dirichlet(1.0), 2, 1
    )


def test_the_error_of_the_score_falls_in_proportion_to_beta0():
  """At a random A1, over all prompts of one kernel, by autodiff."""
  S, epsilon, graph = 2, 0.1, graphs.from_parents([-1, 0, 0, 2, -1])
  T = len(graph.parents_TxK)
  kernel = enumeration.random_kernel(4, S, 1)
  prompts = list(enumeration.sequences(graph, kernel))
  x_NxT = jnp.array([tokens for tokens, _ in prompts])
  weight_N = jnp.array([probability for _, probability in prompts])
  A1_TxT = jnp.asarray(np.random.default_rng(0).normal(size=(T, T)))
  mask_TxT = jnp.tri(T, dtype=bool)
  g_TxT = enumerated_score(graph, kernel, epsilon)
  model = models.Reduced(S, T)

  @jax.jit
  def slope(beta0):
    def loss(A1):
      params = {"A1": A1, "A2": beta0 * jnp.eye(S)}
      f_NxS, _ = jax.vmap(lambda x: model.apply({"params": params}, x))(x_NxT)
      y_NxS = jnp.asarray(kernel)[x_NxT[:, -1]]
      return weight_N @ jax.vmap(metrics.loss, (0, 0, None))(
        f_NxS, y_NxS, epsilon
      )

    return -jax.grad(loss)(A1_TxT) * T / beta0

  att = np.asarray(jax.nn.softmax(jnp.where(mask_TxT, A1_TxT, -jnp.inf)))
  predicted = att * (g_TxT - (att * g_TxT).sum(axis=1, keepdims=True))
  differences = [
    np.abs(np.asarray(slope(beta0)) - predicted).max() for beta0 in (1e-2, 1e-3)
  ]
  assert differences[1] < 1e-3 * np.abs(predicted).max()
  assert differences[0] / differences[1] == pytest.approx(10, rel=0.05)


def test_predicted_attention_is_gradient_descent_on_the_linear_loss():
  T, rate = 4, 3.0
  g = np.random.default_rng(1).normal(size=(T, T))
  mask = np.tri(T, dtype=bool)

  def loss(A1):
    att = jax.nn.softmax(jnp.where(mask, A1, -jnp.inf))
    return -(att * jnp.asarray(g)).sum() / T

  A1, maps = jnp.zeros((T, T)), []
  for _ in range(5):
    maps.append(jax.nn.softmax(jnp.where(mask, A1, -jnp.inf)))
    A1 -= rate * jax.grad(loss)(A1)
  predicted = dynamics.predicted_attention(jnp.asarray(g), rate, 5)
  np.testing.assert_allclose(predicted, np.stack(maps), atol=1e-12)
  # The only key of row 0 keeps all attention, and constants change nothing.
  np.testing.assert_allclose(predicted[:, 0, 0], 1)
  shifted = dynamics.predicted_attention(jnp.asarray(g) + 7.0, rate, 5)
  np.testing.assert_allclose(shifted, predicted, atol=1e-12)


@pytest.mark.parametrize(("i", "T"), [(2, 5), (3, 5), (20, 20), (150, 200)])
def test_half_time_solves_the_replicator_equation(i, T):
  S, gap, rate = 3, 0.2, 9.0

  def velocity(t, a):
    score = np.append(gap / S, np.zeros(i - 1))
    pull = a * (score - a @ score) * rate / T
    return a * (pull - a @ pull)

  def reached(t, a):
    return a[0] - 0.5

  expected = float(dynamics.half_time(i, gap, T, S, rate))
  if i == 2:
    assert expected == 0
    return
  reached.terminal = True
  solution = integrate.solve_ivp(
    velocity,
    (0, 3 * expected),
    np.full(i, 1 / i),
    events=reached,
    rtol=1e-9,
    atol=1e-12,
  )
  assert solution.t_events[0][0] == pytest.approx(expected, rel=1e-5)


def test_half_time_is_the_crossing_of_the_equation_with_one_good_key():
  """Gradient descent with small steps agrees with the flow to a step."""
  T, S, rho, rate = 20, 3, 0.25, 2.0
  graph = graphs.chain(T)
  g_TxT = np.zeros((T, T))
  for child, parent in graphs.edges(graph):
    g_TxT[child, parent] = rho / S
  att = dynamics.predicted_attention(jnp.asarray(g_TxT), rate, 3000)
  steps = dynamics.crossing(att, graph)
  i_E = np.array([child + 1 for child, _ in graphs.edges(graph)])
  expected = dynamics.half_time(i_E, rho, T, S, rate)
  np.testing.assert_allclose(steps, expected, atol=1)


def test_crossing_by_hand():
  graph = graphs.from_parents([-1, 0, 1, 0, -1])
  att = np.zeros((3, 5, 5))
  att[:, 1, 0] = [0.5, 0.6, 0.9]  # reached at the start
  att[:, 2, 1] = [0.3, 0.4, 0.8]  # between steps 1 and 2
  att[:, 3, 0] = [0.2, 0.3, 0.4]  # never reached
  np.testing.assert_allclose(dynamics.crossing(att, graph), [0.0, 1.25, np.inf])
  np.testing.assert_allclose(
    dynamics.crossing(att, graph, 0.3), [0.0, 0.0, 1.0]
  )


def test_crossing_of_several_parents_is_per_edge():
  graph = graphs.from_parents([-1, -1, (0, 1)], (0, 2))
  att = np.zeros((2, 3, 3))
  att[:, 2] = [[0.2, 0.4, 0.4], [0.6, 0.4, 0.0]]
  np.testing.assert_allclose(dynamics.crossing(att, graph), [0.75, np.inf])


def test_rows_of_roots_flatten_as_T_grows():
  """Finite T biases the row of a root against the tokens of a large tree.

  The bias falls as 1/T; the gap of an edge does not.
  """
  prior, bias, gap = priors.fixed(jnp.array([[0.8, 0.2], [0.3, 0.7]])), {}, {}
  for T in (12, 48):
    graph = graphs.from_parents([-1, 0, 1, 2, 3] + [-1] * (T - 5))
    g_TxT, error_TxT = dynamics.finite_score(
      jax.random.key(0), graph, prior, 2, 2**16, 0.1
    )
    bias[T] = float(g_TxT[-2, 2] - g_TxT[-2, 5:-2].mean())
    gap[T] = float(g_TxT[4, 3] - g_TxT[4, :3].mean())
    assert abs(bias[T]) > 5 * float(error_TxT[-2, 2])
  assert abs(bias[48]) < 0.6 * abs(bias[12])
  assert gap[48] > gap[12]


def test_finite_score_is_the_mean_of_label_score():
  graph, prior, S = graphs.chain(5), priors.dirichlet(1.0), 3
  key = jax.random.key(3)
  g_TxT, error_TxT = dynamics.finite_score(key, graph, prior, S, 64, 0.2)
  (only,) = jax.random.split(key, 1)
  batch = sampling.sample_batch(only, graph, prior, S, 64)
  scores = np.stack(
    [
      information.label_score(x_T, y_S, 0.2)
      for x_T, y_S in zip(batch.x_T, batch.y_S, strict=True)
    ]
  )
  np.testing.assert_allclose(g_TxT, scores.mean(axis=0), atol=1e-12)
  np.testing.assert_allclose(
    error_TxT, scores.std(axis=0, ddof=1) / 8, atol=1e-12
  )


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_edge_gap_is_the_gap_of_the_gradient_score(epsilon):
  """On two trees, where the score of independent tokens is known as well."""
  kernel = priors.dirichlet(0.5)(jax.random.key(6), 3, 1)
  graph = graphs.from_parents([-1, 0, -1, -1])
  R_TxT = gradient.gradient_score(graph, kernel, epsilon)
  np.testing.assert_allclose(
    dynamics.edge_gap(kernel, epsilon), R_TxT[1, 0] - R_TxT[2, 0], atol=1e-12
  )
  if epsilon == 0:
    chi2_TxT = information.chi2_of(graph, kernel)
    np.testing.assert_allclose(
      dynamics.edge_gap(kernel), chi2_TxT[1, 0], atol=1e-12
    )
