import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import textbook
from icl_causal import blocks
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
  """A model, parameters of order 1, and prompts with targets."""
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
def test_forward_and_gradient_equal_the_textbook_implementation(S, T, heads):
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
def test_attention_maps_equal_the_textbook_implementation(S, T, heads):
  model, params, x_BxT, _ = _random(S, T, heads)
  _, out = jax.jit(model.apply)({"params": params}, x_BxT[0])
  _, maps = textbook.disentangled(params, x_BxT[0], S)
  maps[-1] = maps[-1][:, -1]
  for layer, dense in enumerate(maps, start=1):
    att = out[f"attention_{layer}"]
    assert att.shape == dense.shape
    np.testing.assert_allclose(att, dense, atol=1e-12)


def test_attention_is_causal():
  """Row i has gradient 0 for all j > i and does not depend on later tokens."""
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
    gradient_TxT = np.abs(position_TxTxTxT[i]).max(axis=0)
    expected = (np.arange(T)[:, None] == i) & (np.arange(T)[None] <= i)
    assert ((gradient_TxT > 0) == (expected if i else False)).all()
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


def test_beta0_start_attends_to_positions_whose_copy_is_the_query():
  """Layer 1 is fixed on the previous position; layer 2 attends to matches."""
  S, T = 3, 7
  x_T = jnp.array([0, 1, 2, 0, 2, 1, 0])
  model = models.Disentangled(S, T, (1, 1), beta0=20.0)
  params = jax.jit(model.init)(jax.random.key(0), x_T)["params"]
  assert (params["A1"] == 0).all()
  previous = 50.0 * jnp.eye(T, k=-1)
  params = params | {"A1": params["A1"].at[0, S:, S:].set(previous)}
  f_S, out = jax.jit(model.apply)({"params": params}, x_T)
  att_T = np.asarray(out["attention_2"][0])
  # The query is a 0. Positions 1 and 4 follow a 0; position 0 copies itself, a
  # 0, and so matches as well.
  np.testing.assert_allclose(
    att_T, [1 / 3, 1 / 3, 0, 0, 1 / 3, 0, 0], atol=1e-6
  )
  np.testing.assert_allclose(f_S, [1 / 3] * 3, atol=1e-6)


def test_beta0_start_of_two_heads():
  """Head 1 compares its copy with the query's token, head 2 its two copies."""
  S, T, beta0 = 2, 3, 0.5
  params = models.Disentangled(S, T, (2, 1), beta0=beta0).init(
    jax.random.key(0), jnp.zeros(T, int)
  )["params"]
  A2 = np.zeros((3, S + T, 3, S + T))  # blocks: the stream, copy 1, copy 2
  A2[0, :S, 1, :S] = A2[2, :S, 2, :S] = beta0 * np.eye(S)
  np.testing.assert_array_equal(
    params["A2"][0], A2.reshape(params["A2"][0].shape)
  )
  W = np.zeros((2, 3, S + T, S))  # what layer 2 copies is the second half
  W[1, 0, :S] = beta0 * np.eye(S)
  np.testing.assert_array_equal(params["W"], W.reshape(params["W"].shape))


@pytest.mark.parametrize(("S", "T"), [(2, 3), (3, 6), (5, 4)])
def test_reduced_equals_its_formula(S, T):
  """X^T softmax(softmax(mask A1) X A2^T x_T), in numpy."""
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
  variables = jax.jit(models.Reduced(3, 4, beta0=0.2).init)(
    jax.random.key(0), x_T
  )
  np.testing.assert_array_equal(variables["params"]["A1"], np.zeros((4, 4)))
  np.testing.assert_allclose(variables["params"]["A2"], 0.2 * np.eye(3))


