import itertools

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from icl_causal import constructions
from icl_causal import graphs
from icl_causal import latent
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from tests.support import enumeration

GRAPHS = {
  "chain": (graphs.chain(20), 10),
  "forest": (graphs.random_forest(jax.random.key(1), 20, 0.5), 3),
  "two states": (graphs.random_tree(jax.random.key(2), 5), 2),
  "no query": (graphs.kgram(12, 1), 3),
  "target elsewhere": (graphs.from_parents([-1, 0, 1, 0, 3, 2], [2]), 2),
  "two parents": (graphs.half_and_previous(32), 5),
  "three parents": (graphs.kgram(24, 3), 2),
  "mixed arities": (
    graphs.from_parents([-1, 0, (0, 1), 1, (1, 3), (0, 4), 2, (2, 5)], (5, 6)),
    2,
  ),
  "target of lower arity": (
    graphs.from_parents([-1, 0, (0, 1), 1, (1, 3), 4, 2, 3], (6,)),
    2,
  ),
}


def _prompts(graph, S, num=3000):
  draw = jax.jit(sampling.sample_batch, static_argnums=(2, 3, 4))
  prior = priors.dirichlet(1.0)
  return np.asarray(draw(jax.random.key(0), graph, prior, S, num).x_T)


def _outputs(model, params, x_NxT):
  apply = jax.jit(jax.vmap(lambda x_T: model.apply({"params": params}, x_T)))
  return apply(x_NxT)


def _transition(x_T, graph, S, excluded):
  """The mean of the tokens whose parents equal the target's, or None."""

  def tokens(parents):
    return [x_T[p] for p in parents if p >= 0]

  query = tokens(np.asarray(graph.target_K))
  matches = [
    x_T[i]
    for i, parents in enumerate(np.asarray(graph.parents_TxK))
    if tokens(parents) == query and i not in excluded
  ]
  return np.bincount(matches, minlength=S) / len(matches) if matches else None


@pytest.mark.parametrize("name", GRAPHS)
def test_disentangled_is_the_empirical_transition(name):
  graph, S = GRAPHS[name]
  T, K = graph.parents_TxK.shape
  x_NxT = _prompts(graph, S)
  model, params = constructions.disentangled(graph, S)
  # If the last row of layer 1 copies the target's parents, it does not copy the
  # parents of the last position, which is then excluded.
  single = K == 1 and graph.target_K[0] == T - 1
  excluded = [] if single else [T - 1]
  transitions = [_transition(x_T, graph, S, excluded) for x_T in x_NxT]
  defined = [n for n, law in enumerate(transitions) if law is not None][:1000]
  assert len(defined) == 1000
  _, out = _outputs(model, params, x_NxT[defined])
  expected = np.array([transitions[n] for n in defined])
  np.testing.assert_allclose(out["logits_S"], expected, atol=1e-5)


def _reduced_limit(x_T, graph, S):
  """The mean of the tokens whose copies equal the query, or None."""
  parents_TxK = np.asarray(graph.parents_TxK).copy()
  target_K = np.asarray(graph.target_K)
  T, K = parents_TxK.shape
  if K > 1 or target_K[0] != T - 1:
    parents_TxK[-1] = target_K
  score_T = np.zeros(T)
  for slot in np.flatnonzero(target_K >= 0):
    for i in range(T):
      parent = parents_TxK[i, slot]
      copied = x_T[: i + 1] if parent < 0 else x_T[[parent]]
      score_T[i] += np.mean(copied == x_T[target_K[slot]])
  matches = np.isclose(score_T, (target_K >= 0).sum())
  if not matches.any():
    return None
  return np.bincount(x_T[matches], minlength=S) / matches.sum()


@pytest.mark.parametrize("name", GRAPHS)
def test_reduced_is_the_mean_over_the_matches(name):
  graph, S = GRAPHS[name]
  x_NxT = _prompts(graph, S)
  model, params = constructions.reduced(graph, S)
  limits = [_reduced_limit(x_T, graph, S) for x_T in x_NxT]
  defined = [n for n, limit in enumerate(limits) if limit is not None][:1000]
  assert len(defined) == 1000
  x_NxT, limits = x_NxT[defined], np.array([limits[n] for n in defined])
  f_NxS, _ = _outputs(model, params, x_NxT)
  np.testing.assert_allclose(f_NxS, limits, atol=1e-5)
  large, embedded = constructions.embed_reduced(model, params)
  _, out = _outputs(large, embedded, x_NxT)
  np.testing.assert_allclose(out["logits_S"], f_NxS, atol=1e-6)


def test_reduced_is_the_empirical_transition_unless_root_0_matches():
  graph, S = GRAPHS["chain"]
  x_NxT = _prompts(graph, S)
  f_NxS, _ = _outputs(*constructions.reduced(graph, S), x_NxT)
  transitions = [_transition(x_T, graph, S, []) for x_T in x_NxT]
  equal_N = np.array(
    [
      law is not None and np.abs(law - f_S).max() < 1e-5
      for law, f_S in zip(transitions, f_NxS, strict=True)
    ]
  )
  root_matches_N = x_NxT[:, 0] == x_NxT[:, -1]
  has_match_N = np.array([law is not None for law in transitions])
  assert np.all(equal_N[has_match_N & ~root_matches_N])
  # With s_1 = s_T, they are equal only if s_1 is the only token after itself.
  assert np.mean(equal_N[has_match_N & root_matches_N]) < 0.5


