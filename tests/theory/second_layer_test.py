"""The losses of layer 2 by loops, and its fit by another optimizer."""

import jax
import numpy as np
import pytest
from scipy import optimize

from experiments.theory import second_layer
from icl_causal import graphs
from icl_causal import priors
from icl_causal import sampling
from tests.support import theory_checks

pytestmark = pytest.mark.slow

S = 3
GRAPHS = {
  "chain": graphs.chain(8),
  "two parents": graphs.from_parents([(), (), (0, 1), (1, 2), ()], (0, 4)),
}


def _prompts(name: str, num: int):
  root_law = "stationary" if name == "chain" else "uniform"
  return sampling.sample_batch(
    jax.random.key(3), GRAPHS[name], priors.dirichlet(0.2, root_law), S, num
  )


def _loss(graph, x_T, y_S, slot_K, position_T, scale, silent) -> float:
  """The loss on one prompt, position by position."""
  weights, read_S = [], np.zeros(S)
  for i, parents in enumerate(np.asarray(graph.parents_TxK)):
    logit = position_T[i]
    for k, parent in enumerate(parents):
      if parent >= 0 and x_T[parent] == x_T[int(graph.target_K[k])]:
        logit += slot_K[k]
    weights.append(np.exp(logit))
    read_S[x_T[i]] += weights[-1]
  total = sum(weights) + (np.exp(silent) if silent is not None else 0)
  f_S = np.exp(scale * read_S / total)
  return float(-(y_S * np.log(f_S / f_S.sum())).sum())


def test_losses_by_loops():
  random = np.random.default_rng(0)
  for name, graph in GRAPHS.items():
    x_NxT, y_NxS, _ = map(np.asarray, _prompts(name, 20))
    T, K = graph.parents_TxK.shape
    for silent in (None, 1.5):
      params = {
        "slot_K": random.normal(size=K),
        "position_T": random.normal(size=T),
        "scale": np.array(3.0),
      }
      if silent is not None:
        params["silent"] = np.array(silent)
      inputs = second_layer.inputs_of(x_NxT, y_NxS, graph)
      expected = [
        _loss(
          graph,
          x_T,
          y_S,
          params["slot_K"],
          params["position_T"],
          3.0,
          silent,
        )
        for x_T, y_S in zip(x_NxT, y_NxS, strict=True)
      ]
      params = jax.tree.map(np.float32, params)
      np.testing.assert_allclose(
        jax.jit(second_layer.losses)(params, inputs), expected, rtol=1e-4
      )


def test_the_fit_is_as_low_as_that_of_another_optimizer():
  """On few prompts, from the same start, by finite differences."""
  graph = GRAPHS["chain"]
  x_NxT, y_NxS, _ = _prompts("chain", 256)
  inputs = second_layer.inputs_of(x_NxT, y_NxS, graph)
  T = x_NxT.shape[1]

  @jax.jit
  def objective(values):
    params = {
      "slot_K": values[:1],
      "position_T": values[1 : T + 1],
      "scale": values[T + 1],
      "silent": values[T + 2],
    }
    return second_layer.losses(params, inputs).mean()

  start = np.array([4.0, *[0.0] * T, 5.0, 4.0])
  other = optimize.minimize(
    lambda values: float(objective(values.astype(np.float32))),
    start,
    method="Powell",
    options={"maxiter": 20},
  )
  params = second_layer.fit(inputs, True, steps=512, rate=0.1)
  fitted = float(second_layer.losses(params, inputs).mean())
  assert other.fun < float(objective(start.astype(np.float32))) - 0.005
  assert fitted < other.fun + 2e-3


def test_a_silent_place_helps():
  config = theory_checks.config(
    "second_layer", experiments=("three",), num_prompts=2**10, steps=128
  )
  without, with_place = theory_checks.table(second_layer.check(config))
  assert [without["silent place"], with_place["silent place"]] == ["no", "yes"]
  gain = without["excess"] - with_place["excess"]
  assert gain > 3 * without["std. error"]
  assert with_place["excess"] > -0.01