@pytest.mark.parametrize("mlp", ["none", "of_attention", "residual"])
@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("scaled_biases", [False, True])
def test_standard_equals_its_formula(mlp, modern, scaled_biases):
  """In numpy."""
  S, T, D = 3, 5, 4
  model = models.Standard(
    S, T, (2, 1), D, mlp, modern, modern, scaled_biases=scaled_biases
  )
  x_T = np.array([0, 2, 1, 1, 0])
  params = jax.jit(model.init)(jax.random.key(0), x_T)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda a: rng.normal(size=a.shape), params)
  scale = 1 / np.sqrt(D) if modern else 1

  def normed(h, name):
    if not modern:
      return h
    h = (h - h.mean(axis=-1, keepdims=True)) / np.sqrt(
      h.var(axis=-1, keepdims=True) + 1e-6
    )
    return h * params[name]["scale"] + params[name]["bias"]

  def perceptron(h, layer):
    first, second = (params[f"mlp{layer}_{end}"] for end in ("in", "out"))
    factor = np.sqrt(D) if scaled_biases else 1
    hidden = np.maximum(h @ first["kernel"] + factor * first["bias"], 0)
    return hidden @ second["kernel"] + factor * second["bias"]

  h, maps = params["E"][x_T] + params["P"], []
  for layer in (1, 2):
    n = normed(h, f"norm{layer}")
    update = np.zeros_like(h)
    for A, V in zip(params[f"A{layer}"], params[f"V{layer}"], strict=True):
      att = np.tril(np.exp(scale * n @ A @ n.T))
      att /= att.sum(axis=1, keepdims=True)
      maps.append(att)
      update += att @ n @ V
    h = h + (perceptron(update, layer) if mlp == "of_attention" else update)
    if mlp == "residual":
      h = h + perceptron(normed(h, f"mlp{layer}_norm"), layer)
  logits = normed(h[-1], "norm_out") @ params["W"]
  f_S, out = jax.jit(model.apply)({"params": params}, x_T)
  np.testing.assert_allclose(out["logits_S"], logits, atol=1e-10)
  np.testing.assert_allclose(
    f_S, np.exp(logits) / np.exp(logits).sum(), atol=1e-10
  )
  np.testing.assert_allclose(out["attention_1"], maps[:2], atol=1e-10)
  np.testing.assert_allclose(out["attention_2"][0], maps[2][-1], atol=1e-10)


def test_standard_start():
  model = models.Standard(3, 5, (2, 1), 64, "of_attention")
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros(5, int))["params"]
  assert params["V1"].shape == params["A1"].shape == (2, 64, 64)
  assert all((params[name] == 0).all() for name in ("A1", "A2", "W"))
  np.testing.assert_allclose(params["V1"].std(), 1 / 8, rtol=0.05)
  first, second = params["mlp2_in"], params["mlp2_out"]
  np.testing.assert_allclose(first["kernel"].std(), 1 / 8, rtol=0.05)
  assert all((a == 0).all() for a in (first["bias"], *second.values()))


@pytest.mark.parametrize("width", [8, 20])
def test_orthonormal_start(width):
  model = models.Standard(3, 5, (1, 1), width, orthonormal=True)

  @jax.jit
  @jax.vmap
  def embeddings(key):
    params = model.init(key, jnp.zeros(5, int))["params"]
    return jnp.concatenate([params["E"], params["P"]])

  rows_NxRxD = embeddings(jax.random.split(jax.random.key(0), 4096))
  products = rows_NxRxD @ jnp.swapaxes(rows_NxRxD, 1, 2)
  np.testing.assert_allclose(
    products, np.broadcast_to(np.eye(8), products.shape), atol=1e-5
  )
  # In a uniform direction entries have mean 0 and variance 1 / D.
  np.testing.assert_allclose(rows_NxRxD.mean(axis=0), 0, atol=0.03)
  np.testing.assert_allclose((rows_NxRxD**2).mean(axis=0) * width, 1, atol=0.15)


def _starts(model, x_T, num, **replaced):
  """out of `num` initial models, with some parameters at zero or replaced."""

  @jax.jit
  @jax.vmap
  def outputs(key):
    params = model.init(key, x_T)["params"]
    params |= {name: make(params) for name, make in replaced.items()}
    return model.apply({"params": params}, x_T)[1]

  return outputs(jax.random.split(jax.random.key(0), num))


def _assert_mean(samples_Nx, expected):
  error = samples_Nx.std(axis=0) / np.sqrt(len(samples_Nx))
  assert (np.abs(samples_Nx.mean(axis=0) - expected) <= 5 * error).all()
  assert error.max() < 0.03


@pytest.mark.parametrize("mlp", ["none", "of_attention"])
def test_beta0_matches_the_query_with_copied_tokens(mlp):
  """On average over starts, given a layer 1 that attends to the parents.

  The mean of V1 M V1 over orthogonal V1 is M^T / D. So the token that the query
  copied matches with the tokens themselves, 1 / D as much.
  """
  S, T, beta0 = 3, 6, 0.8
  model = models.Standard(
    S, T, (1, 1), S + T, mlp, orthonormal=True, beta0=beta0
  )
  x_T = jnp.array([0, 1, 2, 0, 1, 0])
  parents_T = np.array([0, 0, 1, 0, 2, 5])
  out = _starts(
    model,
    x_T,
    2**12,
    A1=lambda p: 100 * (p["P"].T @ np.eye(T)[parents_T].T @ p["P"]).T[None],
  )
  np.testing.assert_allclose(
    out["attention_1"].mean(axis=(0, 1)), np.eye(T)[parents_T], atol=1e-6
  )
  scores_NxT = np.log(out["attention_2"][:, 0])
  matches_T = (x_T[parents_T] == x_T[-1]).astype(float)
  matches_T += (x_T == x_T[parents_T[-1]]) / model.width
  passed = beta0 * (0.5 if mlp == "of_attention" else 1)
  _assert_mean(
    scores_NxT[:, :-1] - scores_NxT[:, 2:3],  # position 2 does not match
    passed * (matches_T - matches_T[2])[:-1],
  )


