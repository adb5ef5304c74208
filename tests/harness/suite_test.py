"""How the runs of the paper's experiments are trained."""

import pytest

from configs import single_parent
from experiments.harness import app
from experiments.harness import grid
from experiments.harness import signals
from experiments.harness import suite
from icl_causal import config as configs
from icl_causal import runs

SMALL = {
  "graph.T": 6,
  "prior.S": 2,
  "train.steps": 2,
  "train.eval_every": 1,
  "train.batch_size": 64,
  "eval.test_size": 64,
  "eval.batch_size": 64,
  "eval.posterior_prompts": 0,
}


def _batch(folder, num: int, **changes):
  config = configs.load(single_parent, "chain", **SMALL | changes)
  return [grid.run(config, {"seed": seed}, folder) for seed in range(num)]


@pytest.mark.parametrize(
  ("num_runs", "num_devices", "batch_size", "expected"),
  [
    (1, 2, 64, True),
    (1, 3, 64, False),  # 64 prompts do not divide
    (2, 2, 64, False),
    (3, 2, 64, True),
    (3, 2, 32, False),  # 16 prompts for each core
    (3, 3, 96, False),
    (5, 2, 64, False),  # a sixth of the cores without a run
    (3, 8, 256, True),
    (60, 8, 256, False),
    (7, 1, 64, False),
  ],
)
def test_few_runs_are_trained_one_after_another(
  num_runs, num_devices, batch_size, expected, tmp_path
):
  changes = {"train.batch_size": batch_size}
  batch = _batch(tmp_path, num_runs, **changes)
  assert suite.one_by_one(batch, num_devices) == expected


def test_a_failed_run_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
  """As side by side; reading the results raises."""
  monkeypatch.setattr(suite, "one_by_one", lambda batch, num: True)
  config = _batch(tmp_path, 1)[0].config
  batch = [
    grid.run(config, {"train.learning_rate": rate}, tmp_path)
    for rate in (0.1, 1e38, 0.2)
  ]
  suite.train({"chain": batch}, signals.never)
  assert "training 3 runs: chain" in capsys.readouterr().out
  finished = [runs.is_finished(run.workdir) for run in batch]
  assert finished == [True, False, True]
  with pytest.raises(app.NonFinite, match="is not finite at step"):
    suite.read_results(batch)
