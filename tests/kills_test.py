"""The script of kills, in short."""

from tests import kills


def test_a_run_and_a_sweep_killed(tmp_path):
  assert kills.trials(2, seed=0, folder=tmp_path) == 2
