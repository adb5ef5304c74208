import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments import textbook
from icl_causal import models

SIZES = [
  (3, 6, (1,)),
  (2, 5, (2, 1)),
  (4, 5, (1, 2)),
  (2, 4, (2, 1, 2)),
  (10, 20, (1, 1)),
]


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _random(S, T, heads, batch=8):
  """A model, parameters large enough to matter, and prompts with targets."""
  model = models.Disentangled(S, T, heads)
  keys = jax.random.split(jax.random.key(0), 4)
  params = jax.jit(model.init)(keys[0], jnp.zeros(T, int))["params"]
  params = {
    name: jax.random.normal(jax.random.fold_in(keys[1], i), param.shape)
    for i, (name, param) in enumerate(sorted(params.items()))
  }
  x_BxT = jax.random.randint(keys[2], (batch, T), 0, S)
  y_BxS = jax.random.dirichlet(keys[3], jnp.ones(S), (batch,))
  return model, params, x_BxT, y_BxS


def _loss_and_gradient(forward, params, x_BxT, y_BxS):
  def loss(params):
    f_BxS = jax.vmap(lambda x_T: forward(params, x_T))(x_BxT)
    return -(y_BxS * jnp.log(f_BxS)).sum(1).mean()

  return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize(("S", "T", "heads"), SIZES)
def test_forward_and_gradient_are_the_textbook_ones(S, T, heads):
  model, params, x_BxT, y_BxS = _random(S, T, heads)
  loss, gradient = _loss_and_gradient(
    lambda p, x_T: model.apply({"params": p}, x_T)[0], params, x_BxT, y_BxS
  )
  dense_loss, dense_gradient = _loss_and_gradient(
    lambda p, x_T: textbook.disentangled(p, x_T, S)[0], params, x_BxT, y_BxS
  )
  assert loss.dtype == jnp.float64
  np.testing.assert_allclose(loss, dense_loss, atol=1e-12)
  for name in params:
    np.testing.assert_allclose(
      gradient[name], dense_gradient[name], atol=1e-12, err_msg=name
    )


@pytest.mark.parametrize(("S", "T", "heads"), SIZES[1:4])
def test_attention_maps_are_the_textbook_ones(S, T, heads):
  model, params, x_BxT, _ = _random(S, T, heads)
  _, out = jax.jit(model.apply)({"params": params}, x_BxT[0])
  _, maps = textbook.disentangled(params, x_BxT[0], S)
  maps[-1] = maps[-1][:, -1]
  for layer, dense in enumerate(maps, start=1):
    att = out[f"attention_{layer}"]
    assert att.shape == dense.shape
    np.testing.assert_allclose(att, dense, atol=1e-12)


def test_no_position_sees_a_later_one():
  """The gradient of row i's attention is 0 in all entries with j > i.

  And no earlier row changes when a later token does.
  """
  S, T = 3, 6
  model, params, x_BxT, _ = _random(S, T, (1, 2, 1))

  @jax.jit
  def maps(params, x_T):
    _, out = model.apply({"params": params}, x_T)
    return out["attention_1"][0], out["attention_2"][0]

  first_map = jax.jit(jax.jacobian(lambda p: maps(p, x_BxT[0])[0]))
  jacobian = first_map(params)["A1"]
  position_TxTxTxT = jacobian[:, :, 0, S:, S:]
  for i in range(T):
    seen_by_row = np.abs(position_TxTxTxT[i]).max(axis=0)
    expected = (np.arange(T)[:, None] == i) & (np.arange(T)[None] <= i)
    assert ((seen_by_row > 0) == (expected if i else False)).all()
  for j in range(1, T):
    changed = x_BxT[0].at[j].set((x_BxT[0, j] + 1) % S)
    for before, after in zip(
      maps(params, x_BxT[0]), maps(params, changed), strict=True
    ):
      np.testing.assert_array_equal(before[:j], after[:j])
      assert (before[j] != after[j]).any()


