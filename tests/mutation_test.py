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
    with pytest.raises(ValueError, match=rf"occurs {num} times in .*graphs.py"):
      mutation.insert(mutation.Fault("graphs", line, ""), mutation.ROOT)


@pytest.mark.parametrize(
  "name",
  sorted({*mutation.COMBINED, *(fault.module for fault in mutation.FAULTS)}),
)
def test_every_module_has_the_tests_that_are_run(name):
  assert (mutation.ROOT / mutation.test_file(name)).exists()


def test_the_copy_has_every_module():
  names = ["runs", ".venv", "tests"]
  assert mutation.ignored(str(mutation.ROOT), names) == {"runs", ".venv"}
  assert mutation.ignored(str(mutation.ROOT / "icl_causal"), names) == set()