@pytest.mark.parametrize("mlp", ["none", "of_attention"])
def test_beta0_reads_the_tokens_that_layer_2_attends_to(mlp):
  """On average over starts; minus the query's own token."""
  S, T, beta0 = 3, 6, 0.8
  model = models.Standard(
    S, T, (1, 1), S + T, mlp, orthonormal=True, beta0=beta0
  )
  x_T = jnp.array([0, 1, 1, 0, 1, 0])
  out = _starts(model, x_T, 2**12, A2=lambda p: jnp.zeros_like(p["A2"]))
  passed = 0.5 if mlp == "of_attention" else 1
  share_S = np.eye(S)[x_T].mean(axis=0)
  _assert_mean(out["logits_S"], beta0 * (passed * share_S - np.eye(S)[x_T[-1]]))


def test_sinks_are_the_first_scores_of_the_last_position():
  model = models.Standard(3, 5, (1, 1), 8, orthonormal=True, sinks=(2.0, 3.0))
  x_T = jnp.array([0, 1, 2, 0, 1])
  out = _starts(model, x_T, 3, V1=lambda p: jnp.zeros_like(p["V1"]))
  uniform = np.tri(5) / np.arange(1, 6)[:, None]
  last = np.append(np.ones(4), np.exp(2))
  uniform[-1] = last / last.sum()
  for maps in out["attention_1"][:, 0]:
    np.testing.assert_allclose(maps, uniform, atol=1e-6)
  last = np.append(np.ones(4), np.exp(3))
  for map_T in out["attention_2"][:, 0]:
    np.testing.assert_allclose(map_T, last / last.sum(), atol=1e-6)


def test_sinks_have_an_entry_per_layer():
  with pytest.raises(ValueError, match=r"\(1.0,\) must have one entry per la"):
    models.Standard(3, 5, (1, 1), 8, sinks=(1.0,))


@pytest.mark.parametrize(
  "fields", [{"orthonormal": False}, {"heads": (2, 1)}, {"heads": (1, 1, 1)}]
)
def test_beta0_needs_two_layers_and_orthonormal_embeddings(fields):
  arguments = {"heads": (1, 1), "width": 8, "orthonormal": True, "beta0": 0.5}
  models.Standard(3, 5, **arguments)
  with pytest.raises(ValueError, match=r"beta0 needs heads \(1, 1\) and orth"):
    models.Standard(3, 5, **(arguments | fields))


def test_orthonormal_embeddings_need_a_large_width():
  with pytest.raises(ValueError, match="a width of at least 8, got 7"):
    models.Standard(3, 5, (1, 1), 7, orthonormal=True)


def test_refuses_an_unknown_mlp():
  with pytest.raises(ValueError, match="mlp 'after' must be one of none, of_"):
    models.Standard(3, 5, (1, 1), 7, mlp="after")


@pytest.mark.parametrize(
  ("model", "maps", "read_out", "start_scale"),
  [
    (models.Reduced(3, 5, beta0=0.5), (1, 0), "linear", 0.5),
    (models.Reduced(3, 5, heads=2), (2, 0), "linear", 0.0),
    (models.Disentangled(3, 5, (2, 1), beta0=0.5), (2, 50), "softmax", 0.25),
    (models.Standard(3, 5, (2, 1), 8), (2, 50 + 40), "softmax", None),
  ],
)
def test_attributes(model, maps, read_out, start_scale):
  assert (model.first_layer_heads, model.map_entries) == maps
  assert model.read_out == read_out
  assert getattr(model, "start_scale", None) == start_scale