@pytest.mark.parametrize("heads", [0, 1, 2])
def test_any_reduced_model_can_be_embedded(heads):
  S, T = 3, 7
  keys = jax.random.split(jax.random.key(0), 3)
  model = models.Reduced(S, T, heads=heads)
  slots = (heads,) if heads else ()
  params = {
    "A1": jax.random.normal(keys[0], (*slots, T, T)),
    "A2": jax.random.normal(keys[1], (*slots, S, S)),
  }
  x_NxT = jax.random.randint(keys[2], (50, T), 0, S)
  f_NxS, _ = _outputs(model, params, x_NxT)
  _, out = _outputs(*constructions.embed_reduced(model, params), x_NxT)
  np.testing.assert_allclose(out["logits_S"], f_NxS, atol=1e-6)


def _random(model, key):
  start = jax.jit(model.init)(key, jnp.zeros(model.T, int))["params"]
  keys = jax.random.split(key, len(start))
  return {
    name: 0.3 * jax.random.normal(key, param.shape)
    for key, (name, param) in zip(keys, sorted(start.items()), strict=True)
  }


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-5), (True, 1e-10)])
@pytest.mark.parametrize(
  "model",
  [
    models.Standard(3, 6, (2, 2), 5),
    models.Disentangled(3, 6, (2, 2)),
    models.Disentangled(2, 4, (1, 2, 1)),
  ],
)
def test_standard_and_disentangled_are_equal(model, x64, tolerance):
  with jax.enable_x64(x64):
    params = _random(model, jax.random.key(1))
    x_NxT = np.random.default_rng(0).integers(model.S, size=(20, model.T))
    is_standard = isinstance(model, models.Standard)
    there = constructions.disentangle if is_standard else constructions.entangle
    back = constructions.entangle if is_standard else constructions.disentangle
    f_NxS, out = _outputs(model, params, x_NxT)
    assert f_NxS.dtype == (jnp.float64 if x64 else jnp.float32)
    other = there(model, params)
    for equal in (other, back(*other)):
      g_NxS, equal_out = _outputs(*equal, x_NxT)
      np.testing.assert_allclose(g_NxS, f_NxS, atol=tolerance)
      for name in ("attention_1", f"attention_{len(model.heads)}"):
        np.testing.assert_allclose(equal_out[name], out[name], atol=tolerance)


@pytest.mark.parametrize(
  "more", [{"mlp": "residual"}, {"norm": True}, {"scaled": True}]
)
def test_disentangle_refuses_models_with_more_than_attention(more):
  with pytest.raises(ValueError, match="the model must be attention-only"):
    constructions.disentangle(models.Standard(3, 6, (1, 1), 5, **more), {})


def _selected(x_T, lags, pi_SxS, strength, mean):
  """The weights of the lags and the sums of q_ik, T x lags, by loops."""
  first, T = max(lags), len(x_T)
  sums, w_TxK = np.zeros(len(lags)), np.zeros((T, len(lags)))
  sums_TxK = np.zeros((T, len(lags)))
  for t in range(T):
    if t >= first:
      p = np.array([pi_SxS[x_T[t - k], x_T[t]] for k in lags])
      sums += p / p.sum()
    scores = strength * sums / (max(t - first + 1, 1) if mean else 1)
    w_TxK[t] = np.exp(scores - scores.max())
    w_TxK[t] /= w_TxK[t].sum()
    sums_TxK[t] = sums
  return w_TxK, sums_TxK


@pytest.mark.parametrize(
  ("lags", "heads"), [((1, 2), 2), ((2,), 1), ((3, 1), 3), ((1, 4, 2), 4)]
)
@pytest.mark.parametrize(("strength", "mean"), [(1.5, False), (20.0, True)])
def test_selective_equals_its_formula_on_all_prompts(
  lags, heads, strength, mean
):
  S, T = 2, 6
  kernel = enumeration.random_kernel(3, S, 1)
  model, params = constructions.selective(lags, kernel, T, strength, mean)
  assert model == models.Disentangled(S, T, (1, heads, 1), every=True)
  x_NxT = enumeration.prompts(S, T)
  _, out = _outputs(model, params, x_NxT)
  laws_NxTxS = jax.vmap(
    lambda x_T: latent.selective(
      *(x_T, graphs.lags(T, lags), jnp.asarray(kernel), S, strength, mean),
      every=True,
    )
  )(x_NxT)
  for n, x_T in enumerate(x_NxT):
    w_TxK, _ = _selected(x_T, lags, kernel[:S], strength, mean)
    for t in range(max(lags) - 1, T):
      f_S = sum(
        w * kernel[x_T[t + 1 - k]] for k, w in zip(lags, w_TxK[t], strict=True)
      )
      np.testing.assert_allclose(out["logits_TxS"][n, t], f_S, atol=1e-5)
      np.testing.assert_allclose(laws_NxTxS[n, t], f_S, atol=1e-5)
      att_T = np.zeros(T)
      att_T[[t + 1 - k for k in lags]] = w_TxK[t]
      np.testing.assert_allclose(out["attention_3"][n, 0, t], att_T, atol=1e-5)
  # Rows whose next token is a root have the root law in the formula.
  first = laws_NxTxS[:, : max(lags) - 1]
  np.testing.assert_allclose(
    first, np.broadcast_to(kernel[S], first.shape), atol=1e-6
  )


