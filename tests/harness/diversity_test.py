"""The lines of a run on a pool, and the tables of crafted lines."""

import jax
import numpy as np
import pytest

from configs import pool as configs_pool
from experiments.harness import distributed
from experiments.harness import diversity
from experiments.harness import diversity_tables
from experiments.harness import grid
from experiments.harness import loop
from icl_causal import bayes
from icl_causal import config as configs
from icl_causal import mixtures
from icl_causal import pools
from icl_causal import priors
from icl_causal import runs
from icl_causal import sampling
from icl_causal.config import build
from icl_causal.config import streams
from icl_causal.report import data

pytestmark = pytest.mark.slow

NUM = 32


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  config = configs.load(
    configs_pool,
    **{
      "graph.T": 6,
      "prior.num_kernels": 3,
      "train.steps": 4,
      "train.eval_every": 2,
      "train.batch_size": 16,
      "train.learning_rate": 0.3,
      "eval.test_size": 64,
      "eval.batch_size": NUM,
      "eval.posterior_prompts": 0,
    },
  )
  del config["sweep"]
  planned = grid.run(config, {}, tmp_path_factory.mktemp("pool"))
  runs.prepare(planned.workdir, config.to_dict(), overwrite=False)
  loop.train_single(planned, distributed.this_process(), keep=2)
  return runs.load(planned.workdir)


@pytest.fixture(scope="module")
def lines(run):
  return diversity.lines({"small": run}, NUM, 64)


def test_a_line_has_the_steps_and_the_graph_of_its_run(run, lines):
  assert [line["prompts"] for line in lines] == ["pool", "fresh"]
  for line in lines:
    assert set(line) == set(diversity.FIELDS)
    assert line["model"] == "small"
    assert line["steps"] == [2, 4] == [*run.params]
    assert (line["M"], line["run"], line["edges"]) == (3, run.path.name, 4)
    rows = run.history[1:]
    assert line["recovered"] == [row["edges_recovered"] for row in rows]
    np.testing.assert_allclose(
      line["attention"],
      [row["parent_attention_mean"] for row in rows],
      atol=1e-5,
    )


def test_losses_and_weights_are_those_of_the_prompts(run, lines):
  """Every predictor is called by itself, one prompt after another."""
  kernels, prompts = build.pool(run.config, 1), run.prompts(NUM)
  of = {
    "uniform": lambda x_T: bayes.uniform(3),
    "unigram": lambda x_T: bayes.unigram(x_T, 3),
    "unigram retrieval": lambda x_T: pools.unigram_retrieval(
      x_T, run.graph, kernels
    )[0],
    "edge posterior": lambda x_T: bayes.edge_posterior(x_T, run.graph, 0.1, 3),
    "retrieval": lambda x_T: bayes.retrieval(x_T, run.graph, kernels)[0],
  }
  y_NxS = np.asarray(prompts.y_S, float)

  def loss(f_NxS):
    law_NxS = (np.asarray(f_NxS, float) + 1e-6) / (1 + 3e-6)
    return -(y_NxS * np.log(law_NxS)).sum(axis=1).mean()

  laws = {name: jax.vmap(law)(prompts.x_T) for name, law in of.items()}
  line = lines[0]
  for name, law_NxS in laws.items():
    assert line["losses"][name] == pytest.approx(loss(law_NxS), abs=1e-4)
  four = np.stack([laws[name] for name in diversity.FOUR])
  for k, params in enumerate(run.params.values()):
    f_NxS, _ = run.apply(params, prompts.x_T)
    assert line["loss"][k] == pytest.approx(loss(f_NxS), abs=1e-4)
    w_4, _ = mixtures.mixture_weights(f_NxS, four)
    np.testing.assert_allclose(
      [line["four"][name][k] for name in diversity.FOUR], w_4, atol=2e-3
    )
  for k in range(2):
    total = sum(line["weights"][name][k] for name in diversity.PREDICTORS)
    assert total == pytest.approx(1, abs=1e-4)


def test_fresh_kernels_are_those_of_the_prior_of_the_pool(run, lines):
  """With its root law, and kernels of which the pool has none."""
  fresh = jax.jit(
    lambda key: sampling.sample_batch(
      key, run.graph, priors.dirichlet(0.1, "stationary"), 3, NUM
    )
  )(streams.key(run.config.eval.seed, "fresh"))
  f_NxS, _ = run.apply(run.newest, fresh.x_T)
  loss_N = -(np.asarray(fresh.y_S) * np.log(np.asarray(f_NxS))).sum(axis=1)
  assert lines[1]["loss"][-1] == pytest.approx(loss_N.mean(), abs=1e-4)
  assert lines[0]["loss"][-1] != lines[1]["loss"][-1]
  kernels = np.asarray(build.pool(run.config, 1))
  distance = np.abs(np.asarray(fresh.kernel)[:, None] - kernels[None])
  assert distance.max(axis=(2, 3)).min() > 1e-3


def test_the_page_of_a_run_has_the_number_of_kernels(run):
  assert data.of_run(run)["kernels"] == 3


def test_retrieval_is_near_the_exact_posterior_for_many_kernels_only(run):
  config = run.config.copy_and_resolve_references()
  config.prior.num_kernels = 2**12
  many = diversity.lines({"a": run._replace(config=config)}, NUM, 256)[1]
  few = diversity.lines({"a": run}, NUM, 256)[1]
  assert 0 <= many["same"] < 0.1 < few["same"]


