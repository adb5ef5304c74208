"""A run directory from somebody else: links, pipes, bombs, foreign files.

Nothing outside the directory changes, nothing waits, and each refusal is one
line.
"""

import io
import os
import re
import zipfile

import numpy as np
import pytest

from icl_causal import runs
from icl_causal.runs import checkpoints
from icl_causal.runs import directory
from tests.support import records

CONFIG = {"seed": 0, "graph": {"name": "chain", "T": 5}}
STATE = {"W": np.arange(6, dtype=np.float32)}


@pytest.fixture
def workdir(tmp_path):
  path = tmp_path / "run"
  runs.prepare(path, CONFIG, overwrite=False)
  return path


@pytest.fixture
def outside(tmp_path):
  """A file and a folder of the user, which must not change."""
  folder = tmp_path / "outside"
  folder.mkdir()
  (folder / "notes.txt").write_text("years of work")
  (folder / "1.npz").write_text("data")
  yield folder
  assert sorted(p.name for p in folder.iterdir()) == ["1.npz", "notes.txt"]
  assert (folder / "notes.txt").read_text() == "years of work"
  assert (folder / "1.npz").read_text() == "data"


def _refused(function, *arguments, **named):
  with pytest.raises(runs.RunError) as caught:
    function(*arguments, **named)
  assert "\n" not in str(caught.value)
  return str(caught.value)


WRITES = {
  "metrics.jsonl": lambda w: runs.append_metrics(w, records.row(1)),
  ".lock": lambda w: runs.lock(w).__enter__(),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe", "folder"])
def test_only_regular_files_are_written(workdir, outside, name, kind):
  path, target = workdir / name, outside / "notes.txt"
  make = {
    "symlink": lambda: path.symlink_to(target),
    "hard link": lambda: path.hardlink_to(target),
    "pipe": lambda: os.mkfifo(path),
    "folder": lambda: path.mkdir(),
  }
  make[kind]()
  assert re.search("can't write|is damaged", _refused(WRITES[name], workdir))


@pytest.mark.parametrize("name", ["result.json", "figures/loss.png"])
def test_links_are_replaced_and_not_followed(workdir, outside, name):
  """Also at the temporary name, under which a file is written first."""
  path = workdir / name
  path.parent.mkdir(exist_ok=True)
  for link in (path, path.with_name(f".{path.name}.tmp")):
    link.symlink_to(outside / "notes.txt")
  runs.write_text(path, "{}")
  assert path.read_text() == "{}"
  assert not path.is_symlink()


def test_a_linked_folder_of_checkpoints_is_refused(workdir, outside):
  (workdir / "checkpoints").symlink_to(outside)
  assert "symbolic link" in _refused(runs.load_state, workdir, STATE)
  assert "symbolic link" in _refused(runs.save_state, workdir, 3, STATE, keep=1)


def test_damaged_states_are_not_moved_through_a_link(workdir, outside):
  for step in (1, 2):
    runs.save_state(workdir, step, STATE)
  (workdir / "checkpoints" / "2.npz").write_bytes(b"")
  (workdir / "damaged_checkpoints").symlink_to(outside)
  assert "symbolic link" in _refused(runs.load_state, workdir, STATE)
  assert (workdir / "checkpoints" / "2.npz").exists()


@pytest.mark.parametrize("name", ["figures", "analysis", "slurm"])
def test_other_linked_folders_are_refused(workdir, outside, name):
  (workdir / name).symlink_to(outside)
  assert "symbolic link" in _refused(runs.make_directory, workdir / name)


def test_a_linked_member_is_refused(tmp_path, outside):
  (tmp_path / "sweep").mkdir()
  (tmp_path / "sweep" / "members").symlink_to(outside)
  member = tmp_path / "sweep" / "members" / "a"
  assert "symbolic link" in _refused(runs.prepare, member, CONFIG, False)


READS = {
  "config.json": runs.read_config,
  "environment.json": runs.read_config,
  "metrics.jsonl": runs.read_metrics,
  "snapshots.jsonl": runs.read_snapshots,
  "result.json": runs.read_result,
  "failed.json": runs.read_failure,
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("kind", ["pipe", "symlink", "folder"])
def test_only_regular_files_are_read(workdir, outside, name, kind):
  path = workdir / name
  path.unlink(missing_ok=True)
  make = {
    "pipe": lambda: os.mkfifo(path),
    "symlink": lambda: path.symlink_to(outside / "notes.txt"),
    "folder": lambda: path.mkdir(),
  }
  make[kind]()
  assert f"{name} is damaged" in _refused(READS[name], workdir)


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("metrics.jsonl", '{"step": NaN}'),
    ("metrics.jsonl", "{}"),
    ("metrics.jsonl", "[]"),
    ("metrics.jsonl", '{"step": "0"}'),
    ("metrics.jsonl", '{"step": true}'),
    ("metrics.jsonl", "[" * 100_000),
    ("failed.json", "{}"),
    ("failed.json", '{"step": "1", "what": "x"}'),
    ("result.json", '{"loss": NaN}'),
    ("result.json", "[" * 100_000),
  ],
)
def test_damaged_records(workdir, name, text):
  (workdir / name).write_text(text + "\n")
  assert "is damaged" in _refused(READS[name], workdir)


