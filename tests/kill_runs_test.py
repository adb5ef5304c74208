"""One kill for two kinds of `tests.support.kill_runs`."""

import pytest

from tests.support import kill_runs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["joint", "verify"])
def test_a_killed_run_resumes_to_the_same_files(kind, tmp_path):
  assert kill_runs.trials(1, 0, tmp_path, [kind]) == 1