@pytest.mark.parametrize(
  ("model", "titles", "A1_blocks"),
  [
    (models.Reduced(2, 3), ["A1", "A2"], [("position", 3)]),
    (
      models.Reduced(2, 3, heads=2),
      ["A1, head 1", "A1, head 2", "A2, head 1", "A2, head 2"],
      [("position", 3)],
    ),
    (
      models.Disentangled(2, 3, (2, 1)),
      ["A1, head 1", "A1, head 2", "A2", "W"],
      [("token", 2), ("position", 3)],
    ),
    (
      models.Standard(2, 3, (1, 1), 5),
      ["E A1 E^T", "E W"],
      [("token", 2), ("position", 3)],
    ),
  ],
)
def test_parameter_blocks(model, titles, A1_blocks):
  x_T = jnp.zeros(3, int)
  params = jax.jit(model.init)(jax.random.key(0), x_T)["params"]
  matrices = model.parameter_blocks(params)
  assert [block.title for block in matrices] == titles
  assert matrices[0].row_blocks == A1_blocks
  for block in matrices:
    sides = (block.row_blocks, block.column_blocks)
    assert block.matrix.shape == tuple(
      sum(size for _, size in side) for side in sides
    )


def test_blocks_of_the_stream_are_named_by_the_path_of_heads():
  names = [name for name, _ in blocks.of_stream(2, 3, (2, 1))][::2]
  copies = ["", " 1.1", " 1.2", " 2.1", " 1.1 2.1", " 1.2 2.1"]
  assert names == [f"token{copy}" for copy in copies]


def test_position_blocks():
  A1_HxTxT = jnp.arange(50.0).reshape(2, 5, 5)
  reduced = models.Reduced(2, 5, heads=2)
  np.testing.assert_array_equal(reduced.position_blocks(A1_HxTxT), A1_HxTxT)
  single = models.Reduced(2, 5)
  np.testing.assert_array_equal(
    single.position_blocks(A1_HxTxT[0]), A1_HxTxT[:1]
  )
  disentangled = models.Disentangled(2, 3, (2, 1))
  np.testing.assert_array_equal(
    disentangled.position_blocks(A1_HxTxT), A1_HxTxT[:, 2:, 2:]
  )


@pytest.mark.parametrize(
  "model",
  [
    models.Reduced(3, 4),
    models.Disentangled(3, 4, (1, 1)),
    models.Standard(3, 4, (1, 1), 7),
  ],
  ids=["reduced", "disentangled", "standard"],
)
def test_refuses_tokens_out_of_range(model):
  """A one-hot token would be zero; traced tokens have no values to check."""
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros(4, int))
  message = "^tokens must be from 0 to S - 1 = 2, got 3"
  with pytest.raises(ValueError, match=message):
    model.apply(variables, jnp.array([0, 1, 2, 3]))
  jax.eval_shape(model.apply, variables, jnp.array([0, 1, 2, 3]))


def test_heads_may_be_a_list():
  for model in (
    models.Disentangled(3, 4, [2, 1]),  # pyright: ignore
    models.Standard(3, 4, [2, 1], 7),  # pyright: ignore
  ):
    assert model.heads == (2, 1)
    hash(model)  # jit takes a model as a static argument


def test_refuses_wrong_sizes():
  x_T = jnp.zeros(4, int)
  with pytest.raises(ValueError, match=r"expected 5 tokens, got shape \(4,\)"):
    models.Disentangled(3, 5, (1, 1)).init(jax.random.key(0), x_T)
  with pytest.raises(ValueError, match=r"expected 5 tokens, got shape \(4,\)"):
    models.Reduced(3, 5).init(jax.random.key(0), x_T)
  with pytest.raises(ValueError, match="for two layers, got 3"):
    models.Disentangled(3, 4, (1, 1, 1), beta0=1.0).init(jax.random.key(0), x_T)


EVERY = {
  "reduced": models.Reduced(3, 6),
  "reduced, two heads": models.Reduced(3, 6, heads=2),
  "disentangled, one layer": models.Disentangled(3, 6, (1,)),
  "disentangled": models.Disentangled(3, 6, (2, 1)),
  "disentangled, three layers": models.Disentangled(3, 6, (1, 2, 1)),
  "standard": models.Standard(3, 6, (2, 1), 4),
  "standard, modern": models.Standard(3, 6, (2, 1), 4, "residual", True, True),
  "standard, as for figure 8": models.Standard(3, 6, (1, 1), 4, "of_attention"),
}
_X_T = np.array([0, 2, 1, 1, 0, 2])


def _every(name):
  """(the model at every position, at the last one, random parameters)."""
  last = EVERY[name]
  shapes = jax.eval_shape(last.init, jax.random.key(0), _X_T)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), shapes)
  return last.clone(every=True), last, params


