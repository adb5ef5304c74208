import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal.analysis import gradient
from icl_causal.analysis import information
from tests.support import enumeration

FORESTS = {
  "chain": graphs.chain(5),
  "one edge": graphs.from_parents([-1, -1, 0, -1]),
  "roots only": graphs.from_parents([-1, -1, -1]),
  "forest": graphs.from_parents([-1, 0, 0, -1, 3, 1, -1]),
  "no query": graphs.kgram(4, 1),
}


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize("name", FORESTS)
@pytest.mark.parametrize(
  ("epsilon", "read_out"), [(0.0, "linear"), (0.3, "linear"), (0.0, "softmax")]
)
def test_gradient_score_by_enumeration(name, epsilon, read_out):
  graph = FORESTS[name]
  T, S = len(graph.parents_TxK), 3
  kernel = enumeration.random_kernel(2, S, 1)
  laws_TxS = np.einsum("iiss->is", enumeration.pair_laws(graph, kernel))
  is_softmax = read_out == "softmax"
  mu_S = np.ones(S) if is_softmax else laws_TxS[:-1].mean(0) + epsilon
  R = np.full((T, T), 0.0 if is_softmax else -1.0)
  for tokens, probability in enumeration.sequences(graph, kernel):
    for i in range(T):
      for j in range(T):
        R[i, j] += probability * kernel[tokens[j], tokens[i]] / mu_S[tokens[i]]
  R = np.tril(R)
  R[-1] = 0
  R_TxT = gradient.gradient_score(graph, jnp.asarray(kernel), epsilon, read_out)
  np.testing.assert_allclose(R_TxT, R, atol=1e-12)


def test_gradient_score_at_the_parent_is_the_chi2_information():
  graph = FORESTS["forest"]
  kernel = priors.dirichlet(0.5)(jax.random.key(0), 4, 1)
  R = gradient.gradient_score(graph, kernel)
  chi2 = jax.jit(information.chi2_of)(graph, kernel)
  for edge in graphs.edges(graph):
    np.testing.assert_allclose(R[edge], chi2[edge], atol=1e-12)


def test_gradient_score_refuses_an_unknown_read_out():
  graph = FORESTS["chain"]
  kernel = priors.dirichlet(0.5)(jax.random.key(0), 4, 1)
  with pytest.raises(ValueError, match="must be 'linear' or 'softmax'"):
    gradient.gradient_score(graph, kernel, read_out="max")


def test_start_gradient_is_the_gradient_of_the_reduced_model():
  """Compared with the exact gradient over all prompts of one kernel.

  The closed form is of first order in 1/T: its relative error halves from T = 6
  to T = 12, the largest T for which all prompts are enumerated here.
  """
  S, beta0, epsilon = 2, 1e-3, 0.5
  pi = jnp.array([[0.6, 0.4], [0.4, 0.6]])
  kernel = priors.fixed(pi)(None, S, 1)
  errors = []
  for T in (6, 12):
    graph = graphs.chain(T)
    prompts = list(enumeration.sequences(graph, kernel))
    x_NxT = jnp.array([tokens for tokens, _ in prompts])
    weight_N = jnp.array([probability for _, probability in prompts])
    model = models.Reduced(S, T, beta0=beta0)

    @jax.jit
    def loss(A1, model=model, x_NxT=x_NxT, weight_N=weight_N):
      params = {"A1": A1, "A2": beta0 * jnp.eye(S)}
      f_NxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
        x_NxT
      )
      return weight_N @ jax.vmap(metrics.loss, (0, 0, None))(
        f_NxS, pi[x_NxT[:, -1]], epsilon
      )

    exact = -np.asarray(jax.grad(loss)(jnp.zeros((T, T))))
    R_TxT = gradient.gradient_score(graph, kernel, epsilon)
    predicted = np.asarray(gradient.start_gradient(R_TxT, model.start_scale, S))
    assert (predicted[np.triu_indices(T, 1)] == 0).all()
    exact, predicted = exact[1:-1], predicted[1:-1]  # without root and query
    assert (exact.argmax(1) == predicted.argmax(1)).all()
    assert np.corrcoef(exact.ravel(), predicted.ravel())[0, 1] > 0.99
    errors.append(1 - (exact * predicted).sum() / (predicted**2).sum())
  assert 0 < errors[1] < 0.6 * errors[0] < 0.3


def test_fit_by_hand():
  graph = graphs.from_parents([-1, 0, 1, -1])
  predicted = np.zeros((4, 4))
  predicted[1, :2], predicted[2, :3] = (0.5, -0.5), (-0.2, 0.4, -0.2)
  measured = 2 * predicted
  fit = gradient.fit(measured, np.full((4, 4), 0.1), predicted, graph)
  assert fit.correlation == pytest.approx(1)
  assert fit.slope == pytest.approx(2)
  entries = np.array([1, -1, -0.4, 0.8, -0.4])
  assert fit.noise == pytest.approx(0.1 / entries.std())
  assert (fit.edges, fit.recovered) == (2, 2)
  measured[1, 1] = 1.5  # the diagonal above the parent of row 1
  stays = gradient.fit(measured, np.full((4, 4), 0.1), predicted, graph)
  assert (stays.edges, stays.recovered) == (2, 1)
  constant = gradient.fit(0 * measured, np.ones((4, 4)), predicted, graph)
  assert constant[:3] == (None, None, None)