def test_selective_with_a_large_strength_is_the_lag_with_the_largest_sum():
  S, T, lags = 3, 12, (1, 2, 3)
  kernel = enumeration.random_kernel(5, S, 1)
  x_NxT = np.random.default_rng(0).integers(0, S, (64, T)).astype(np.int32)
  model, params = constructions.selective(lags, kernel, T, 1e4)
  _, out = _outputs(model, params, x_NxT)
  num_clear = 0
  for x_T, maps_TxT in zip(x_NxT, out["attention_3"][:, 0], strict=True):
    _, sums_TxK = _selected(x_T, lags, kernel[:S], 1.0, False)
    second, largest = np.sort(sums_TxK[-1])[-2:]
    if largest - second > 0.01:
      num_clear += 1
      best = lags[sums_TxK[-1].argmax()]
      np.testing.assert_allclose(maps_TxT[-1, T - best], 1, atol=1e-6)
  assert num_clear > 50


def test_layers_of_selective():
  """Layer 1 has the normalised probabilities, layer 2 constant shares."""
  S, T, lags = 3, 9, (1, 2, 3)
  kernel = enumeration.random_kernel(5, S, 1)
  x_T = np.random.default_rng(0).integers(0, S, T).astype(np.int32)
  model, params = constructions.selective(lags, kernel, T, 2.0)
  _, out = jax.jit(model.apply)({"params": params}, x_T)
  for i in range(3, T):
    p = np.array([kernel[x_T[i - k], x_T[i]] for k in lags])
    np.testing.assert_allclose(
      out["attention_1"][0, i, [i - k for k in lags]], p / p.sum(), atol=1e-6
    )
  # At t = 7, head 1 reads positions 3 and 6; the rest goes to position 0.
  expected = np.zeros(T)
  expected[[0, 3, 6]] = [4 / 6, 1 / 6, 1 / 6]
  np.testing.assert_allclose(out["attention_2"][1, 7], expected, atol=1e-6)


def test_selective_reads_probabilities_of_zero():
  kernel = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
  model, params = constructions.selective((1, 2), kernel, 8, 9.0)
  x_T = np.array([0, 1, 0, 1, 0, 1, 0, 1], np.int32)  # of lag 2
  _, out = jax.jit(model.apply)({"params": params}, x_T)
  np.testing.assert_allclose(out["logits_TxS"][-1], [1, 0], atol=1e-5)


def test_selective_refuses_equal_lags():
  with pytest.raises(ValueError, match="lags must be distinct"):
    constructions.selective((1, 1), np.full((3, 2), 0.5), 6, 1.0)


@pytest.mark.parametrize(
  ("order", "S", "heads"), [(0, 3, 1), (1, 2, 1), (1, 3, 2), (2, 2, 2)]
)
def test_kgram_counts_what_followed_the_same_tokens(order, S, heads):
  """On all prompts: row t is a mean over positions, if there is one."""
  T = 6
  model, params = constructions.kgram(order, S, T, heads)
  assert model.heads == (heads, 1)
  x_NxT = np.array(list(itertools.product(range(S), repeat=T)))
  logits_NxTxS = jax.jit(
    lambda params: jax.vmap(
      lambda x_T: model.apply({"params": params}, x_T)[1]["logits_TxS"]
    )(x_NxT)
  )(params)
  rows = 0
  for x_T, logits_TxS in zip(x_NxT, np.asarray(logits_NxTxS), strict=True):
    for t in range(order, T):
      last = x_T[t + 1 - order : t + 1][::-1]
      counts_S = np.zeros(S)
      for i in range(t + 1):
        if i >= order:
          is_counted = (x_T[i - order : i][::-1] == last).all()
        else:  # beyond the start, a head has the mean of all tokens so far
          known = x_T[:i][::-1]
          is_counted = (known == last[:i]).all() and all(
            (x_T[: i + 1] == token).all() for token in last[i:]
          )
        counts_S[x_T[i]] += is_counted
      if counts_S.sum():
        rows += 1
        np.testing.assert_allclose(
          logits_TxS[t], counts_S / counts_S.sum(), atol=1e-6
        )
  assert rows > len(x_NxT)


def test_kgram_refuses_more_tokens_than_heads():
  with pytest.raises(ValueError, match="order must be from 0 to 2 heads"):
    constructions.kgram(3, 2, 8, 2)
