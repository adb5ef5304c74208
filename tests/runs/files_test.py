"""Files are replaced completely or not at all; errors are one line."""

import errno
import json
import os

import pytest

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
    lambda: files.append_line(path, {"step": 0}),
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
  assert files.read_lines(path) == []
  rows = [{"step": 0, "text": "a\nb"}, {"step": 1, "text": None}]
  for row in rows:
    files.append_line(path, row)
  assert files.read_lines(path) == rows
  data = path.read_bytes()
  for length in range(data.index(b"\n") + 1, len(data)):
    path.write_bytes(data[:length])
    assert files.read_lines(path) == rows[:1]
  path.write_bytes(data.replace(b'"step": 0', b'"step"'))
  with pytest.raises(RunError, match=r"rows\.jsonl is damaged in line 1: "):
    files.read_lines(path)


def test_nan_is_never_written(tmp_path):
  path = tmp_path / "rows.jsonl"
  with pytest.raises(ValueError, match="JSON compliant"):
    files.append_line(path, {"loss": float("nan")})
  assert not path.exists()
  files.append_line(path, {"loss": 1.5})
  assert json.loads(path.read_text()) == {"loss": 1.5}
