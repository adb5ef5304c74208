"""The check of sample complexity: its table by hand, and a small run."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments.theory import registry
from experiments.theory import sample_curves
from experiments.theory import sample_methods
from experiments.theory import sample_table
from experiments.theory import samples
from experiments.theory.sample_table import Found
from icl_causal import graphs
from icl_causal import sampling
from icl_causal.config import fields
from tests.support import theory_checks

pytestmark = pytest.mark.slow

SMALL = {
  "settings": ((3, 0.1, 8, 24),),
  "root_probability": 0.2,
  "num_prompts": (1, 2, 4, 8, 16, 32, 64, 128),
  "num_moments": 1024,
  "num_draws": 128,
  "num_kernels": 64,
  "num_runs": 6,
  "ascent_prompts": (64,),
  "estimate_prompts": (32, 128),
  "sequences": 16,
  "trained_prompts": (4, 128),
  "first_steps": 40,
  "steps": 2,
  "batch_size": 64,
  "test_size": 64,
}


@pytest.fixture(scope="module")
def rows() -> dict:
  config = theory_checks.config("samples", **SMALL)
  registry.validate(config)
  outcome = samples.check(config)
  assert outcome.figure is not None
  table = theory_checks.table(outcome)
  return {(row["method"], row["quantity"]): row for row in table}


def test_every_method_has_a_row(rows):
  methods = {method for method, quantity in rows if quantity == "edges"}
  assert methods == {
    *sample_curves.SCORES,
    *(samples.ROOTED, samples.GUESS, samples.NORMAL, samples.SADDLE),
    *(samples.UNION, samples.GUARANTEED, samples.NO_METHOD, samples.FANO),
    *(sample_methods.ASCENT, sample_methods.SHANNON, sample_methods.CHI2),
    *(sample_methods.SAME_KERNELS, sample_methods.POOLED),
    *(sample_methods.CHOW_LIU, sample_methods.ALGORITHM_1),
    sample_methods.JOINT,
  }


def test_the_best_possible_is_between_its_bounds(rows):
  best = rows[sample_curves.BEST, "edges"]
  for n in (1, 4, 16, 64):
    share, N = best[f"N = {n}"], f"N = {n}"
    slack = 3 * best["largest error"]
    assert rows[samples.GUARANTEED, "edges"][N] < share + slack
    assert rows[samples.NO_METHOD, "edges"][N] > share - slack
    assert rows[samples.FANO, "edges"][N] > share - slack
  for method in (sample_curves.SOFT, sample_curves.HARD, sample_methods.ASCENT):
    row = rows[method, "edges"]
    assert row["over the best"].startswith("no, ")
  assert rows[sample_curves.HARD, "edges"]["N = 16"] < best["N = 16"] - 0.1


def test_methods_that_should_find_the_edges(rows):
  for method, N in (
    (sample_curves.SOFT, "N = 128"),
    (sample_curves.GENIE, "N = 64"),
    (sample_methods.ASCENT, "N = 64"),
    (sample_methods.SHANNON, "N = 128"),
    (sample_methods.ALGORITHM_1, "N = 128"),
  ):
    assert rows[method, "edges"][N] > 0.9
  assert rows[sample_methods.ASCENT, "false parents"]["N = 64"] < 0.5
  guess = rows[samples.GUESS, "edges"]["N = 128"]
  assert rows[sample_methods.POOLED, "edges"]["N = 128"] < guess + 0.3
  assert rows[sample_methods.ALGORITHM_1, "edges"]["N = 4"] < 0.8


def test_the_prediction_is_near_the_gradient(rows):
  """Within 4 errors of the measured share, and .05."""
  measured = rows[sample_curves.SOFT, "edges"]
  predicted = rows[samples.SADDLE, "edges"]
  for n in (8, 32, 128):
    difference = measured[f"N = {n}"] - predicted[f"N = {n}"]
    assert abs(difference) < 4 * measured["largest error"] + 0.05


def test_the_losses_of_joint_training(rows):
  """After two steps, that of the uniform law on any prompts, roughly."""
  for quantity in ("loss on its prompts", "loss on fresh prompts"):
    row = rows[sample_methods.JOINT, quantity]
    assert abs(row["N = 128"] - np.log(3)) < 0.25
  excess = rows[sample_methods.JOINT, "excess on fresh prompts"]
  assert 0 < excess["N = 128"] < rows[sample_methods.JOINT, quantity]["N = 128"]


def test_measure_by_loops():
  """Row argmax of summed scores, graph by graph, on the same prompts."""
  config = theory_checks.config("samples", **SMALL)
  setting = sample_curves.Setting(3, 0.5, 6, 3)
  forests = sample_curves.forests(config, setting)
  measured = sample_curves.measure(config, setting, forests)
  best = sample_curves.SCORES.index(sample_curves.BEST)
  for g, graph in enumerate(forests):
    batch = jax.jit(
      lambda graph, g: sample_curves.prompts(config, setting, graph, g, 0.5)
    )(graph, g)
    x_NxT, kernel = np.asarray(batch.x_T), np.asarray(batch.kernel, float)
    for n, N in enumerate(config.num_prompts):
      hits = found = false = 0
      for i in range(1, 5):
        parent = int(graph.parents_TxK[i, 0])
        scores = [
          sum(
            np.log(max(kernel[m, x_NxT[m, j], x_NxT[m, i]], 1e-30))
            for m in range(N)
          )
          for j in range(i)
        ]
        root = sum(np.log(kernel[m, 3, x_NxT[m, i]]) for m in range(N))
        top = np.flatnonzero(np.isclose(scores, max(scores), atol=1e-4))
        hits += (parent in top) / len(top)
        # i parents share the probability of not being a root.
        is_parent = max(scores) + np.log(0.8 / i) > root + np.log(0.2)
        found += is_parent and parent == int(np.argmax(scores))
        false += is_parent and parent < 0
      np.testing.assert_allclose(
        measured.hits_GxNxM[g, n, best], hits, rtol=1e-5
      )
      assert measured.rooted_GxN[g, n] == found
      assert measured.false_GxN[g, n] == false


def test_the_moment_of_the_query_row_by_hand():
  """1{s_j = s_T} (pi(s_i | s_T) / mu(s_i) - sum_s pi(s | s_T))."""
  kernel = jnp.array([[0.9, 0.1], [0.3, 0.7], [0.75, 0.25]])
  batch = sampling.Prompt(jnp.array([0, 1, 0, 1]), kernel[1], kernel)
  of_name = dict(
    zip(
      sample_curves.SCORES,
      sample_curves.scores(
        batch, kernel[1], graphs.chain(4), jnp.float32(0.5), 0.0
      ),
      strict=True,
    )
  )
  score_TxT = of_name[sample_curves.QUERY_MOMENT]
  np.testing.assert_allclose(score_TxT[2, 1], 0.3 / 0.75 - 1, rtol=1e-6)
  np.testing.assert_allclose(score_TxT[3, 1], 0.7 / 0.25 - 1, rtol=1e-6)
  assert score_TxT[2, 0] == score_TxT[1, 0] == 0
  moment_TxT = of_name[sample_curves.MOMENT]
  np.testing.assert_allclose(moment_TxT[2, 1], 0.3 / 0.75, rtol=1e-6)
  np.testing.assert_allclose(moment_TxT[2, 0], 0.9 / 0.75, rtol=1e-6)


def test_hard_labels_are_draws_from_the_target():
  config = theory_checks.config("samples")
  y_NxS = jnp.tile(jnp.array([[0.2, 0.5, 0.3, 0.0]]), (4000, 1))
  label_NxS = np.asarray(sample_curves.hard_labels(config, 0, y_NxS))
  assert (label_NxS.sum(axis=1) == 1).all()
  share_S = label_NxS.mean(axis=0)
  assert share_S[3] == 0
  np.testing.assert_allclose(share_S[:3], [0.2, 0.5, 0.3], atol=4 * 0.008)
  other = np.asarray(sample_curves.hard_labels(config, 1, y_NxS))
  assert (other != label_NxS).any()


def test_the_table_by_hand():
  """Two graphs with 2 and 4 edges; N50 is where three edges are found."""
  sizes, edges_G = (1, 2, 4), np.array([2, 4])
  best = np.array([[1, 2, 2], [1, 3, 4]])
  lower = np.array([[0, 1, 2], [1, 2, 4]])
  found = {name: Found(sizes, best) for name in sample_curves.SCORES}
  found[sample_curves.SOFT] = Found(sizes, lower)
  found["few"] = Found((4, 8), np.array([[2, 2]]))
  counts = {("few", "false parents"): ((4,), np.array([[1.0], [3.0]]))}
  header = sample_table.header([2, 4])
  rows = {
    (row[0], row[1]): dict(zip(header, row, strict=True))
    for row in sample_table.rows(found, counts, edges_G, [2, 4])
  }
  gradient = rows[sample_curves.SOFT, "edges"]
  assert gradient["N = 2"] == 0.5
  assert gradient["N50"] == pytest.approx(2)
  assert gradient["half"] == pytest.approx(2 * 2**0.5)
  assert gradient["over the best"] == "no, 0.0"
  assert rows[sample_curves.BEST, "edges"]["over the best"] == "-"
  assert rows["few", "edges"]["N = 2"] == "-"
  assert rows["few", "edges"]["N50"] == "<= 4"
  assert rows["few", "edges"]["graphs"] == 1
  assert rows["few", "false parents"]["N = 4"] == 2
  assert rows["few", "false parents"]["largest error"] == 1
  what = f"{sample_curves.SOFT} / {sample_curves.BEST}"
  factor = 2 / 2 ** (1 / 3)  # the best has 2 of 6 at N = 1 and 5 at N = 2
  assert rows[what, "factor"]["N50"] == pytest.approx(factor)


def test_a_method_above_the_best_is_named():
  sizes, edges_G = (1, 2), np.array([4, 4, 4])
  best = np.array([[1, 2], [2, 2], [1, 3]])
  found = {name: Found(sizes, best) for name in sample_curves.SCORES}
  found["wrong"] = Found(sizes, best + np.array([[0, 1]] * 3))
  rows = sample_table.rows(found, {}, edges_G, [1, 2])
  (wrong,) = (row for row in rows if row[0] == "wrong")
  assert wrong[-1] == "at N = 2, inf"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_prompts": (4, 2)}, r"num_prompts = \(4, 2\): must be in increasing"),
    ({"estimate_prompts": (40,)}, r"estimate_prompts = \(40,\): must be multi"),
    ({"num_runs": 50}, "num_runs = 50: must be at most 40, the graphs"),
    ({"settings": ((3, 0.1, 20),)}, r"settings = \(\(3, 0.1, 20\),\): must be"),
  ],
)
def test_refused_configs(change, message):
  config = theory_checks.config("samples", **change)
  with pytest.raises(fields.ConfigError, match="^" + message):
    registry.validate(config)


def test_a_guess_by_hand():
  graph = graphs.from_parents([-1, 0, 1, -1, 2, -1])
  found = samples._guess([graph], (1, 2))
  np.testing.assert_allclose(found.hits_GxN, [[1.75, 1.75]])
