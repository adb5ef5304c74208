"""The figures command on experiments made small."""

import json
import types

import pytest

from configs import paper
from configs import random_forests
from configs import rows
from configs import several_parents
from configs import single_parent
from configs import standard
from experiments import figures
from experiments import verify
from experiments.harness import app
from experiments.harness import grid
from experiments.harness import signals
from experiments.harness import suite
from experiments.harness import verdicts
from icl_causal import runs
from tests.support import records

pytestmark = pytest.mark.slow


def _small(module):
  def get_config(variant_and_tier):
    config = module.get_config(variant_and_tier).unlock()
    if "T" in config.graph:
      config.graph.T = 6
    if "sweep" in config:
      config.sweep.grid.graph.seed = (3, 4)
    config.prior.S = 2
    config.train.update(steps=8, eval_every=4, batch_size=8)
    if "phase_steps" in config.train:
      config.train.update(phase_steps=1, joint_steps=1)
    if config.model.name == "standard":
      config.model.width = 8
    config.eval.update(test_size=32, batch_size=16)
    config.eval.update(posterior_prompts=8, posterior_samples=16)
    return config

  return types.SimpleNamespace(get_config=get_config)


@pytest.fixture
def small(monkeypatch):
  modules = {
    module: _small(module)
    for module in (single_parent, several_parents, standard, random_forests)
  }
  smaller = {
    name: paper.Experiment(modules[module], variant)
    for name, (module, variant) in paper.EXPERIMENTS.items()
  }
  monkeypatch.setattr(paper, "EXPERIMENTS", smaller)


def test_every_experiment_is_in_one_figure():
  shown = [n for figure in paper.FIGURES.values() for n in figure.experiments]
  assert sorted(shown) == sorted(paper.EXPERIMENTS)


@pytest.mark.parametrize("number", ["7", "8", "9"])
def test_trains_what_is_missing_and_draws(number, small, tmp_path):
  results = tmp_path / "results"
  runs_of = {
    name: suite.planned(name, "quick", 2, tmp_path / "runs")
    for name in paper.FIGURES[number].experiments
  }
  suite.train(runs_of, signals.never, at_once=1)
  drawn = figures.figures_of(number, runs_of)
  assert set(drawn) == {f"figure_{number}", f"figure_{number}_loss"}
  for name, group in runs_of.items():
    suite.write_results(results, name, group)
    path = results / f"{name.replace(' ', '_')}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["seed"] for line in lines] == [r.config.seed for r in group]
    assert all(line["steps"] == 8 for line in lines)
    recorded = suite.read_recorded(results, name)
    assert list(recorded) == [run.name for run in group]
    assert suite.read_results(group) == suite.read_results(group, recorded)
  judged = verdicts.Results(
    {name: suite.read_results(group) for name, group in runs_of.items()}, {}
  )
  for row in rows.ROWS:
    if row.of in runs_of:
      assert verdicts.measure(row, judged).num_units in (2, 4)
  header, table = figures.table(runs_of)
  assert len(table) == len(runs_of)
  assert all(len(row) == len(header) for row in table)

  class TrainedAgain(Exception):
    pass

  def refuse():
    raise TrainedAgain

  suite.train(runs_of, refuse)  # called after every evaluation


def test_tiers_and_graphs_give_different_runs(small, tmp_path):
  quick, other = (
    suite.planned("forests", tier, 2, tmp_path) for tier in ("quick", "paper")
  )
  assert [(r.config.seed, r.config.graph.seed) for r in quick] == [
    (0, 3),
    (0, 4),
    (1, 3),
    (1, 4),
  ]
  assert len({run.name for run in quick + other}) == 8


def test_a_run_that_failed_is_named(small, tmp_path):
  (run,) = suite.planned("chain", "quick", 1, tmp_path)
  runs.prepare(run.workdir, run.config.to_dict(), overwrite=False)
  failed = {"step": 4, "what": "the loss is not finite"}
  runs.write_failure(run.workdir, failed)
  with pytest.raises(app.NonFinite, match="not finite at step 4"):
    suite.read_results([run])


