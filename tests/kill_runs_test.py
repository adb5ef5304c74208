"""One kill of `tests.support.kill_runs`."""

from tests.support import kill_runs


def test_a_killed_run_resumes_to_the_same_files(tmp_path):
  assert kill_runs.trials(1, 0, tmp_path, ["joint"]) == 1
