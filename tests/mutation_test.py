"""The faults of `tests.support.mutation` fit the code; none is tried here."""

import pytest

from tests.support import mutation


@pytest.mark.parametrize("fault", mutation.FAULTS, ids=lambda f: f.wrong)
def test_every_fault_changes_one_line(fault):
  text = mutation.source(fault, mutation.ROOT).read_text()
  changed = mutation.insert(fault, mutation.ROOT)
  pairs = zip(text.splitlines(), changed.splitlines(), strict=True)
  assert sum(line != wrong for line, wrong in pairs) == 1
  compile(changed, fault.module, "exec")


def test_a_line_that_is_missing_or_not_unique_is_refused():
  for line, num in (("no such line", "0"), ("import", r"\d+")):
    fault = mutation.Fault("icl_causal/graphs", line, "")
    with pytest.raises(ValueError, match=rf"occurs {num} times in .*graphs.py"):
      mutation.insert(fault, mutation.ROOT)


def test_every_fault_has_tests_that_are_run():
  for fault in mutation.FAULTS:
    for name in mutation.test_files(fault):
      assert (mutation.ROOT / name).exists()


def test_the_faults_are_many_and_different():
  assert len({fault[:3] for fault in mutation.FAULTS}) == len(mutation.FAULTS)
  assert len(mutation.FAULTS) >= 60
  folders = {fault.module.rpartition("/")[0] for fault in mutation.FAULTS}
  library = {"analysis", "config", "plotting", "report", "runs"}
  commands = {"harness", "sweep", "theory"}
  assert {f"icl_causal/{name}" for name in library} < folders
  assert {f"experiments/{name}" for name in commands} < folders


def test_the_copy_has_every_module():
  names = ["runs", ".venv", "tests"]
  assert mutation.ignored(str(mutation.ROOT), names) == {"runs", ".venv"}
  assert mutation.ignored(str(mutation.ROOT / "icl_causal"), names) == set()