def test_a_missing_final_state_is_named(small, tmp_path):
  (run,) = suite.planned("standard chain", "quick", 1, tmp_path)
  runs.prepare(run.workdir, run.config.to_dict(), overwrite=False)
  with pytest.raises(app.Refused, match="final checkpoint is missing or unr"):
    suite.final_params(run)
  with pytest.raises(app.Refused, match="final attention maps are missing"):
    suite.final_attention(run)


def test_a_recorded_run_replaces_one_that_is_not_there(small, tmp_path):
  results, name = tmp_path / "results", "standard chain"
  workdirs = tmp_path / "a", tmp_path / "b"
  in_a, in_b = (suite.planned(name, "quick", 3, w) for w in workdirs)
  assert suite.read_recorded(results, name) == {}
  for run, loss in ((in_a[1], 1.0), (in_b[2], 2.0)):
    runs.prepare(run.workdir, run.config.to_dict(), overwrite=False)
    runs.write_result(run.workdir, records.result(loss=loss))

  suite.write_results(results, name, [in_a[1]])
  recorded = suite.read_recorded(results, name)
  assert list(recorded) == [in_a[1].name]
  # Seeds that the flag requests, and those recorded.
  for num_seeds, seeds in ((1, [0, 1]), (2, [0, 1]), (3, [0, 1, 2])):
    planned = verify.planned(name, "quick", num_seeds, tmp_path, recorded)
    assert [run.config.seed for run in planned] == seeds

  suite.write_results(results, name, in_b[1:], recorded)
  recorded = suite.read_recorded(results, name)
  assert [line["loss"] for line in recorded.values()] == [1.0, 2.0]
  assert [line["seed"] for line in recorded.values()] == [1, 2]
  # A run that is there takes precedence over its recorded line.
  runs.write_result(in_b[2].workdir, records.result(loss=3.0))
  rows = suite.read_results(in_b[1:], recorded)
  assert [row["loss"] for row in rows] == [1.0, 3.0]
  with pytest.raises(runs.RunError):
    suite.read_results([in_b[0]], recorded)


def test_recorded_lines_of_other_seeds_stay(small, tmp_path):
  """Of the same experiment; a seed that is trained again has one line."""
  name = "standard chain"
  planned = suite.planned(name, "quick", 3, tmp_path)

  def finish(run, loss):
    runs.prepare(run.workdir, run.config.to_dict(), overwrite=True)
    runs.write_result(run.workdir, records.result(loss=loss))

  def losses():
    lines = suite.read_recorded(tmp_path, name).values()
    return [(line["seed"], line["loss"]) for line in lines]

  for run in planned:
    finish(run, float(run.config.seed))
  suite.write_results(tmp_path, name, planned)
  finish(planned[1], 7.0)
  suite.write_results(tmp_path, name, [planned[1]])
  assert losses() == [(0, 0.0), (1, 7.0), (2, 2.0)]
  # Another recipe for seed 2.
  changed = grid.run(
    planned[2].config, {"train.batch_size": 16, "seed": 2}, tmp_path
  )
  changed = changed._replace(point={"seed": 2})
  finish(changed, 9.0)
  suite.write_results(tmp_path, name, [changed])
  assert losses() == [(0, 0.0), (1, 7.0), (2, 9.0)]


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("{}", "line 2, is damaged: its run is missing"),
    ("[]", "line 2, is damaged: it is not a JSON object"),
    ('{"loss": NaN}', "line 2, is damaged: "),
    ("{", "line 2, is damaged: "),
    ("changed loss", "line 2, is damaged: its loss is 'low'"),
    ("../../run", r"line 2, is damaged: its run is '\.\./\.\./run'"),
    ("incomplete", "is damaged: its last line is incomplete"),
  ],
)
def test_damaged_recorded_lines_are_refused(tmp_path, line, message):
  valid = records.result() | {"run": "0" * 12, "seed": 0}
  end = "" if line == "incomplete" else "\n"
  line = {
    "changed loss": json.dumps(valid | {"loss": "low"}),
    "../../run": json.dumps(valid | {"run": "../../run"}),
  }.get(line, line)
  text = f"{json.dumps(valid)}\n{line}{end}"
  (tmp_path / "chain.jsonl").write_text(text)
  with pytest.raises(runs.RunError, match=message) as caught:
    suite.read_recorded(tmp_path, "chain")
  assert "\n" not in str(caught.value)
