"""The script of kills, in short."""

from tests import kills


def test_a_kill_of_every_kind(tmp_path):
  assert kills.trials(3, seed=0, folder=tmp_path) == 3
