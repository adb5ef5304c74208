"""The model with relative positions against a dense forward, in numpy."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import models

S, T, REACH = 3, 6, 4
HEADS = [(1,), (2, 1), (1, 2, 1)]


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _random(heads, reach=REACH, T=T, **fields):
  model = models.Relative(S, T, heads, reach, every=True, **fields)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(T, int))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda a: jnp.asarray(rng.normal(size=a.shape)), shapes["params"]
  )
  return model, params


def _softmax(a):
  weights = np.exp(a - a.max(axis=-1, keepdims=True))
  return weights / weights.sum(axis=-1, keepdims=True)


def _dense(params, x_T, heads, reach, read_out="softmax"):
  """(f_TxS, maps by layer), with loops over heads and pairs."""
  h, maps, T = np.eye(S)[x_T], [], len(x_T)
  for layer, num_heads in enumerate(heads, start=1):
    A, U = np.asarray(params[f"A{layer}"]), np.asarray(params[f"U{layer}"])
    copies, layer_maps = [], []
    for head in range(num_heads):
      scores = np.full((T, T), -np.inf)
      for i in range(T):
        for j in range(i + 1):
          distance = min(i - j, reach - 1)
          scores[i, j] = h[i] @ A[head] @ h[j] + h[i] @ U[head][:, distance]
      layer_maps.append(_softmax(scores))
      copies.append(layer_maps[-1] @ h)
      if layer < len(heads):
        copies.append(_by_distance(layer_maps[-1], reach))
    maps.append(np.stack(layer_maps))
    if layer == len(heads) and read_out == "mixture":
      return _dense_mixture(params, h, maps[-1]), maps
    h = np.concatenate([h, *copies], axis=1)
  return _softmax(h @ np.asarray(params["W"])), maps


def _dense_mixture(params, h_TxD, maps_HxTxT):
  """The law of each attended position, weighted by attention and gate."""
  num_heads, T, _ = maps_HxTxT.shape
  G = params.get("G", np.zeros((h_TxD.shape[1], num_heads)))
  gate_TxH = _softmax(h_TxD @ np.asarray(G))
  f_TxS = np.zeros((T, S))
  for t in range(T):
    for head in range(num_heads):
      for j in range(t + 1):
        law_S = _softmax(h_TxD[j] @ np.asarray(params["W"][head]))
        f_TxS[t] += gate_TxH[t, head] * maps_HxTxT[head, t, j] * law_S
  return f_TxS


def _by_distance(map_TxT, reach):
  """The attention at each distance, the last one for all larger ones."""
  shares = np.zeros((len(map_TxT), reach))
  for i in range(len(map_TxT)):
    for j in range(i + 1):
      shares[i, min(i - j, reach - 1)] += map_TxT[i, j]
  return shares


X_T = np.array([0, 2, 1, 1, 0, 2])


@pytest.mark.parametrize("heads", HEADS)
def test_equals_its_formula(heads):
  model, params = _random(heads)
  f_TxS, out = jax.jit(model.apply)({"params": params}, X_T)
  expected_TxS, maps = _dense(params, X_T, heads, REACH)
  np.testing.assert_allclose(f_TxS, expected_TxS, atol=1e-12)
  np.testing.assert_allclose(
    jax.nn.softmax(out["logits_TxS"]), expected_TxS, atol=1e-12
  )
  assert set(out) == {"logits_TxS"} | {
    f"attention_{layer}" for layer in range(1, len(heads) + 1)
  }
  for layer, dense in enumerate(maps, start=1):
    np.testing.assert_allclose(out[f"attention_{layer}"], dense, atol=1e-12)


@pytest.mark.parametrize("heads", [(1,), (1, 1), (2, 1, 3)])
def test_mixture_equals_its_formula(heads):
  model, params = _random(heads, read_out="mixture")
  f_TxS, out = jax.jit(model.apply)({"params": params}, X_T)
  expected_TxS, _ = _dense(params, X_T, heads, REACH, "mixture")
  np.testing.assert_allclose(f_TxS, expected_TxS, atol=1e-12)
  np.testing.assert_allclose(f_TxS.sum(axis=1), 1, atol=1e-12)
  of_heads = {f"attention_{n}" for n in range(1, len(heads) + 1)}
  assert set(out) == of_heads | {"gate"}
  assert ("G" in params) == (heads[-1] > 1)
  last = model.clone(every=False)
  f_S, of_last = jax.jit(last.apply)({"params": params}, X_T)
  np.testing.assert_allclose(f_S, f_TxS[-1], atol=1e-12)
  assert set(of_last) == set(out)
  np.testing.assert_array_equal(of_last["gate"], out["gate"][-1])


@pytest.mark.parametrize("every", [True, False])
def test_streams_are_those_of_the_formula(every):
  model, params = _random((2, 1, 2), period=2)
  model = model.clone(every=every)
  _, out = jax.jit(model.apply)({"params": params}, X_T)
  first, second, third = model.streams(jnp.asarray(X_T), out)
  place_TxP = np.eye(2)[np.arange(T) % 2]
  h_TxD = np.concatenate([np.eye(S)[X_T], place_TxP], axis=1)
  np.testing.assert_array_equal(first, h_TxD)
  for found, layer in ((second, 1), (third, 2)):
    copies = []
    for att in np.asarray(out[f"attention_{layer}"]):
      copies += [att @ h_TxD, _by_distance(att, REACH)]
    h_TxD = np.concatenate([h_TxD, *copies], axis=1)
    np.testing.assert_allclose(found, h_TxD, atol=1e-12)
  assert third.shape[1] == params["W"].shape[0] // 3


def test_a_mixture_averages_laws_and_softmax_averages_logits():
  """Even attention to two tokens; the logits have a constant that cancels."""
  laws_SxS = np.array([[0.9, 0.1], [0.2, 0.8]])
  logits_SxS = np.log(laws_SxS) + np.array([[0.0], [5.0]])
  products = np.sqrt(laws_SxS.prod(axis=0))
  zero = {"A1": jnp.zeros((1, 2, 2)), "U1": jnp.zeros((1, 2, 2))}
  for read_out, W, expected_S in (
    ("mixture", logits_SxS[None], [0.55, 0.45]),
    (
      "softmax",
      np.pad(logits_SxS, ((2, 0), (0, 0))),
      products / products.sum(),
    ),
  ):
    model = models.Relative(2, 2, (1,), 2, read_out=read_out)
    params = zero | {"W": jnp.asarray(W)}
    f_S, _ = jax.jit(model.apply)({"params": params}, jnp.array([0, 1]))
    np.testing.assert_allclose(f_S, expected_S, atol=1e-12)


def test_strict_layers_attend_to_earlier_positions():
  """All but the last; what they copy is that of the renormalized attention."""
  model, params = _random((2, 1, 1))
  _, loose = jax.jit(model.apply)({"params": params}, X_T)
  strict = model.clone(strict=True)
  _, out = jax.jit(strict.apply)({"params": params}, X_T)
  without = np.array(loose["attention_1"]) * (1 - np.eye(T))
  without[:, 0, 0] = 1
  without /= without.sum(axis=2, keepdims=True)
  np.testing.assert_allclose(out["attention_1"], without, atol=1e-12)
  second = np.asarray(out["attention_2"][0])
  assert (np.diag(second)[1:] == 0).all()
  assert second[0, 0] == 1
  assert (np.diag(out["attention_3"][0]) > 0).all()


def test_refuses_an_unknown_read_out():
  with pytest.raises(ValueError, match="got 'linear'"):
    models.Relative(2, 2, (1,), 2, read_out="linear")  # pyright: ignore


@pytest.mark.parametrize("heads", HEADS)
def test_at_the_last_position_alone(heads):
  model, params = _random(heads)
  every, out = jax.jit(model.apply)({"params": params}, X_T)
  last = model.clone(every=False)
  f_S, of_last = jax.jit(last.apply)({"params": params}, X_T)
  np.testing.assert_allclose(f_S, every[-1], atol=1e-12)
  np.testing.assert_allclose(
    of_last["logits_S"], out["logits_TxS"][-1], atol=1e-12
  )
  name = f"attention_{len(heads)}"
  np.testing.assert_allclose(of_last[name], out[name][:, -1], atol=1e-12)
  assert of_last[name].shape == (heads[-1], T)


def test_later_tokens_do_not_matter():
  model, params = _random((2, 1, 1))
  apply = jax.jit(model.apply)
  before, _ = apply({"params": params}, X_T)
  for j in range(1, T):
    changed = X_T.copy()
    changed[j] = (changed[j] + 1) % S
    after, _ = apply({"params": params}, changed)
    np.testing.assert_array_equal(before[:j], after[:j])
    assert (before[j] != after[j]).all()


@pytest.mark.parametrize("length", [1, 4, 11])
def test_the_same_parameters_apply_to_any_length(length):
  model, params = _random((2, 1))
  other = model.clone(T=length)
  x_T = np.resize(X_T, length)
  f_TxS, _ = jax.jit(other.apply)({"params": params}, x_T)
  same, _ = jax.jit(model.apply)({"params": params}, X_T)
  num = min(length, T)
  np.testing.assert_allclose(f_TxS[:num], same[:num], atol=1e-12)
  np.testing.assert_allclose(
    f_TxS, _dense(params, x_T, (2, 1), REACH)[0], atol=1e-12
  )


def test_distances_beyond_the_reach_have_the_last_score():
  """With zero A, attention is a softmax of scores of the clipped distance."""
  model, params = _random((1,), reach=2)
  scores_SxR = jnp.log(jnp.tile(jnp.array([1.0, 3.0]), (S, 1)))
  params |= {"A1": 0 * params["A1"], "U1": scores_SxR[None]}
  _, out = jax.jit(model.apply)({"params": params}, X_T)
  np.testing.assert_allclose(
    out["attention_1"][0, :3],
    [
      [1, 0, 0, 0, 0, 0],
      [3 / 4, 1 / 4] + [0] * 4,
      [3 / 7, 3 / 7, 1 / 7, 0, 0, 0],
    ],
    atol=1e-12,
  )


@pytest.mark.parametrize("read_out", models.READ_OUTS)
def test_gradients_are_finite_and_reach_every_parameter(read_out):
  model, params = _random((2, 2), read_out=read_out)

  def loss(params):
    f_TxS, _ = model.apply({"params": params}, X_T)
    return -jnp.log(f_TxS[jnp.arange(T - 1), X_T[1:]]).mean()

  gradient = jax.jit(jax.grad(loss))(params)
  for name, leaf in gradient.items():
    assert np.isfinite(leaf).all(), name
    assert (leaf != 0).any(), name


def test_start():
  model = models.Relative(5, 40, (2, 1), 30, noise=0.01, every=True)
  one, other = (
    jax.jit(model.init)(jax.random.key(seed), jnp.zeros(40, int))["params"]
    for seed in (0, 1)
  )
  width = 5 + 2 * (5 + 30)
  assert one["A2"].shape == (1, width, width)
  assert one["U1"].shape == (2, 5, 30)
  assert one["W"].shape == (2 * width, 5)
  for name in ("A2", "U1"):
    assert abs(one[name].std() / 0.01 - 1) < 0.25
    assert (one[name] != other[name]).all()
  assert (one["W"] == 0).all()
  f_TxS, _ = model.apply({"params": one}, jnp.zeros(40, int))
  np.testing.assert_allclose(f_TxS, 1 / 5, atol=1e-12)


def test_attributes_and_blocks():
  model = models.Relative(2, 3, [2, 1], 4)  # pyright: ignore
  assert (model.first_layer_heads, model.map_entries) == (2, 18)
  assert model.read_out == "softmax"
  hash(model)  # jit takes a model as a static argument
  params = model.init(jax.random.key(0), jnp.zeros(3, int))["params"]
  matrices = model.parameter_blocks(params)
  assert [block.title for block in matrices] == [
    "A1, head 1",
    "A1, head 2",
    "U1, head 1",
    "U1, head 2",
    "A2",
    "U2",
    "W",
  ]
  for block in matrices:
    sides = (block.row_blocks, block.column_blocks)
    assert block.matrix.shape == tuple(
      sum(size for _, size in side) for side in sides
    )
  names = [name for name, _ in matrices[-1].row_blocks]
  stream = ["token", "token 1.1", "distance 1.1", "token 1.2", "distance 1.2"]
  assert names == [*stream, *(f"{name} 2.1" for name in stream)]


def test_blocks_of_a_mixture():
  model = models.Relative(2, 3, (1, 2), 4, read_out="mixture")
  params = model.init(jax.random.key(0), jnp.zeros(3, int))["params"]
  *_, first, second, gate = model.parameter_blocks(params)
  titles = [first.title, second.title, gate.title]
  assert titles == ["W, head 1", "W, head 2", "G"]
  stream = ["token", "token 1.1", "distance 1.1"]
  for block in (first, second, gate):
    assert [name for name, _ in block.row_blocks] == stream
    assert block.matrix.shape == (2 + 2 + 4, 2)
  assert gate.column_blocks == [("head", 2)]


def test_refuses_wrong_tokens():
  model, params = _random((1, 1))
  with pytest.raises(ValueError, match=r"expected 6 tokens, got shape \(4,\)"):
    model.apply({"params": params}, jnp.zeros(4, int))
  with pytest.raises(ValueError, match="tokens must be from 0 to S - 1 = 2"):
    model.apply({"params": params}, jnp.array([0, 1, 2, 3, 0, 0]))
