"""Trained models in the form of other libraries.

A `models.Standard` runs in TransformerLens. Its logits at the last position are
`logits_S`; those at other positions are not trained. With TransformerLens 4:

    arrays = export.transformer_lens(model, params)
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    config = TransformerBridgeConfig(**export.transformer_lens_config(model))
    bridge = TransformerBridge.boot_native(config)
    bridge.load_state_dict(convert_tl_checkpoint(tensors, config))
    logits_BxS = bridge(torch.tensor(x_BxT))[:, -1]

`transformer_lens.utilities.tl_checkpoint_conversion` has the converter. Earlier
versions have HookedTransformerConfig, with the same arguments, and
`HookedTransformer(config).load_state_dict(tensors, strict=False)`: the arrays
do not include the causal masks.

`safetensors.numpy.save_file(arrays, path)` writes the arrays to a file.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import numpy as np

from icl_causal import models

_EPSILON = 1e-6  # of flax.linen.LayerNorm


def transformer_lens_config(model: nn.Module) -> dict[str, Any]:
  """The arguments of TransformerBridgeConfig, or of HookedTransformerConfig.

  All layers have as many heads as the layer with the most. A head is as wide as
  the stream, since `A` and `V` are D x D. Other fields keep their defaults:
  embeddings of positions are learned and added to the stream, attention is
  causal, and scores are divided by sqrt(D).

  Raises:
    ValueError: if TransformerLens has no such architecture.
  """
  model = _standard(model)
  D = model.width
  return {
    "n_layers": len(model.heads),
    "n_heads": max(model.heads),
    "n_ctx": model.T,
    "d_vocab": model.S,
    "d_model": D,
    "d_head": D,
    "d_mlp": D,
    "act_fn": "relu",
    "attn_only": model.mlp == "none",
    "normalization_type": "LN" if model.norm else None,
    "eps": _EPSILON,
  }


def transformer_lens(
  model: nn.Module, params: Mapping
) -> dict[str, np.ndarray]:
  """The parameters of a `models.Standard` under the names of TransformerLens.

  W_Q W_K^T = sqrt(D) A, or A if the model is scaled, and W_V W_O = V; W_K and
  W_O are the identity. A layer with fewer heads than n_heads gets heads of
  zeros, which add nothing to the stream. The factor of `scaled_biases` is part
  of the biases.

  Raises:
    ValueError: if TransformerLens has no such architecture.
  """
  model = _standard(model)
  D, H = model.width, max(model.heads)
  E_SxD = np.array(params["E"])
  dtype = E_SxD.dtype
  zeros_D, zeros_HxD = np.zeros(D, dtype), np.zeros((H, D), dtype)
  eye_HxDxD = np.stack([np.eye(D, dtype=dtype)] * H)
  score_scale = np.asarray(1 if model.scaled else D**0.5, dtype)
  tensors = {
    "embed.W_E": E_SxD,
    "pos_embed.W_pos": np.array(params["P"]),
    "unembed.W_U": np.array(params["W"]),
    "unembed.b_U": np.zeros(model.S, dtype),
  }
  if model.norm:
    tensors |= _norm("ln_final", params["norm_out"])
  for layer in range(1, len(model.heads) + 1):
    block = f"blocks.{layer - 1}"
    tensors |= {
      f"{block}.attn.W_Q": score_scale * _padded(params[f"A{layer}"], H),
      f"{block}.attn.W_K": eye_HxDxD,
      f"{block}.attn.W_V": _padded(params[f"V{layer}"], H),
      f"{block}.attn.W_O": eye_HxDxD,
      f"{block}.attn.b_Q": zeros_HxD,
      f"{block}.attn.b_K": zeros_HxD,
      f"{block}.attn.b_V": zeros_HxD,
      f"{block}.attn.b_O": zeros_D,
    }
    if model.norm:
      tensors |= _norm(f"{block}.ln1", params[f"norm{layer}"])
    if model.mlp == "residual":
      if model.norm:
        tensors |= _norm(f"{block}.ln2", params[f"mlp{layer}_norm"])
      bias_scale = np.asarray(D**0.5 if model.scaled_biases else 1, dtype)
      for end in ("in", "out"):
        linear = params[f"mlp{layer}_{end}"]
        tensors[f"{block}.mlp.W_{end}"] = np.array(linear["kernel"])
        tensors[f"{block}.mlp.b_{end}"] = bias_scale * np.asarray(
          linear["bias"]
        )
  return tensors


def _standard(model: nn.Module) -> models.Standard:
  if not isinstance(model, models.Standard):
    raise ValueError(
      f"TransformerLens has no {type(model).__name__} model: export a Standard "
      "one, or convert it with `constructions.entangle`"
    )
  if model.mlp == "of_attention":
    raise ValueError(
      "TransformerLens has no MLP of the attention (mlp='of_attention'): train "
      "with mlp='none' or 'residual'"
    )
  return model


def _padded(heads_HxDxD, H: int) -> np.ndarray:
  """With heads of zeros up to H heads."""
  missing = H - len(heads_HxDxD)
  return np.pad(heads_HxDxD, [(0, missing), (0, 0), (0, 0)])


def _norm(name: str, params: Mapping) -> dict[str, np.ndarray]:
  scale_D, bias_D = np.array(params["scale"]), np.array(params["bias"])
  return {f"{name}.w": scale_D, f"{name}.b": bias_D}
