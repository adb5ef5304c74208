"""The check of two parents: its hits by hand, and a small run."""

import itertools
import pathlib

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments.theory import pair_methods
from experiments.theory import pair_pages
from experiments.theory import registry
from experiments.theory import two_parents
from experiments.theory.pair_methods import Hits
from icl_causal import graphs
from icl_causal.config import fields
from tests.support import theory_checks

pytestmark = pytest.mark.slow

RESULTS = pathlib.Path(__file__).parents[2] / "results"
SMALL = {
  "T": 8,
  "num_graphs": 12,
  "num_prompts": (1, 8, 64, 256),
  "attention_graphs": 4,
  "attention_prompts": (8, 256),
  "staged_graphs": 2,
  "staged_prompts": (8, 4096),
  "staged_steps": 161,
  "phase_steps": 32,
  "joint_steps": 32,
  "batch_size": 64,
  "test_size": 64,
}


@pytest.fixture(scope="module")
def rows() -> dict:
  config = theory_checks.config("two_parents", **SMALL)
  registry.validate(config)
  outcome = two_parents.check(config)
  assert outcome.figure is not None
  table = theory_checks.table(outcome)
  return {(row["method"], row["quantity"]): row for row in table}


def test_the_tables_of_the_page():
  """What the text of the page says of the recorded result, beside the cells."""
  config = theory_checks.config("two_parents")
  recorded = registry.read_recorded(RESULTS, config)
  assert recorded is not None
  shown = pair_pages.shown(recorded)
  assert pair_pages.shown(None) == {}
  assert " 0 | " in shown["pairs over"].splitlines()[-1]
  assert pair_pages._cell(0.12345, 0.0011) == "0.123 ± 0.001"
  assert pair_pages._cell("-", "-") == "-"
  of = {
    (row[0], row[1]): dict(zip(recorded["header"], row, strict=True))
    for row in recorded["rows"]
  }
  heads = of[pair_methods.heads("KL"), "graphs"]
  assert heads["N = 512"] == 1
  for name in (pair_methods.score, pair_methods.heads):
    KL, chi2 = (of[name(kind), "edges"] for kind in ("KL", "chi-squared"))
    assert KL["N90"] < chi2["N90"]
    rooted = of[name("chi-squared, root law"), "edges"]
    assert rooted["N90"] == "-"
  rooted = of[pair_methods.score("KL, root law"), "edges"]
  assert rooted["N = 2048"] < 0.995
  needed = of[pair_methods.PAIRS, "edges"]["N90"]
  assert of[pair_methods.score("KL"), "edges"]["N90"] > 2 * needed


def test_every_method_has_a_row(rows):
  heads = [pair_methods.heads(kind) for kind in pair_methods.KINDS]
  assert {method for method, quantity in rows if quantity == "edges"} == {
    *(*pair_methods.SCORES, *heads, two_parents.GUESS),
    *(pair_methods.STAGED, pair_methods.PHASES),
  }


def test_the_best_possible_is_not_exceeded(rows):
  judged = [row["over the best"] for row in rows.values()]
  judged = [cell for cell in judged if cell != "-"]
  assert len(judged) == 12
  assert all(cell.startswith("no, ") for cell in judged)


def test_methods_that_should_find_the_edges(rows):
  best = rows[pair_methods.BEST, "edges"]
  assert best["N = 64"] > 0.95
  assert best["N = 8"] > rows[pair_methods.score("KL"), "edges"]["N = 8"]
  for method in (pair_methods.score, pair_methods.heads):
    for kind in ("KL", "chi-squared"):
      row = rows[method(kind), "edges"]
      assert row["N = 256"] > 0.95
      assert row["N = 8"] < 0.9
    # The root law may exclude the parent.
    rooted = rows[method("chi-squared, root law"), "edges"]
    assert rooted["N = 256"] < rows[method("KL"), "edges"]["N = 256"] - 0.05
  for method in (pair_methods.STAGED, pair_methods.PHASES):
    row = rows[method, "edges"]
    assert row["N = 4096"] > row["N = 8"]
    assert rows[method, "any slot"]["N = 8"] >= row["N = 8"]
  excess = rows[pair_methods.STAGED, pair_methods.EXCESS]
  assert excess["N = 8"] > excess["N = 4096"] > 0


