"""Parameters in closed form: models that implement a graph, and equal models.

Every function returns (model, params). What implements a graph does so through
a linear read-out, as in the paper: for the reduced model that is f itself, for
the disentangled one `out["logits_S"]`, which is then a law.
"""

import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal import models
from icl_causal.graphs import Graph

_COPY = 50.0  # exp(-50) is nothing beside 1, in float32


def reduced(
  graph: Graph, S: int, match: float | None = None
) -> tuple[models.Reduced, dict]:
  """The construction of section 3, and of 6.2 for several parents.

  Row i of layer 1 attends to the parent of i, one head for each slot, and
  layer 2 to the positions whose copies read as the query does: A2 = match * I.
  Roots attend to all positions alike. As `match` grows, f tends to the law of
  s_{T+1} that the transitions of the prompt show, the mean of the tokens whose
  parents read as the target's do, but for three kinds of positions that this
  model can't tell from children of such parents: a root all of whose earlier
  tokens and itself read as the query does, such as root 0 where s_1 = s_T; with
  heads, the last position, which copies the query itself; and with mixed
  arities a position that has more parents than the target.

  The target's parent is read from the last token where it is that, and else
  from what the last row of layer 1 copied. Not traceable.

  Args:
    graph: over T positions.
    S: number of states.
    match: by default 20 * T, enough for differences under 1e-8.
  """
  parents_TxK = np.asarray(graph.parents_TxK).copy()
  target_K = np.asarray(graph.target_K)
  T, K = parents_TxK.shape
  single = K == 1 and target_K[0] == T - 1
  if not single:
    parents_TxK[-1] = target_K
  A1_KxTxT = _COPY * (parents_TxK.T[:, :, None] == np.arange(T))
  slots_K = target_K != graphs.NO_PARENT
  sharpness = 20.0 * T if match is None else match
  A2_KxSxS = sharpness * slots_K[:, None, None] * np.eye(S)
  params = {"A1": jnp.asarray(A1_KxTxT), "A2": jnp.asarray(A2_KxSxS)}
  if single:
    params = jax.tree.map(lambda a: a[0], params)
  return models.Reduced(S, T, heads=0 if single else K), params


def embed_reduced(
  model: models.Reduced, params: dict
) -> tuple[models.Disentangled, dict]:
  """The disentangled transformer that does what any reduced model does.

  Its `logits_S` are the reduced model's f.
  """
  S, T, heads = model.S, model.T, max(model.heads, 1)
  A1_HxTxT = params["A1"].reshape(heads, T, T)
  A2_HxSxS = params["A2"].reshape(heads, S, S)
  D = S + T
  A1 = jnp.zeros((heads, D, D)).at[:, S:, S:].set(A1_HxTxT)
  A2 = jnp.zeros((1, (1 + heads) * D, (1 + heads) * D))
  for head, A2_SxS in enumerate(A2_HxSxS):
    copy = (1 + head) * D
    query = copy if model.heads else 0
    A2 = A2.at[0, query : query + S, copy : copy + S].set(A2_SxS)
  W = jnp.zeros((2 * (1 + heads) * D, S))
  start = (1 + heads) * D
  W = W.at[start : start + S].set(jnp.eye(S))
  return models.Disentangled(S, T, (heads, 1)), {"A1": A1, "A2": A2, "W": W}


def disentangled(
  graph: Graph, S: int, match: float | None = None
) -> tuple[models.Disentangled, dict]:
  """The construction without the flaws that the reduced model can't avoid.

  Layer 2 also knows the positions, and leaves out those that can't follow the
  target's parents: all with another number of parents, among them the roots,
  and, where it copies the target's parents, the last position. If the target's
  parents read as those of at least one other position, `logits_S` tends to the
  mean of the tokens at these. Ours, after sections 3 and 6.2.

  Args:
    graph: over T positions.
    S: number of states.
    match: as for `reduced`.
  """
  small, params = reduced(graph, S, match)
  model, params = embed_reduced(small, params)
  arity_T = (np.asarray(graph.parents_TxK) != graphs.NO_PARENT).sum(axis=1)
  left_out_T = arity_T != (np.asarray(graph.target_K) >= 0).sum()
  left_out_T[-1] |= small.heads > 0
  penalty = 2 * float(jnp.abs(params["A2"]).max()) * max(small.heads, 1)
  T, D = small.T, S + small.T
  A2 = params["A2"].at[0, D - 1, S : S + T].add(-penalty * left_out_T)
  return model, params | {"A2": A2}


def disentangle(
  model: models.Standard, params: dict
) -> tuple[models.Disentangled, dict]:
  """The disentangled transformer that equals an attention-only one.

  The added stream is a linear image of the concatenated one, h M: M_0 stacks E
  and P, and a layer stacks M, M V_1, .., M V_H. Then A becomes M A M^T and W
  becomes M W.

  Raises:
    ValueError: if the model has more than attention.
  """
  if model.mlp != "none" or model.norm or model.scaled:
    raise ValueError(f"only attention can be disentangled, got {model}")
  M = jnp.concatenate([params["E"], params["P"]])
  equal = {}
  for layer in range(1, len(model.heads) + 1):
    A_HxDxD, V_HxDxD = params[f"A{layer}"], params[f"V{layer}"]
    equal[f"A{layer}"] = jnp.stack([M @ A_DxD @ M.T for A_DxD in A_HxDxD])
    M = jnp.concatenate([M, *(M @ V_DxD for V_DxD in V_HxDxD)])
  equal["W"] = M @ params["W"]
  return models.Disentangled(model.S, model.T, model.heads), equal


def entangle(
  model: models.Disentangled, params: dict
) -> tuple[models.Standard, dict]:
  """The attention-only transformer that equals a disentangled one.

  Its stream is as wide as the last concatenation. Of that the tokens and the
  positions take the first S + T entries, and V_h of a layer moves what is there
  so far, D entries, to the h-th of the next places for D.
  """
  S, T = model.S, model.T
  width = params["W"].shape[0]
  eye = jnp.eye(S + T, width)
  equal = {"E": eye[:S], "P": eye[S:], "W": params["W"]}
  for layer, num_heads in enumerate(model.heads, start=1):
    A_HxDxD = params[f"A{layer}"]
    D = A_HxDxD.shape[1]
    rest = ((0, 0), (0, width - D), (0, width - D))
    equal[f"A{layer}"] = jnp.pad(A_HxDxD, rest)
    equal[f"V{layer}"] = jnp.stack(
      [
        jnp.eye(width, k=head * D) * (jnp.arange(width) < D)[:, None]
        for head in range(1, num_heads + 1)
      ]
    )
  return models.Standard(S, T, model.heads, width), equal
