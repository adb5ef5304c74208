import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from icl_causal import export
from icl_causal import models

S, T, D = 3, 5, 6


def _random(model: models.Standard) -> dict:
  """Random parameters, biases and norms included."""
  tokens_T = np.zeros(T, int)
  params = jax.eval_shape(model.init, jax.random.key(0), tokens_T)["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda a: rng.normal(scale=0.5, size=a.shape).astype(a.dtype), params
  )


def _norm(h_TxD, tensors, name, config):
  """The norm of TransformerLens, if the model has any."""
  if config["normalization_type"] is None:
    return h_TxD
  h_TxD = h_TxD - h_TxD.mean(axis=-1, keepdims=True)
  variance_T = (h_TxD**2).mean(axis=-1, keepdims=True)
  h_TxD = h_TxD / np.sqrt(variance_T + config["eps"])
  return h_TxD * tensors[f"{name}.w"] + tensors[f"{name}.b"]


def _logits(x_T, tensors, config):
  """The forward pass of TransformerLens and its attention, in numpy."""
  tensors = {name: a.astype(np.float64) for name, a in tensors.items()}
  h_TxD = tensors["embed.W_E"][x_T] + tensors["pos_embed.W_pos"]
  attention = []
  for layer in range(config["n_layers"]):
    block = f"blocks.{layer}"
    n_TxD = _norm(h_TxD, tensors, f"{block}.ln1", config)
    q, k, v = (
      np.einsum("td,hde->hte", n_TxD, tensors[f"{block}.attn.W_{name}"])
      + tensors[f"{block}.attn.b_{name}"][:, None]
      for name in "QKV"
    )
    scores_HxTxT = np.einsum("hqe,hke->hqk", q, k) / np.sqrt(config["d_head"])
    att_HxTxT = np.tril(np.exp(scores_HxTxT))
    att_HxTxT /= att_HxTxT.sum(axis=-1, keepdims=True)
    assert len(att_HxTxT) == config["n_heads"]
    attention.append(att_HxTxT)
    W_O = tensors[f"{block}.attn.W_O"]
    h_TxD = h_TxD + np.einsum("hqk,hke,hed->qd", att_HxTxT, v, W_O)
    h_TxD += tensors[f"{block}.attn.b_O"]
    if not config["attn_only"]:
      n_TxD = _norm(h_TxD, tensors, f"{block}.ln2", config)
      mlp = {name: tensors[f"{block}.mlp.{name}"] for name in _MLP}
      hidden = np.maximum(n_TxD @ mlp["W_in"] + mlp["b_in"], 0)
      h_TxD = h_TxD + hidden @ mlp["W_out"] + mlp["b_out"]
  n_TxD = _norm(h_TxD, tensors, "ln_final", config)
  return n_TxD @ tensors["unembed.W_U"] + tensors["unembed.b_U"], attention


_MLP = ("W_in", "b_in", "W_out", "b_out")


@pytest.mark.parametrize("heads", [(1, 1), (2, 3)])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
  ("mlp", "scaled_biases"),
  [("none", False), ("residual", False), ("residual", True)],
)
def test_the_exported_model_has_the_same_logits_and_attention(
  heads, norm, scaled, mlp, scaled_biases, tmp_path
):
  model = models.Standard(
    S, T, heads, D, mlp, norm, scaled, scaled_biases=scaled_biases
  )
  params = _random(model)
  config = export.transformer_lens_config(model)
  path = tmp_path / "model.safetensors"
  safetensors.save_file(export.transformer_lens(model, params), path)
  x_T = np.array([0, 2, 1, 1, 0])
  logits_TxS, attention = _logits(x_T, safetensors.load_file(path), config)
  _, out = jax.jit(model.apply)({"params": params}, x_T)
  size = np.abs(logits_TxS[-1]).max()
  np.testing.assert_allclose(
    out["logits_S"], logits_TxS[-1], rtol=0, atol=1e-5 * max(size, 1)
  )
  first = attention[0][: heads[0]]
  np.testing.assert_allclose(out["attention_1"], first, atol=1e-5)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("mlp", ["none", "residual"])
def test_names_and_shapes_are_those_of_transformer_lens(norm, mlp):
  model = models.Standard(S, T, (2, 1), D, mlp, norm)
  arrays = export.transformer_lens(model, _random(model))
  matrices, vectors = ("W_Q", "W_K", "W_V", "W_O"), ("b_Q", "b_K", "b_V")
  attention = {f"attn.{name}": (2, D, D) for name in matrices}
  attention |= {f"attn.{name}": (2, D) for name in vectors}
  block = attention | {"attn.b_O": (D,)}
  ends = {"unembed.W_U": (D, S), "unembed.b_U": (S,)}
  ends |= {"embed.W_E": (S, D), "pos_embed.W_pos": (T, D)}
  if norm:
    block |= {"ln1.w": (D,), "ln1.b": (D,)}
    ends |= {"ln_final.w": (D,), "ln_final.b": (D,)}
  if mlp == "residual":
    block |= {f"mlp.{name}": (D,) * (1 + (name[0] == "W")) for name in _MLP}
    if norm:
      block |= {"ln2.w": (D,), "ln2.b": (D,)}
  names = {f"blocks.{n}.{name}": block[name] for n in (0, 1) for name in block}
  assert {name: array.shape for name, array in arrays.items()} == ends | names
  dtypes = {array.dtype for array in arrays.values()}
  assert dtypes == {arrays["embed.W_E"].dtype}


@pytest.mark.parametrize(
  ("model", "message"),
  [
    (models.Standard(S, T, (1, 1), D, "of_attention"), "mlp='of_attention'"),
    (models.Disentangled(S, T, (1, 1)), "no Disentangled model"),
    (models.Reduced(S, T), "no Reduced model"),
  ],
)
def test_what_transformer_lens_lacks_is_refused(model, message):
  for export_model in (
    lambda: export.transformer_lens(model, {}),
    lambda: export.transformer_lens_config(model),
  ):
    with pytest.raises(ValueError, match=message) as error:
      export_model()
    assert "\n" not in str(error.value)