def test_chi_squared_heads_end_at_the_argmax_of_the_score(rows):
  """On the graphs that both have; their attention is then near 1 or 0."""
  config = theory_checks.config("two_parents", **SMALL | {"num_graphs": 4})
  graphs_G = pair_methods.drawn_graphs(config)
  scores = pair_methods.measure(config, graphs_G)
  heads = pair_methods.attention(config, graphs_G)
  for kind in ("chi-squared", "chi-squared, root law"):
    hits, at_parents = heads[kind]
    np.testing.assert_allclose(
      hits.right[:, 1],
      scores[pair_methods.score(kind)].right[:, 3],
      atol=0.01,
    )
    np.testing.assert_allclose(
      at_parents[:, 1], hits.right[:, 1] / 12, atol=0.06
    )


def _hits_by_loops(chosen, graph):
  """Expected hits, from the probability of each choice of a row's parents."""
  right = anywhere = 0.0
  for i, row in enumerate(np.asarray(graph.parents_TxK)):
    for picks, probability in chosen(i):
      right += probability * sum(
        a == b for a, b in zip(picks, row, strict=True)
      )
      anywhere += probability * len(set(picks) & set(row.tolist()))
  return right, anywhere


def _top(values):
  return [j for j, value in enumerate(values) if value == max(values)]


def test_hits_by_loops():
  """Integer scores, so that there are ties."""
  rng, T = np.random.default_rng(0), 6
  graph = graphs.rewire(jax.random.key(1), graphs.kgram(T, 2))
  for _ in range(5):
    score_KxTxT = rng.integers(0, 3, (2, T, T)).astype(float)

    def of_slots(i, score_KxTxT=score_KxTxT):
      if i < 2:
        return []
      tops = [_top(score_TxT[i, :i]) for score_TxT in score_KxTxT]
      num = len(tops[0]) * len(tops[1])
      return [(picks, 1 / num) for picks in itertools.product(*tops)]

    found = pair_methods.slot_hits(jnp.asarray(score_KxTxT), graph)
    np.testing.assert_allclose(
      found, _hits_by_loops(of_slots, graph), rtol=1e-5
    )

    score_TxTxT = np.full((T, T, T), -np.inf)
    for i in range(2, T):
      for pair in itertools.combinations(range(i), 2):
        score_TxTxT[i, *pair] = rng.integers(0, 3)

    def of_pairs(i, score_TxTxT=score_TxTxT):
      pairs_of = [*itertools.combinations(range(i), 2)]
      if not pairs_of:
        return []
      tops = _top([score_TxTxT[i, *pair] for pair in pairs_of])
      return [(pairs_of[top], 1 / len(tops)) for top in tops]

    found = pair_methods.pair_hits(jnp.asarray(score_TxTxT), graph)
    np.testing.assert_allclose(
      found, _hits_by_loops(of_pairs, graph), rtol=1e-5
    )

  def of_guess(i):
    pairs_of = [*itertools.combinations(range(i), 2)]
    return [(pair, 1 / len(pairs_of)) for pair in pairs_of]

  guessed = pair_methods.guess([graph], 1)
  expected = np.reshape(_hits_by_loops(of_guess, graph), (2, 1, 1))
  np.testing.assert_allclose(guessed, expected)


