"""The script of kills, in short."""

from tests import kills


def test_a_killed_run_comes_to_the_same_end(tmp_path):
  assert kills.trials(1, seed=0, folder=tmp_path) == 1
