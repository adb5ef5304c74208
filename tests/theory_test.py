import json

import jax
import numpy as np

from configs import theory
from experiments import checks
from experiments import forests
from experiments import pooled
from experiments import posterior
from experiments import theorems
from icl_causal import graphs


def _config(check, **fields):
  config = theory.get_config(check)
  config.update(fields)
  return config


def _plain(check):
  """A check as it comes back from result.json."""
  json.dumps(check.rows, allow_nan=False)
  return [dict(zip(check.header, row, strict=True)) for row in check.rows]


def test_information_of_a_few_forests():
  config = _config("information", num_forests=12, T=10, S=(3,))
  rows = _plain(checks.information_of_forests(config))
  assert [(row["S"], row["kind"]) for row in rows[:-1]] == [
    (3, "shannon"),
    (3, "chi2"),
  ]
  total = rows[-1]
  assert total["forests"] == 24
  assert total["argmax"] == total["edges"] > 24
  assert total["violations"] == 0


def test_a_wrong_matrix_is_counted():
  graph = graphs.from_parents([-1, 0, 1, -1])
  batch = jax.tree.map(lambda a: np.asarray(a)[None], graph)
  I_TxT = np.zeros((4, 4))
  I_TxT[1, 0], I_TxT[2, 1], I_TxT[2, 0] = 0.5, 0.4, 0.45
  assert checks.count_argmax(batch, I_TxT[None], 1e-9) == [1, 2, 1, 1]


def test_correction_leaves_no_bias():
  config = _config(
    "estimates",
    T=6,
    priors=((1.0, 0.1),),
    num_kernels=64,
    num_sequences=512,
  )
  rows = _plain(checks.estimates(config))
  assert [(row["kind"], row["estimate"]) for row in rows] == [
    (kind, estimate)
    for kind in ("shannon", "chi2")
    for estimate in ("plug-in", "corrected")
  ]
  for plain, corrected in (rows[:2], rows[2:]):
    assert plain["of pairs"] == 10
    assert plain["beyond 3"] > 5 > corrected["beyond 3"]
    assert abs(corrected["mean error"]) < 0.2 * plain["mean error"]


def test_gradient_gap_falls_with_T():
  config = _config(
    "gradient",
    T=(8, 24),
    cases=((3, 1.0, 0.1),),
    num_prompts=2**13,
    num_kernels=64,
  )
  check = checks.gradient_at_the_start(config)
  rows = _plain(check)
  assert [(row["graph"], row["T"]) for row in rows] == [
    (graph, T) for graph in ("chain", "forest") for T in (8, 24)
  ]
  for short, long in (rows[:2], rows[2:]):
    assert short["correlation"] < long["correlation"] < 1
    found, edges = long["argmax"].split(" of ")
    assert int(found) == int(edges) > 5
  assert check.figure is not None


def test_roots_are_counted_on_the_same_graphs(monkeypatch):
  """Training is left out: the larger batch has one false parent less."""
  seen = []

  def train(config, num_graphs, parallel):
    seen.append((config.graph.T, config.train.batch_size, config.prior.gamma))
    batch = jax.tree.map(
      lambda a: np.stack([a] * num_graphs),
      graphs.from_parents([-1, -1, 0, -1, -1]),
    )
    attention = np.zeros((num_graphs, 1, 5, 5))
    attention[:, 0, [1, 2, 3], [0, 0, 2]] = 0.9
    if config.train.batch_size == 128:
      attention[0, 0, 3, 2] = 0.1
    losses = np.ones(num_graphs)
    return forests.Trained(batch, attention, losses, losses)

  monkeypatch.setattr(forests, "train", train)
  config = _config(
    "roots", T=(5,), batch_size=(64, 128), priors=((1.0, 0.1),), num_graphs=2
  )
  small, large = _plain(checks.roots(config))
  assert seen == [(5, 64, 0.1), (5, 128, 0.1)]
  assert small["edges"] == large["edges"] == "2 of 2"
  assert (small["false parents"], large["false parents"]) == (
    "4 of 4",
    "3 of 4",
  )
  assert (small["same as above"], large["same as above"]) == ("-", "3")