def test_large_json_is_not_read(workdir):
  with open(workdir / "result.json", "wb") as file:
    file.truncate(2**40)  # a hole, which takes no space
  assert "larger than 16 MiB" in _refused(runs.read_result, workdir)


def _bomb(array_bytes: int) -> bytes:
  """A small zip of a large array of zeros."""
  buffer, header = io.BytesIO(), io.BytesIO()
  shape = {"descr": "<f4", "fortran_order": False, "shape": (array_bytes // 4,)}
  np.lib.format.write_array_header_1_0(header, shape)
  with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("saved.npy", b"")
    with archive.open("['W'].npy", "w", force_zip64=True) as entry:
      entry.write(header.getvalue())
      for _ in range(array_bytes // 2**24):
        entry.write(bytes(2**24))
  return buffer.getvalue()


def test_compressed_archives_are_not_unpacked(workdir):
  bomb = _bomb(2**28)
  assert len(bomb) < 2**22
  runs.save_state(workdir, 1, STATE)
  path = workdir / "checkpoints" / "1.npz"
  path.write_bytes(bomb)
  for read in (
    lambda: checkpoints.read_state(workdir, 1, STATE),
    lambda: checkpoints.read_params(workdir, 1),
  ):
    with pytest.raises(ValueError, match=r"its .+\.npy is compressed"):
      read()


def test_overwrite_deletes_runs_only(tmp_path, workdir):
  """A config.json alone, of a model from a hub, does not make a run."""
  model = tmp_path / "model"
  model.mkdir()
  (model / "config.json").write_text('{"model_type": "bert"}')
  (model / "weights.bin").write_bytes(b"weights")
  message = _refused(runs.prepare, model, CONFIG, overwrite=True)
  assert "has no environment.json" in message
  (model / "environment.json").write_text('{"format": "3"}')
  message = _refused(runs.prepare, model, CONFIG, overwrite=True)
  assert "environment has no format" in message
  assert (model / "weights.bin").read_bytes() == b"weights"

  (workdir / "thesis.tex").write_text("years of work")
  message = _refused(runs.prepare, workdir, CONFIG, overwrite=True)
  assert "holds thesis.tex, which is not part of a run" in message
  (workdir / "thesis.tex").unlink()
  assert not runs.prepare(workdir, CONFIG, overwrite=True)


def test_overwrite_deletes_no_target_of_a_link(workdir, outside):
  (workdir / "figures").symlink_to(outside)
  (workdir / "result.json").symlink_to(outside / "notes.txt")
  assert not runs.prepare(workdir, CONFIG, overwrite=True)
  assert sorted(p.name for p in workdir.iterdir()) == [
    "config.json",
    "environment.json",
  ]


def test_overwrite_refuses_while_a_member_is_locked(workdir):
  member = workdir / "members" / "a"
  with runs.lock(member):
    message = _refused(runs.prepare, workdir, CONFIG, overwrite=True)
    assert "is in use by process" in message
  assert not runs.prepare(workdir, CONFIG, overwrite=True)


def test_overwrite_knows_every_documented_file():
  lines = (directory.__doc__ or "").splitlines()
  names = [line.split()[0].strip("/,") for line in lines if line[:4] == " " * 4]
  assert len(names) == 8
  assert set(names) <= directory._NAMES
