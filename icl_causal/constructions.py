"""Closed-form parameters: models that implement a graph, and equivalent models.

Every function returns (model, params). Models that implement a graph predict
through a linear read-out, as in the paper: f_S of the reduced model, and
`out["logits_S"]` of the disentangled transformer, or its `out["logits_TxS"]`,
which are then laws.
"""

from collections.abc import Sequence

import jax
from jax import numpy as jnp
import numpy as np

from icl_causal import graphs
from icl_causal import latent
from icl_causal import models
from icl_causal.graphs import Graph

_COPY = 50.0  # 1 + exp(-50) == 1 in float32
_NEVER = 100.0  # exp(-100) is 0 beside `latent.LEAST`, too


def reduced(
  graph: Graph, S: int, match: float | None = None
) -> tuple[models.Reduced, dict]:
  """The construction of section 3, and of section 6.2 for several parents.

  In layer 1, row i attends to the parent of i, with one head per parent slot;
  rows of roots attend uniformly. Layer 2 attends to the positions whose copies
  equal the query: A2 = match * I. If the target's parent is the last position,
  the query is the last token; otherwise it is what the last row of layer 1
  copies.

  As `match` grows, f tends to the empirical transition law: the mean of the
  tokens whose parents are in the states of the target's parents. The mean also
  includes three kinds of positions that this model cannot distinguish from
  these:
  - a root, if its token and all tokens before it equal the query's token, such
    as root 0 if s_1 = s_T;
  - with heads, the last position, which copies the query itself;
  - with mixed numbers of parents, a position with more parents than the target.

  Not traceable.

  Args:
    graph: over T positions.
    S: number of states.
    match: scale of A2; with the default 20 * T, f is within 1e-8 of its limit.
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
  """The disentangled transformer whose `logits_S` are a reduced model's f_S."""
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
  """The construction without the errors of `reduced`.

  Layer 2 also reads positions and excludes those that cannot match: positions
  whose number of parents differs from the target's, such as roots, and the last
  position if its row of layer 1 copies the target's parents. `logits_S` tends
  to the mean of the tokens whose parents are in the states of the target's
  parents, if there is at least one. Ours, after sections 3 and 6.2.

  Args:
    graph: over T positions.
    S: number of states.
    match: as for `reduced`.
  """
  small, params = reduced(graph, S, match)
  model, params = embed_reduced(small, params)
  arity_T = (np.asarray(graph.parents_TxK) != graphs.NO_PARENT).sum(axis=1)
  excluded_T = arity_T != (np.asarray(graph.target_K) >= 0).sum()
  excluded_T[-1] |= small.heads > 0
  penalty = 2 * float(jnp.abs(params["A2"]).max()) * max(small.heads, 1)
  T, D = small.T, S + small.T
  A2 = params["A2"].at[0, D - 1, S : S + T].add(-penalty * excluded_T)
  return model, params | {"A2": A2}


def selective(
  lags: Sequence[int], kernel, T: int, strength: float, mean: bool = False
) -> tuple[models.Disentangled, dict]:
  """Three layers that select a lag: `latent.selective` of `graphs.lags`.

  After Proposition 1 of D'Angelo et al. (2025), for row t >= max(lags) - 1 of
  `out["logits_TxS"]`; rows before it predict roots and have no meaning.

  1. Position i attends to i - k with the normalised probability
     q_ik = P(s_i | s_{i-k}) / sum_k P(s_i | s_{i-k}): the scores are log P.
  2. Let m be the least modulus in which the lags differ. Head h attends evenly
     to the positions i <= t with i = t - h (mod m), so the sums over i of their
     copied positions do not collide: the entry of position j is that of the lag
     k with j = t - h - k (mod m). The rest of the attention goes to position 0.
     The attention per position is 1 / (t - max(lags) + 1) with `mean`. Without,
     it is the same for all t, so that sums reach layer 3, not means (ours).
  3. The score of position j = t + 1 - k adds the entries = j - 1 - h (mod m) of
     the heads h, that is, sum_i q_ik. A constant for each t and j subtracts
     what position 0 adds. The token of j is copied, and W applies P.

  Exact but for rounding, which grows with strength * T. Not traceable.

  Args:
    lags: distinct, from 1 to T - 1.
    kernel: (S+1, S); the law of roots, its last row, is not used.
    T: positions.
    strength: as for `latent.selective`.
    mean: as for `latent.selective`.
  """
  graphs.lags(T, lags)  # which checks them
  pi_SxS = np.asarray(kernel)[:-1]
  S, first = pi_SxS.shape[1], max(lags)
  heads = next(
    m for m in range(1, first + 1) if len({k % m for k in lags}) == len(lags)
  )
  t, i = np.arange(T)[:, None], np.arange(T)[None]  # query and key
  is_parent_TxT = np.isin(t - i, lags) & (t >= first)
  A1 = np.zeros((1, S + T, S + T))
  A1[0, :S, :S] = np.log(np.maximum(pi_SxS, latent.LEAST)).T
  A1[0, S:, S:] = _never(is_parent_TxT | ((t == i) & (t < first)))

  weight_HxTxT = np.stack(
    [
      (i >= first) & (i <= t) & ((t - i) % heads == head)
      for head in range(heads)
    ]
  ) / (np.maximum(t - first + 1, 1) if mean else T - first)
  rest_HxT = 1 - weight_HxTxT.sum(axis=2)
  weight_HxTxT[:, :, 0] = rest_HxT
  D = 2 * (S + T)
  A2, A3 = np.zeros((heads, D, D)), np.zeros((1, *2 * [(1 + heads) * D]))
  A2[:, S : S + T, S : S + T] = np.log(np.maximum(weight_HxTxT, 1e-40))

  scale = strength if mean else strength * (T - first)
  is_key_TxT = np.isin(t + 1 - i, lags) & (t >= first - 1)
  is_key_TxT |= (t == i) & (t < first - 1)
  # Scores are at most heads * scale in absolute value.
  A3[0, S : S + T, S : S + T] = (
    _never(is_key_TxT, _NEVER + 2 * heads * abs(scale))
    - scale * rest_HxT[(np.arange(T) - 1) % heads].T
  )
  for head in range(heads):
    entries = (1 + head) * D + 2 * S + T  # of the positions that it copies
    is_added_TxT = (t - i + 1 + head) % heads == 0
    A3[0, entries : entries + T, S : S + T] = scale * is_added_TxT
  W = np.zeros((2 * (1 + heads) * D, S))
  W[(1 + heads) * D :][:S] = pi_SxS
  params = {"A1": A1, "A2": A2, "A3": A3, "W": W}
  model = models.Disentangled(S, T, (1, heads, 1), every=True)
  return model, jax.tree.map(lambda a: jnp.asarray(a, float), params)