def _line(M, seed, weights, prompts="pool", model="a"):
  by_name = dict(zip(diversity.PREDICTORS, weights, strict=True))
  return {
    "model": model,
    "M": M,
    "seed": seed,
    "prompts": prompts,
    "steps": [8],
    "loss": [0.5 + 0.1 * seed],
    "weights": {name: [w] for name, w in by_name.items()},
    "four": {
      "uniform": [0.0],
      "unigram": [0.0],
      "edge posterior": [by_name["edge posterior"]],
      "retrieval": [by_name["retrieval"]],
    },
    "left": [0.01],
    "losses": dict.fromkeys(("entropy", *diversity.PREDICTORS), 0.4)
    | {"retrieval": 0.3 + 0.1 * seed},
    "same": 0.2,
    "edges": 4,
    "recovered": [2 + seed],
    "attention": [0.5],
  }


SMALL = (0.1, 0.1, 0.2, 0.0, 0.6, 0.0)
LARGE = (0.0, 0.1, 0.0, 0.6, 0.2, 0.1)
FOUND = [
  _line(M, seed, weights, prompts)
  for prompts in ("pool", "fresh")
  for M, weights in ((1, SMALL), (4, SMALL), (16, LARGE))
  for seed in (0, 1)
]


def test_a_takeover_is_interpolated_between_sizes():
  header, rows = diversity_tables.takeovers(FOUND)
  of = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
  # 0 at M = 4 and .75 at M = 16: 1/2 after two thirds of the way.
  edge = of["edge posterior over retrieval"]
  assert edge["M"] == pytest.approx(4 * 4 ** (2 / 3))
  assert edge["factor of error"] == pytest.approx(1)
  assert (edge["seeds"], edge["reached"]) == (2, 2)
  # .1 of .9 at M = 4 and .8 of 1 at M = 16.
  share = (0.5 - 1 / 9) / (0.8 - 1 / 9)
  assert of["generalises"]["M"] == pytest.approx(4 * 4**share)
  # Always above 1/2: the least size.
  always = [_line(M, seed, LARGE) for M in (1, 4) for seed in (0, 1)]
  row = diversity_tables.takeovers(always)[1][0]
  assert row[3:] == [2, pytest.approx(1), pytest.approx(1), "1.0, 1.0"]
  never = [_line(M, seed, SMALL) for M in (1, 4) for seed in (0, 1)]
  row = diversity_tables.takeovers(never)[1][0]
  assert row[3:] == [0, None, None, "-, -"]


def test_the_tables_have_means_over_seeds():
  header, rows = diversity_tables.weights(FOUND)
  first = dict(zip(header, rows[0], strict=True))
  assert (first["model"], first["M"], first["prompts"]) == ("a", 1, "pool")
  assert first["loss"] == pytest.approx(0.55)
  assert first["error"] == pytest.approx(0.05)
  # The same in both seeds: the prompts are shared.
  assert first["over retrieval"] == pytest.approx(0.2)
  assert first["error of over"] == pytest.approx(0, abs=1e-9)
  assert first["retrieval"] == pytest.approx(0.6)
  header, rows = diversity_tables.predictors(FOUND)
  first = dict(zip(header, rows[0], strict=True))
  assert first["retrieval - edge"] == pytest.approx(-0.05)
  assert first["error"] == pytest.approx(0.05)
  assert len(rows) == 6
  header, rows = diversity_tables.graph(FOUND)
  first = dict(zip(header, rows[0], strict=True))
  assert first["edges found"] == pytest.approx(0.625)
  assert len(rows) == 3
  header, rows = diversity_tables.four_weights(FOUND)
  last = dict(zip(header, rows[-1], strict=True))
  assert last["edge posterior"] == pytest.approx(0.6)
  assert last["error of retrieval"] == pytest.approx(0)


def test_panels_have_a_row_for_each_model_and_kind_of_prompts():
  other = [line | {"model": "b"} for line in FOUND]
  panels, of_graph, sizes = diversity_tables.panels(FOUND + other)
  kinds = diversity.POOL, diversity.FRESH
  titles = [f"{model}\n{kind} prompts" for model in "ab" for kind in kinds]
  assert [*panels] == titles
  assert sizes == [1, 4, 16]
  steps, weights = panels["a\nfresh prompts"][16]
  assert steps == [8]
  assert weights["edge posterior"] == pytest.approx([0.6])
  assert of_graph["b"]["edges"].tolist() == [[0.5] * 3, [0.75] * 3]


def test_a_phase_is_that_of_the_largest_weight_of_predictors():
  header, rows = diversity_tables.phases(FOUND)
  assert [row[:2] for row in rows] == [["a", 1], ["a", 4], ["a", 16]]
  assert [row[-1] for row in rows] == ["Mem 0.80", "2-Mem 0.60", "2-Gen 0.70"]
  assert header[-1] == "after all"
  two_steps = []
  for seed in (0, 1):
    one = _line(2, seed, SMALL)
    early = dict(zip(diversity.PREDICTORS, LARGE, strict=True))
    one["weights"] = {
      name: [early[name], *one["weights"][name]] for name in early
    }
    two_steps.append(one | {"steps": [1, 24]})
  header, rows = diversity_tables.phases(two_steps)
  assert dict(zip(header, rows[0], strict=True)) == {
    "model": "a",
    "M": 2,
    "after 1/24": "2-Gen 0.70",
    "after 1/8": "2-Gen 0.70",
    "after 1/4": "2-Gen 0.70",
    "after 1/2": "2-Gen 0.70",
    "after all": "2-Mem 0.60",
  }
