import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from configs import two_stage
from experiments.harness import distributed
from experiments.harness import forests
from experiments.harness import grid
from experiments.harness import loop
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import runs
from icl_causal.config import build
from icl_causal.graphs import Graph
from icl_causal.report import run as report

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]


def _config():
  config = two_stage.get_config("forest")
  config.graph.T = 8
  config.train.batch_size = 256
  config.train.update(steps=40, first_steps=36, eval_every=40)
  config.eval.test_size = config.eval.batch_size = 64
  config.eval.posterior_samples = 256
  return config


@pytest.fixture(scope="module")
def trained():
  return forests.train(_config(), 6, at_once=4)


def test_all_edges_of_different_graphs_are_recovered(trained):
  result = forests.count(trained)
  assert result["num_graphs"] == 6
  assert result["edges_recovered"] == result["edges"] > 8
  assert result["parent_attention_mean"] > 0.9
  assert len(np.unique(trained.graph.parents_TxK, axis=0)) > 1
  assert len(np.unique(trained.loss_N.mean(axis=1))) == 6
  json.dumps(result, allow_nan=False)


def test_training_a_graph_does_not_depend_on_the_others(trained):
  alone = forests.train(_config(), 2, at_once=1)
  np.testing.assert_array_equal(
    alone.graph.parents_TxK, trained.graph.parents_TxK[:2]
  )
  np.testing.assert_allclose(
    alone.attention_HxTxT, trained.attention_HxTxT[:2], atol=1e-3
  )


def test_graph_g_equals_the_run_with_g_added_to_the_seeds(trained, tmp_path):
  config = _config()
  config.seed = config.graph.seed = config.eval.seed = 3
  build.check(config)
  runs.prepare(tmp_path, config.to_dict(), overwrite=False)
  graph = build.graph(config)
  run = grid.Run(config, graph, {}, tmp_path)
  loop.train_single(run, distributed.this_process())
  result = runs.read_result(tmp_path)
  np.testing.assert_array_equal(graph.parents_TxK, trained.graph.parents_TxK[3])
  loss = trained.loss_N[3].mean()
  np.testing.assert_allclose(result["loss"], loss, atol=1e-4)
  assert result["edges_recovered"] == result["edges"] > 0
  loss_M, half_loss_M, effective_M = (leaf[3] for leaf in trained.exact[:3])
  edge_N = trained.baselines["edge_posterior"][3]
  exact_M = loss_M - (half_loss_M - loss_M)
  gain = (edge_N[: len(loss_M)] - exact_M).mean()
  over_exact = float(loss - edge_N.mean() + gain)
  assert result["excess_over_exact"] == pytest.approx(over_exact, abs=1e-4)
  assert result["exact_posterior_effective_samples"] == pytest.approx(
    float(1 / (1 / effective_M).mean()), rel=1e-3
  )
  report.write(tmp_path)
  assert (tmp_path / "report.html").exists()


def test_count_by_hand():
  parents = [-1, 0, -1, 2, -1], [-1, -1, 1, -1, -1]
  batch = [graphs.from_parents(row) for row in parents]
  attention = np.zeros((2, 1, 5, 5))
  attention[0, 0, [1, 2, 3], [0, 1, 2]] = 0.8, 0.7, 0.6  # (2, 1) is false
  attention[1, 0, [1, 2, 3], [0, 0, 1]] = 0.4, 0.9, 0.2  # (2, 0) for (2, 1)
  trained = forests.Trained(
    Graph(*(np.stack(rows) for rows in zip(*batch, strict=True))),
    attention,
    np.array([[1.0, 2.0], [2.5, 1.5]]),
    {"edge_posterior": np.array([[0.5, 1.5], [1.0, 1.0]])},
    # The loss of all samples, of a half, and the effective sample sizes.
    metrics.ExactLosses(
      np.array([[0.301], [0.701]]),
      np.array([[0.302], [0.702]]),
      np.array([[90.0], [30.0]]),
    ),
  )
  found = forests.count(trained)
  assert (found["edges"], found["edges_recovered"]) == (3, 2)
  assert found["missed_edges"] == [[1, 2, 1]]
  assert found["false_edges"] == [[0, 2, 1]]
  assert found["roots_by_position"] == [0, 1, 1, 1, 0]
  assert found["false_parents_by_position"] == [0, 0, 1, 0, 0]
  assert found["parent_attention_by_position"] == [None, 0.8, 0.0, 0.6, None]
  assert found["parent_attention_mean"] == pytest.approx(1.4 / 3)
  assert found["excess_loss"] == pytest.approx(0.75)
  # Gains of .5 - .3 and 1 - .7 over the edge posterior.
  assert found["excess_over_exact"] == pytest.approx(1.0)
  assert found["exact_posterior_bias"] == pytest.approx(0.001)
  for exact in (
    trained.exact._replace(effective_M=np.array([[90.0], [1.0]])),
    trained.exact._replace(half_loss_M=np.array([[0.305], [0.705]])),
    None,
  ):
    unknown = forests.count(trained._replace(exact=exact))
    assert unknown["excess_over_exact"] is None
    assert unknown["exact_posterior_bias"] is None
  other = {"dirichlet_edge_posterior": trained.baselines["edge_posterior"]}
  of_other_prior = forests.count(trained._replace(baselines=other))
  assert of_other_prior["excess_loss"] is None
  assert of_other_prior["excess_over_exact"] == pytest.approx(1.0)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ["--config=configs/two_stage.py:chain"],
      "graph.name = 'chain' has no seed: all graphs are equal",
    ),
    (
      [
        "--config=configs/two_stage.py:forest",
        "--config.eval.test_size=1000000000",
        "--config.eval.batch_size=1000",
      ],
      "GiB of memory, and there are",
    ),
  ],
)
def test_command_refuses(arguments, message, tmp_path):
  workdir = tmp_path / "run"
  done = subprocess.run(
    [
      *(sys.executable, "-m", "experiments.forests", *arguments),
      f"--workdir={workdir}",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 2
  assert done.stderr.startswith("error: ")
  assert message in done.stderr
  assert done.stderr.count("\n") == 1
  assert not workdir.exists()