def test_zero_start_predicts_uniformly():
  model = models.Disentangled(3, 5, (1, 1))
  x_T = jnp.array([0, 1, 2, 0, 1])
  variables = jax.jit(model.init)(jax.random.key(0), x_T)
  assert all((param == 0).all() for param in variables["params"].values())
  f_S, out = jax.jit(model.apply)(variables, x_T)
  np.testing.assert_allclose(f_S, 1 / 3)
  np.testing.assert_allclose(
    out["attention_1"][0], np.tri(5) / np.arange(1, 6)[:, None]
  )


def test_noise_start():
  model = models.Disentangled(5, 20, (2, 1), noise=1e-4)
  one, other = (
    jax.jit(model.init)(jax.random.key(seed), jnp.zeros(20, int))["params"]
    for seed in (0, 1)
  )
  for name in ("A1", "A2"):
    assert abs(one[name].std() / 1e-4 - 1) < 0.05
    assert (one[name] != other[name]).all()
  assert (one["W"] == 0).all()


def test_matching_start_prefers_tokens_whose_copy_is_the_query():
  """With layer 1 fixed on the position before, layer 2 finds the matches."""
  S, T = 3, 7
  x_T = jnp.array([0, 1, 2, 0, 2, 1, 0])
  model = models.Disentangled(S, T, (1, 1), matching=20.0)
  params = jax.jit(model.init)(jax.random.key(0), x_T)["params"]
  assert (params["A1"] == 0).all()
  previous = 50.0 * jnp.eye(T, k=-1)
  params = params | {"A1": params["A1"].at[0, S:, S:].set(previous)}
  f_S, out = jax.jit(model.apply)({"params": params}, x_T)
  followers = np.zeros(T)
  followers[[1, 4]] = 0.5  # what follows a 0, the query's token
  followers[0] = 0.0
  att_T = np.asarray(out["attention_2"][0])
  # Position 0 attends to itself, a 0, and so matches as well.
  np.testing.assert_allclose(
    att_T, [1 / 3, 1 / 3, 0, 0, 1 / 3, 0, 0], atol=1e-6
  )
  np.testing.assert_allclose(f_S, [1 / 3] * 3, atol=1e-6)


@pytest.mark.parametrize(("S", "T"), [(2, 3), (3, 6), (5, 4)])
def test_reduced_by_its_formula(S, T):
  """X^T softmax(softmax(mask A1) X A2^T x_T), in numpy, matrix by matrix."""
  model = models.Reduced(S, T)
  rng = np.random.default_rng(0)
  params = {"A1": rng.normal(size=(T, T)), "A2": rng.normal(size=(S, S))}
  apply = jax.jit(model.apply)
  for _ in range(5):
    x_T = rng.integers(S, size=T)
    X = np.eye(S)[x_T]
    layer_1 = np.tril(np.exp(params["A1"]))
    layer_1 /= layer_1.sum(axis=1, keepdims=True)
    layer_2 = np.exp(layer_1 @ X @ params["A2"].T @ X[-1])
    layer_2 /= layer_2.sum()
    f_S, out = apply({"params": params}, x_T)
    np.testing.assert_allclose(f_S, X.T @ layer_2, atol=1e-12)
    np.testing.assert_allclose(out["attention_1"], layer_1[None], atol=1e-12)
    np.testing.assert_allclose(out["attention_2"], layer_2[None], atol=1e-12)


def test_reduced_start():
  x_T = jnp.array([0, 1, 2, 1])
  variables = jax.jit(models.Reduced(3, 4, matching=0.2).init)(
    jax.random.key(0), x_T
  )
  np.testing.assert_array_equal(variables["params"]["A1"], np.zeros((4, 4)))
  np.testing.assert_allclose(variables["params"]["A2"], 0.2 * np.eye(3))


def test_refuses():
  x_T = jnp.zeros(4, int)
  with pytest.raises(ValueError, match=r"expected 5 tokens, got shape \(4,\)"):
    models.Disentangled(3, 5, (1, 1)).init(jax.random.key(0), x_T)
  with pytest.raises(ValueError, match=r"expected 5 tokens, got shape \(4,\)"):
    models.Reduced(3, 5).init(jax.random.key(0), x_T)
  with pytest.raises(ValueError, match="for two layers, got 3"):
    models.Disentangled(3, 4, (1, 1, 1), matching=1.0).init(
      jax.random.key(0), x_T
    )