def test_pooling_fails_where_conditioning_does_not():
  config = _config(
    "pooled",
    T=12,
    root_probability=0.4,
    num_graphs=2,
    num_sequences=(1024,),
    num_permutations=10,
  )
  rows = _plain(pooled.pooled_and_conditional(config))
  edges = {
    (row["sequences of"], row["method"]): [
      int(number) for number in row["edges"].split(" of ")
    ]
    for row in rows
    if row["N"] == 1024
  }
  false = {
    (row["sequences of"], row["method"]): row["false edges"] for row in rows
  }
  found, total = edges["one kernel", "Chow-Liu"]
  assert found == total > 4
  assert false["one kernel", "Chow-Liu"] == 0
  assert edges["a kernel each", "given the kernels"] == [total, total]
  assert edges["a kernel each", "Chow-Liu"][0] < total / 2
  limit = {
    row["method"]: float(row["edges"].split()[0])
    for row in rows
    if row["sequences of"] == "pooled in the limit"
  }
  assert limit["two roots"] > limit["child and parent"]


def test_kernel_families_are_what_their_names_say():
  S, gamma = 4, 0.2
  families = theorems.kernel_families(1.0, gamma)
  draws = {
    name: np.asarray(
      jax.jit(jax.vmap(lambda key, prior=prior: prior(key, S, 1)))(
        jax.random.split(jax.random.key(0), 200)
      )
    )
    for name, prior in families.items()
  }
  for name, kernel in draws.items():
    assert kernel.shape == (200, S + 1, S)
    np.testing.assert_allclose(kernel.sum(-1), 1, atol=1e-5, err_msg=name)
    pi, mu = kernel[:, :S], kernel[:, S]
    np.testing.assert_allclose(
      np.einsum("ns,nst->nt", mu, pi), mu, atol=1e-5, err_msg=name
    )
    if name != "deterministic, no floor":
      assert pi.min() >= gamma / S - 1e-6
    assert len(np.unique(pi.round(4), axis=0)) > 10
  for name in ("permutations", "doubly stochastic"):
    np.testing.assert_allclose(draws[name][:, :S].sum(1), 1, atol=1e-5)
  assert set(np.unique(draws["deterministic, no floor"][:, :S])) == {0, 1}
  high = 1 - gamma + gamma / S
  assert set(np.unique(draws["permutations"][:, :S].round(4))) == {
    np.float32(gamma / S).round(4),
    np.float32(high).round(4),
  }


def test_slopes_of_theorems(monkeypatch):
  """Errors of 3/T and 2/sqrt(T) have slopes of -1 and -1/2."""

  def measure(config, make, T, families):
    graph = make(jax.random.key(0), T)
    assert len(graph.parents_TxK) == T
    return {"edges missed": [0, 0], "L - L*": [2 / T, 4 / T], "sup": [T**-0.5]}

  monkeypatch.setattr(theorems, "_measure", measure)
  rows = _plain(theorems.theorems(_config("theorems", T=(8, 16, 32))))
  assert [row["graph"] for row in rows[::3]] == ["chain", "pairs", "forest"]
  assert rows[0]["slope"] == "-"
  assert rows[1]["T = 16"] == 3 / 16
  for row, slope in ((rows[1], -1), (rows[2], -0.5)):
    np.testing.assert_allclose(row["slope"], slope)
    np.testing.assert_allclose(row["std. error"], 0, atol=1e-9)


def test_the_exact_posterior_against_both_references():
  cases = ((2, 3, 32), (3, 2, 32))
  config = _config("posterior", T=5, cases=cases, reference_samples=2**13)
  rows = _plain(posterior.posterior(config))
  assert [row["reference"] for row in rows] == ["integral", "8192 samples"]
  for row, (S, num_prompts, _) in zip(rows, cases, strict=True):
    assert row["of"] == num_prompts * (S - 1)
    assert row["largest z"] < 5
    assert abs(row["loss - reference"]) < 0.02


def test_the_references_agree():
  """Integration over two rows, and sampling of them."""
  graph = graphs.from_parents([-1, 0, -1, 1, -1])
  x_NxT = np.array([[0, 1, 1, 1, 0], [1, 1, 0, 1, 1]])
  integrated = posterior._integrated(x_NxT, graph, 0.3, size=500)
  sampled = posterior._sampled(
    jax.random.key(0), x_NxT, graph, 0.3, 2, num_samples=2**15
  )
  for one, other in zip(integrated, sampled, strict=True):
    assert (other.error_S < 0.01).all()
    assert (np.abs(one.f_S - other.f_S) < 4 * other.error_S + 1e-3).all()