def kgram(
  order: int, S: int, T: int, heads: int, match: float | None = None
) -> tuple[models.Relative, dict]:
  """The law of the tokens that followed the last `order` tokens so far (ours).

  Head j of layer 1 attends to distance j, for j <= order. Layer 2 compares the
  token at distance j from the query with that at distance j + 1 from the next
  token, and row t of `out["logits_TxS"]` is the mean of the tokens whose
  `order` predecessors equal the last `order` tokens, if there is one. Heads
  after `order` attend uniformly, and nothing reads them.

  A head with a distance beyond the start attends uniformly, too, so a token at
  i < order counts if all tokens before it, and it, equal the tokens compared.

  Args:
    order: number of tokens compared, from 0 to `heads`.
    S: states.
    T: positions.
    heads: of layer 1.
    match: scale of A2; with the default 20 * T, rows are within 1e-8 of their
      limit.

  Raises:
    ValueError: if `order` is out of range.
  """
  if not 0 <= order <= heads:
    raise ValueError(f"order must be from 0 to {heads} heads, got {order}")
  reach = heads + 2  # the last distance stands for all larger ones
  token = kgram_tokens(S, heads)
  D = S + heads * (S + reach)
  U1 = np.zeros((heads, S, reach))
  A2, W = np.zeros((1, D, D)), np.zeros((2 * D, S))
  sharpness = 20.0 * T if match is None else match
  for j in range(1, order + 1):
    U1[j - 1, :, j] = _COPY
    A2[0, token[j - 1], token[j]] = sharpness * np.eye(S)
  W[D:][token[0]] = np.eye(S)
  params = {
    "A1": np.zeros((heads, S, S)),
    "U1": U1,
    "A2": A2,
    "U2": np.zeros((1, D, reach)),
    "W": W,
  }
  model = models.Relative(S, T, (heads, 1), reach, every=True)
  return model, jax.tree.map(lambda a: jnp.asarray(a, float), params)


def kgram_tokens(S: int, heads: int) -> list[slice]:
  """Where the stream of `kgram` has the own token and that of each head."""
  width = S + heads + 2
  starts = [0, *(S + head * width for head in range(heads))]
  return [slice(start, start + S) for start in starts]


def _never(is_allowed_TxT, penalty: float = _NEVER) -> np.ndarray:
  """Scores: 0 where attention is allowed, else low."""
  return np.where(is_allowed_TxT, 0, -penalty)


def disentangle(
  model: models.Standard, params: dict
) -> tuple[models.Disentangled, dict]:
  """The disentangled transformer equivalent to an attention-only one.

  The stream of `models.Standard` is h M, where h is the concatenated stream. M
  starts as the stack of E and P, and each layer replaces it by the stack of M,
  M V_1, .., M V_H. A becomes M A M^T, and W becomes M W.

  Raises:
    ValueError: if the model has an MLP, norms or scaling.
  """
  if model.mlp != "none" or model.norm or model.scaled:
    raise ValueError(f"the model must be attention-only, got {model}")
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
  """The attention-only transformer equivalent to a disentangled one.

  Its stream is as wide as the final concatenated stream. Tokens and positions
  take the first S + T entries. If D entries are in use before a layer, V_h of
  the layer copies them to the entries h D, .., (h + 1) D - 1.
  """
  S, T = model.S, model.T
  width = params["W"].shape[0]
  eye = jnp.eye(S + T, width)
  equal = {"E": eye[:S], "P": eye[S:], "W": params["W"]}
  for layer, num_heads in enumerate(model.heads, start=1):
    A_HxDxD = params[f"A{layer}"]
    D = A_HxDxD.shape[1]
    padding = ((0, 0), (0, width - D), (0, width - D))
    equal[f"A{layer}"] = jnp.pad(A_HxDxD, padding)
    equal[f"V{layer}"] = jnp.stack(
      [
        jnp.eye(width, k=head * D) * (jnp.arange(width) < D)[:, None]
        for head in range(1, num_heads + 1)
      ]
    )
  return models.Standard(S, T, model.heads, width), equal
