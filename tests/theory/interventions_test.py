"""The check of interventions: its table by hand, and a small run."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments.theory import intervention_scores
from experiments.theory import interventions
from experiments.theory import registry
from icl_causal import graphs
from icl_causal.config import fields
from tests.support import theory_checks

pytestmark = pytest.mark.slow

SMALL = theory_checks.config(
  "interventions",
  settings=((2, 0.2, 64),),
  T=7,
  root_probability=0.2,
  shares=(0.0, 0.25, 0.9),
  num_graphs=16,
  num_prompts=(1, 2, 4, 8, 16, 32, 64, 128),
)
D, N = 5, len(SMALL.num_prompts)  # designs, numbers of prompts


@pytest.fixture(scope="module")
def outcome():
  registry.validate(SMALL)
  return interventions.check(SMALL)


@pytest.fixture(scope="module")
def rows(outcome):
  return {
    (row["graph"], row["design"], row["share"], row["method"]): row
    for row in theory_checks.table(outcome)
    if row["quantity"] != "best share"
  }


def test_every_design_and_method_has_a_row(outcome, rows):
  methods = [
    *intervention_scores.METHODS,
    interventions.GUARANTEED,
    interventions.MARGIN,
  ]
  for kind in ("forest", "chain"):
    for share in SMALL.shares:
      for method in methods:
        assert (kind, "independent", share, method) in rows
  designs = [row["design"] for row in theory_checks.table(outcome)]
  assert designs.count("one token") == designs.count("roots") == 2 * 6
  assert rows["chain", "one token", 1 / 6, "margin"]["value"] > 0
  assert rows["chain", "roots", 1 / 6, "margin"]["value"] > 0
  assert len(outcome.figure.axes) == 2


def test_without_set_tokens_it_is_known_that_there_are_none(rows):
  for kind in ("forest", "chain"):
    best, unknown, gradient, gradient_unknown = (
      rows[kind, "independent", 0.0, method]
      for method in intervention_scores.METHODS
    )
    assert best["value"] == unknown["value"] < gradient["value"]
    assert gradient["value"] == gradient_unknown["value"]
    assert best["ratio"] == 1
    assert best["error of ratio"] == 0 < best["error"]


def test_most_tokens_set_cost_prompts_and_not_knowing_which_costs_more(rows):
  for kind in ("forest", "chain"):
    best = rows[kind, "independent", 0.9, intervention_scores.BEST]
    unknown = rows[kind, "independent", 0.9, intervention_scores.UNKNOWN]
    assert best["ratio"] > 1 + 2 * best["error of ratio"]
    assert unknown["value"] is None or unknown["value"] > best["value"]
    margin = rows[kind, "independent", 0.9, interventions.MARGIN]
    assert margin["ratio"] > 1


def test_the_closed_form_guarantees_what_is_measured(rows):
  for key, row in rows.items():
    if row["method"] == interventions.GUARANTEED and row["value"] is not None:
      best = rows[*key[:3], intervention_scores.BEST]
      assert best["value"] < row["value"] + 3 * best["error"]


def _by_loops(batch, share_D, graph, epsilon):
  """The scores of each design and method, summed over prompts, by loops."""
  x_NxDxT, y_NxDxS, kernel_NxMxS, set_NxDxT = (
    np.asarray(a, float if a.dtype == jnp.float32 else int) for a in batch
  )
  T, S = x_NxDxT.shape[2], y_NxDxS.shape[2]
  score = np.zeros((len(x_NxDxT), len(share_D), 4, T, T))
  for n, d, i in np.ndindex(len(x_NxDxT), len(share_D), T):
    x_T, y_S, is_set = x_NxDxT[n, d], y_NxDxS[n, d], set_NxDxT[n, d, i]
    q = share_D[d]
    p_S = np.bincount(x_T, minlength=S) / T
    v_S = y_S / (p_S + epsilon)
    for j in range(i):
      pi = kernel_NxMxS[n, x_T[j], x_T[i]]
      g = (v_S[x_T[i]] - v_S @ p_S) * (x_T[j] == x_T[-1])
      score[n, d, :, i, j] = (
        (1 - is_set) * np.log(max(pi, 1e-30)),
        np.log(max((1 - q) * pi + q / S, 1e-30)),
        (1 - is_set) * g,
        g,
      )
  return score


def _hits(score_TxT, graph):
  hits = 0
  for i, parent in graphs.edges(graph):
    row = score_TxT[i, :i]
    top = np.flatnonzero(np.isclose(row, row.max(), rtol=1e-5, atol=1e-5))
    hits += (parent in top) / len(top)
  return hits


def test_measure_by_loops():
  config = SMALL.copy_and_resolve_references()
  config.num_prompts = (1, 3, 8)
  graph = intervention_scores.graphs_of(config, "forest")[1]
  arguments = graph, np.int32(1), np.float32(0.5)
  batch = jax.jit(
    lambda *arguments: intervention_scores.prompts(config, 3, *arguments)
  )(*arguments)
  measured_NxDxM = jax.jit(
    lambda *arguments: intervention_scores.measured(config, 3, *arguments)
  )(*arguments)
  share_D = (0.0, 0.25, 0.9, 1 / 6, 0.0)
  score = _by_loops(batch, share_D, graph, config.epsilon)
  for n, num in enumerate(config.num_prompts):
    for d, m in np.ndindex(D, 4):
      hits = _hits(score[:num, d, m].sum(axis=0), graph)
      assert measured_NxDxM[n, d, m] == pytest.approx(hits, rel=1e-5)


def test_designs_set_the_tokens_that_they_name():
  graph = graphs.from_parents([-1, 0, -1, 1, 2, 2, -1])
  batch = jax.jit(
    lambda graph: intervention_scores.prompts(
      SMALL, 3, graph, np.int32(0), np.float32(0.5)
    )
  )(graph)
  set_NxDxT = np.asarray(batch.is_set_T)
  assert not set_NxDxT[:, 0].any()
  assert not set_NxDxT[:, :, -1].any()
  num = 128 * 6
  for d, share in ((1, 0.25), (2, 0.9)):
    error = (share * (1 - share) / num) ** 0.5
    assert set_NxDxT[:, d, :-1].mean() == pytest.approx(share, abs=4 * error)
  one_NxT = set_NxDxT[:, 3]
  assert (one_NxT.sum(axis=1) == 1).all()
  # 128 draws of 6 positions: 21 each, with a deviation of 4.2.
  assert np.abs(one_NxT[:, :-1].sum(axis=0) - 128 / 6).max() < 17
  np.testing.assert_array_equal(
    set_NxDxT[:, 4], np.tile([1, 0, 1, 0, 0, 0, 0], (128, 1))
  )


def test_closed_forms_are_means_over_kernels():
  """At share 0, by pair laws of draws from the same prior."""
  graph = graphs.chain(7)
  closed = jax.jit(
    lambda graph: intervention_scores.closed_forms(
      SMALL, 2, 512, graph, np.int32(0), np.float32(0.5)
    )
  )(graph)
  assert closed.B_DxTxT.shape == closed.margin_DxTxT.shape == (D, 7, 7)
  # The first two tokens of a chain with share 1 of the roots: P(a) = 1 / 2, and
  # s_1 = b with pi(b | a). So B_01 = E sum_ab pi(b|a) sum_c sqrt(..) / 2.
  rng = np.random.default_rng(0)
  pi = rng.dirichlet([0.5, 0.5], (20_000, 2))
  root = np.sqrt(pi)
  values = np.einsum("nab,nac,nbc->n", pi, root, root) / 2
  error = (values.var() / 512 + values.var() / len(values)) ** 0.5
  assert closed.B_DxTxT[-1, 0, 1] == pytest.approx(values.mean(), abs=4 * error)


def test_margins_are_those_of_the_best_rival():
  graph = graphs.from_parents([-1, 0, 1, -1, 0, -1])
  margin_DxTxT = np.zeros((2, 6, 6))
  margin_DxTxT[0, 1, 0] = 0.5  # edge (2, 1), one rival
  margin_DxTxT[0, 0, 1:4] = [0.3, 0.2, 0.4]  # edge (4, 0)
  margin_DxTxT[1] = 1
  margins = intervention_scores.margins_of(graph, margin_DxTxT)
  np.testing.assert_allclose(margins, [[0.5, 1], [0.2, 1]])


def _found(hits_GxNxD, margin_GxD):
  """Two shares, and two more designs that are copies of the second one."""
  copies = [0, 1, 1, 1]
  hits_GxNxD = np.asarray(hits_GxNxD, float)[:, :, copies]
  num = len(hits_GxNxD)
  return interventions.Found(
    np.full(num, 4),
    np.array([0, 0.5, 0.2, 0.3]),
    np.stack([hits_GxNxD] * 4, axis=3),
    hits_GxNxD,
    np.asarray(margin_GxD, float)[:, copies],
    np.array([1, 3][:num] * (num // 2)),
  )


def test_the_table_by_hand():
  """The level is 3.6 of 4 edges; share .5 is best on even graphs only."""
  config = theory_checks.config(
    "interventions", shares=(0.0, 0.5), num_prompts=(1, 2, 4)
  )
  even, odd = [[0, 0], [3.6, 4], [4, 4]], [[0, 0], [4, 3.6], [4, 4]]
  found = _found([even, odd, even, odd], [[1, 2], [3, 4]] * 2)
  header = interventions.HEADER[3:]
  rows = [
    dict(zip(header, row, strict=True))
    for row in interventions.rows_of(config, found)
  ]
  assert len(rows) == 4 * 6 + 6
  first, second = (
    row
    for row in rows
    if row["design"] == "independent" and row["quantity"] == "nats"
  )
  assert (first["value"], second["value"]) == (1, 1.5)
  assert second["ratio"] == pytest.approx(4 / 6)
  best = next(
    row
    for row in rows
    if (row["method"], row["quantity"])
    == (intervention_scores.BEST, "best share")
  )
  assert best["share"] == 0.5
  # On the odd graphs 3.6 of 4 are at N = 2 with set tokens and .9 * 2 without.
  assert best["ratio"] == pytest.approx(2 / 2**0.9)
  margin = rows[-1]
  assert (margin["method"], margin["share"]) == ("margin", 0.5)
  n90 = [r for r in rows if r["method"] == intervention_scores.BEST][:2]
  # .95 of all edges are at N = 2, with any share.
  expected = 2 ** (0.9 / 0.95)
  assert [r["value"] for r in n90] == pytest.approx([expected] * 2)
  assert margin["ratio"] == pytest.approx(1)


def test_a_level_that_is_not_reached_is_none():
  config = theory_checks.config(
    "interventions", shares=(0.0, 0.5), num_prompts=(1, 2, 4)
  )
  never = [[[0, 0], [1, 0], [2, 1]]] * 2
  for row in interventions.rows_of(config, _found(never, [[1, 2]] * 2)):
    row = dict(zip(interventions.HEADER[3:], row, strict=True))
    if row["quantity"] == "N90":
      assert row["value"] is row["ratio"] is row["error"] is None
    elif row["method"] != interventions.MARGIN:
      assert row["share"] is row["ratio"] is None


def test_the_error_of_a_ratio_of_margins_is_that_of_draws():
  """The spread of the ratio over many sets of graphs."""
  rng = np.random.default_rng(0)

  def draw(num):
    edges_G = rng.integers(1, 6, num)
    first_G = edges_G * rng.gamma(4, 1, num)
    second_G = 0.5 * first_G + edges_G * rng.gamma(4, 1, num)
    hits = np.zeros((num, 3, 2))
    return _found(hits, np.stack([first_G, second_G], 1))._replace(
      rivalled_G=edges_G
    )

  cells = np.array([interventions._margin(draw(64), 1) for _ in range(400)])
  # The error of a deviation of 400 values is 3.5 %.
  for value, error in ((0, 1), (2, 3)):
    assert cells[:, error].mean() == pytest.approx(
      cells[:, value].std(), rel=0.16
    )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"shares": (0.0, 0.5, 0.2)}, r"shares = \(0.0, 0.5, 0.2\): must ascend"),
    ({"shares": (0.1, 0.5)}, r"shares = \(0.1, 0.5\): must start with 0"),
    ({"num_prompts": (4, 2)}, r"num_prompts = \(4, 2\): must ascend"),
    ({"shares": (0.0, 1.0)}, r"shares = \(0.0, 1.0\): must be"),
  ],
)
def test_refused_configs(change, message):
  config = theory_checks.config("interventions", **change)
  with pytest.raises(fields.ConfigError, match="^" + message):
    registry.validate(config)