def test_measure_by_loops():
  """The pair with the largest sum of logarithms, graph by graph."""
  config = theory_checks.config(
    "two_parents",
    T=6,
    alpha=1.0,
    num_graphs=2,
    num_prompts=(3, 20),
    staged_prompts=(4,),
  )
  graphs_G = pair_methods.drawn_graphs(config)
  measured = pair_methods.measure(config, graphs_G)
  draw = jax.jit(lambda graph, g: pair_methods.prompts(config, graph, g, 20))
  for g, graph in enumerate(graphs_G):
    batch = draw(graph, g)
    x_NxT, kernel = np.asarray(batch.x_T), np.asarray(batch.kernel, float)
    for n, N in enumerate((3, 20)):
      right = best = 0.0
      for i in range(2, 6):
        pairs_of = [*itertools.combinations(range(i), 2)]
        logs = [
          sum(
            np.log(max(kernel[(m, *x_NxT[m, [j, k]], x_NxT[m, i])], 1e-30))
            for m in range(N)
          )
          for j, k in pairs_of
        ]
        parents = np.asarray(graph.parents_TxK)[i]
        top = np.isclose(logs, max(logs), atol=1e-4)
        for slot in range(2):
          is_right = [pair[slot] == parents[slot] for pair in pairs_of]
          right += top @ np.array(is_right) / top.sum()
          weight_J = np.zeros(i)
          for pair, log in zip(pairs_of, logs, strict=True):
            weight_J[pair[slot]] += np.exp(log - max(logs))
          is_best = np.isclose(weight_J, weight_J.max(), rtol=1e-4)
          best += is_best[parents[slot]] / is_best.sum()
      np.testing.assert_allclose(
        measured[pair_methods.PAIRS].right[g, n], right, rtol=1e-5
      )
      np.testing.assert_allclose(
        measured[pair_methods.BEST].right[g, n], best, rtol=1e-5
      )


def test_the_table_by_hand():
  """Two graphs with four edges; a method that finds more than the best."""
  sizes, few = (1, 4), (4,)
  best = Hits(np.array([[1.0, 4], [1, 2]]), np.array([[2.0, 4], [2, 4]]))
  more = Hits(np.array([[4.0], [4]]), np.array([[4.0], [4]]))
  found = {pair_methods.BEST: (sizes, best), "more": (few, more)}
  means = {("more", "a mean"): (few, np.array([[0.1], [0.3]]))}
  header = two_parents.header([1, 4])
  table = {
    (row[0], row[1]): dict(zip(header, row, strict=True))
    for row in two_parents.rows(found, means, 4, [1, 4])
  }
  edges = table[pair_methods.BEST, "edges"]
  assert (edges["N = 1"], edges["N = 4"]) == (0.25, 0.75)
  assert (edges["error at 1"], edges["error at 4"]) == (0, 0.25)
  assert edges["N50"] == pytest.approx(2)
  assert edges["over the best"] == edges["N90"] == "-"
  assert table[pair_methods.BEST, "any slot"]["N = 4"] == 1
  assert table[pair_methods.BEST, "graphs"]["N = 4"] == 0.5
  row = table["more", "edges"]
  assert row["N = 1"] == "-"
  assert row["N50"] == "<= 4"
  assert row["over the best"] == "no, 1.0"
  assert table["more", "a mean"]["N = 4"] == pytest.approx(0.2)
  assert table["more", "a mean"]["error at 4"] == pytest.approx(0.1)
  more = Hits(np.array([[4.0], [3]]), more.anywhere)
  rows = two_parents.rows(found | {"more": (few, more)}, {}, 4, [1, 4])
  (row,) = (row for row in rows if row[:2] == ["more", "edges"])
  assert row[-1] == "no, 1.0"
  higher = Hits(best.right[:, 1:] + 1, best.anywhere[:, 1:])
  rows = two_parents.rows(found | {"more": (few, higher)}, {}, 4, [1, 4])
  (row,) = (row for row in rows if row[:2] == ["more", "edges"])
  assert row[-1] == "at N = 4, inf"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_prompts": (4, 2)}, r"num_prompts = \(4, 2\): must be in increasing"),
    ({"staged_graphs": 60}, "staged_graphs = 60: must be at most 48"),
    ({"staged_steps": 192}, "staged_steps = 192: must be more than the 192"),
    ({"T": 3}, "T = 3: must be"),
  ],
)
def test_refused_configs(change, message):
  config = theory_checks.config("two_parents", **change)
  with pytest.raises(fields.ConfigError, match="^" + message):
    registry.validate(config)
