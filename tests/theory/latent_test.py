"""The check of a latent graph, at small sizes."""

from jax import numpy as jnp
import numpy as np
import pytest

from experiments.theory import latent
from icl_causal import graphs
from tests.support import theory_checks

pytestmark = pytest.mark.slow

CONFIG = theory_checks.config(
  "latent",
  lengths=(12,),
  fresh=((2, 0.5, 8),),
  num_examples=2,
  length=3,
  strengths=(1.0, 4.0),
  mean_strengths=(20.0,),
  num_prompts=1024,
  batch_size=512,
  num_kernels=2,
  kernel_prompts=512,
)


@pytest.fixture(scope="module")
def outcome():
  return latent.check(CONFIG)


def test_lines_are_in_order(outcome):
  rows = theory_checks.table(outcome)
  by_task = {}
  for row in rows:
    by_task.setdefault(row["task"], {})[row["line"]] = row
  assert list(by_task) == ["lags", "fresh", "trees", "kernels"]
  for task in ("lags", "fresh", "trees"):
    lines = by_task[task]
    assert lines["Bayes"]["gap"] == 0
    for name in ("uniform", "even mixture", "most likely graph"):
      assert lines[name]["gap"] > 2 * lines[name]["error of gap"], name
    for name in ("graph known", "entropy"):
      assert lines[name]["gap"] < 0
    assert lines["calibration"]["verdict"] == "yes"
    assert np.isclose(
      lines["uniform"]["loss"], np.log(lines["uniform"]["S"]), atol=1e-6
    )
  lags = by_task["lags"]
  assert lags["entropy"]["loss"] == pytest.approx(lags["graph known"]["loss"])
  assert lags["rounding"]["loss"] < 1e-5
  assert lags["c = 4"]["gap"] < lags["c = 1"]["gap"] < lags["uniform"]["gap"]
  assert lags["c = 1"]["verdict"] is None
  assert lags["c = 4"]["verdict"] in ("yes", "no")
  assert by_task["kernels"]["graph known"]["gap"] < 0


def test_the_figure_has_two_panels_for_each_task(outcome):
  titles = [axes.get_title() for axes in outcome.figure.axes]
  assert titles[:2] == ["lags: S = 5, one kernel, T = 12"] * 2
  assert len([title for title in titles if title]) == 6


def test_counted_positions():
  """After a token with a parent, before a token with a parent."""
  lags = latent.counted(graphs.lags(6, (1, 2, 3)))
  assert jnp.flatnonzero(lags).tolist() == [3, 4, 5]
  trees = latent.counted(graphs.tree_examples(1, 3))
  assert jnp.flatnonzero(trees).tolist() == [1, 3, 4]


def test_prompts_divide_into_batches():
  config = theory_checks.config("latent", num_prompts=100)
  (message,) = [need(config) for need in latent.NEEDS]
  assert message == (
    "num_prompts = 100: must be a multiple of batch_size = 256"
  )
