"""Files are replaced completely or not at all; errors are one line."""

import ast
import errno
import os
import pathlib

import numpy as np
import pytest

from icl_causal import runs
from icl_causal.runs import files
from icl_causal.runs.files import RunError


def test_write_replaces_the_whole_file(tmp_path):
  path = tmp_path / "file.txt"
  files.write_text(path, "a long first text")
  files.write_text(path, "short")
  assert path.read_text() == "short"
  assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch, function):
  path = tmp_path / "file.txt"
  files.write_text(path, "old")

  def fail(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    if function == "write":
      patch.setattr(files, "_write_all", fail)
    else:
      patch.setattr(files.os, function, fail)
    message = rf"^can't write {path}: No space left on device$"
    with pytest.raises(RunError, match=message):
      files.write_text(path, "new")
  assert path.read_text() == "old"
  assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_write_into_a_missing_folder_names_the_file(tmp_path):
  path = tmp_path / "missing" / "file.txt"
  for write in (
    lambda: files.write_text(path, "text"),
    lambda: files.append(path, b"text"),
  ):
    with pytest.raises(
      RunError, match=r"can't write .*file\.txt: No such file"
    ):
      write()
  assert not path.parent.exists()


def test_json_object_is_read_or_reported_in_one_line(tmp_path):
  path = tmp_path / "file.json"
  with pytest.raises(RunError, match=r"has no file\.json"):
    files.read_json(path)
  with pytest.raises(RunError, match="does not exist: no run has been there"):
    files.read_json(tmp_path / "missing" / "file.json")
  for damaged in (b"", b"{", b"[1]", b'"text"', b"\xff{}", b"[" * 10**5):
    path.write_bytes(damaged)
    with pytest.raises(RunError, match=r"file\.json is damaged: ") as caught:
      files.read_json(path)
    assert "\n" not in str(caught.value)
  path.write_text('{"key": [1]}')
  assert files.read_json(path) == {"key": [1]}


def test_lines_are_appended_and_an_incomplete_last_line_is_skipped(tmp_path):
  path = tmp_path / "rows.jsonl"
  assert list(files.read_lines(path)) == []
  for line in (b"one\n", b"two\n"):
    files.append(path, line)
  first = (f"{path}, line 1,", b"one\n")
  second = (f"{path}, line 2,", b"two\n")
  assert list(files.read_lines(path)) == [first, second]
  for length in range(4, 8):
    path.write_bytes(b"one\ntwo\n"[:length])
    assert list(files.read_lines(path)) == [first]
  files.cut(path, 4)
  files.append(path, b"two\n")
  assert list(files.read_lines(path)) == [first, second]


def test_a_long_line_is_not_read(tmp_path):
  path = tmp_path / "rows.jsonl"
  with open(path, "wb") as file:
    file.truncate(2**40)  # a hole, which takes no space
  with pytest.raises(RunError, match="line 1 is longer than 16 MiB"):
    list(files.read_lines(path))


@pytest.mark.parametrize(
  "number", ["NaN", "-Infinity", "1e999", "-1e999", "1" * 19, "1" * 5000]
)
def test_numbers_are_finite(number):
  for text in (f'{{"a": {number}}}', f'{{"a": {{"b": [{number}]}}}}'):
    with pytest.raises(RunError, match=r"^here is damaged: ") as caught:
      files.parse(text.encode(), "here")
    assert len(str(caught.value)) < 100
  assert files.parse(b'{"a": 1e308, "b": 123456789012345678}', "") == {
    "a": 1e308,
    "b": 123456789012345678,
  }


def test_every_rename_is_made_durable(tmp_path, monkeypatch):
  """The folder of a renamed file is flushed after the rename."""
  events, replace, fsync = [], os.replace, os.fsync

  def recorded_replace(old, new):
    replace(old, new)
    events.extend(("renamed", os.path.dirname(p)) for p in {old, new})

  def recorded_fsync(descriptor):
    fsync(descriptor)
    events.append(("flushed", os.readlink(f"/proc/self/fd/{descriptor}")))

  monkeypatch.setattr(os, "replace", recorded_replace)
  monkeypatch.setattr(os, "fsync", recorded_fsync)
  run = tmp_path / "run"
  config = {"seed": 0}
  runs.prepare(run, config, overwrite=False)
  for step in (1, 2):
    runs.save_state(run, step, {"W": np.zeros(2)})
  (run / "checkpoints/2.npz").write_bytes(b"")
  runs.load_state(run, {"W": np.zeros(2)})
  runs.prepare(run, config, overwrite=True)
  pending = set()
  for what, folder in events:
    if what == "renamed":
      pending.add(folder)
    else:
      assert folder in pending or not pending  # nothing happens in between
      pending.discard(folder)
  assert not pending
  folders = {os.path.relpath(f, run) for what, f in events if what == "renamed"}
  assert folders == {".", "checkpoints", "damaged_checkpoints", ".deleted"}


def test_only_one_module_renames():
  """Through `files.move` and `files.write_bytes`, which flush the folder."""
  root = pathlib.Path(__file__).parents[2]
  for folder in ("icl_causal", "experiments"):
    for path in (root / folder).rglob("*.py"):
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and len(node.args) == 1:
          name = ast.unparse(node.func)
          assert not name.endswith((".rename", ".replace")), path