@pytest.mark.parametrize("name", EVERY)
def test_the_last_row_is_the_model_at_the_last_position(name):
  """And the parameters have the same shapes and start."""
  model, last, params = _every(name)
  f_TxS, out = jax.jit(model.apply)({"params": params}, _X_T)
  f_S, of_last = jax.jit(last.apply)({"params": params}, _X_T)
  assert f_TxS.shape == (6, 3)
  np.testing.assert_allclose(f_TxS.sum(axis=1), 1, atol=1e-12)
  np.testing.assert_allclose(f_TxS[-1], f_S, atol=1e-12)
  if "logits_S" in of_last:
    np.testing.assert_allclose(
      out["logits_TxS"][-1], of_last["logits_S"], atol=1e-12
    )
    np.testing.assert_allclose(
      jax.nn.softmax(out["logits_TxS"]), f_TxS, atol=1e-12
    )
  maps = [name for name in of_last if name.startswith("attention")]
  assert maps == [name for name in out if name.startswith("attention")]
  for layer in maps:
    is_last = of_last[layer].ndim == 2
    assert is_last == (layer == maps[-1])
    assert out[layer].ndim == 3
    found = out[layer][:, -1] if is_last else out[layer]
    np.testing.assert_allclose(found, of_last[layer], atol=1e-12)
    np.testing.assert_array_equal(np.triu(out[layer], 1), 0)
  starts = [
    jax.jit(of.init)(jax.random.key(1), _X_T)["params"] for of in (model, last)
  ]
  jax.tree.map(np.testing.assert_array_equal, *starts)


@pytest.mark.parametrize("name", EVERY)
def test_later_tokens_do_not_change_a_row(name):
  model, _, params = _every(name)
  apply = jax.jit(model.apply)
  before, _ = apply({"params": params}, _X_T)
  for j in range(1, 6):
    changed = _X_T.copy()
    changed[j] = (changed[j] + 1) % 3
    after, _ = apply({"params": params}, changed)
    np.testing.assert_array_equal(before[:j], after[:j])
    assert (before[j] != after[j]).any()


@pytest.mark.parametrize("name", EVERY)
def test_the_gradient_at_every_position_is_finite(name):
  model, _, params = _every(name)

  def loss(params):
    f_TxS, _ = model.apply({"params": params}, _X_T)
    return -jnp.log(f_TxS[np.arange(5), _X_T[1:]] + 0.01).mean()

  gradient = jax.jit(jax.grad(loss))(params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["A1"]))


def test_a_row_is_the_textbook_implementation_on_the_prompt_so_far():
  """With the parameters of the positions so far."""
  S, T, heads = 4, 5, (1, 2)
  _, params, x_BxT, _ = _random(S, T, heads, batch=1)
  model = models.Disentangled(S, T, heads, every=True)
  f_TxS, _ = jax.jit(model.apply)({"params": params}, x_BxT[0])
  dense = jax.jit(lambda params, x_T: textbook.disentangled(params, x_T, S)[0])
  for num in (2, T):
    own = np.arange(S + num)
    fewer = {}
    for name, param in params.items():
      copies = param.shape[int(name != "W")] // (S + T)
      kept = (np.arange(copies)[:, None] * (S + T) + own).ravel()
      param = np.asarray(param)
      fewer[name] = param[kept] if name == "W" else param[:, kept][:, :, kept]
    f_S = dense(fewer, x_BxT[0, :num])
    np.testing.assert_allclose(f_TxS[num - 1], f_S, atol=1e-12)


def test_reduced_at_every_position_equals_its_formula():
  """Row t: X^T softmax(mask(sum_h C_h A2_h^T c_ht)), in numpy."""
  S, T = 3, 6
  for name in ("reduced", "reduced, two heads"):
    model, last, params = _every(name)
    f_TxS, _ = model.apply({"params": params}, _X_T)
    X = np.eye(S)[_X_T]
    A1_HxTxT = np.reshape(params["A1"], (-1, T, T))
    A2_HxSxS = np.reshape(params["A2"], (-1, S, S))
    maps = np.tril(np.exp(A1_HxTxT))
    maps /= maps.sum(axis=2, keepdims=True)
    for t in range(T):
      scores = np.zeros(t + 1)
      for att, A2 in zip(maps, A2_HxSxS, strict=True):
        query = (att @ X)[t] if last.heads else X[t]
        scores += (att @ X)[: t + 1] @ A2.T @ query
      match = np.exp(scores) / np.exp(scores).sum()
      np.testing.assert_allclose(f_TxS[t], X[: t + 1].T @ match, atol=1e-12)
