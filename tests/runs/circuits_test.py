"""The measured circuit of a run, as somebody else may have written it."""

import copy

import numpy as np
import pytest

from icl_causal import runs
from icl_causal.runs import circuits
from tests.support import records

T = 5
CONFIG = {"seed": 0, "graph": {"name": "chain", "T": T}}


@pytest.fixture
def workdir(tmp_path):
  path = tmp_path / "run"
  runs.prepare(path, CONFIG, overwrite=False)
  runs.append_metrics(path, records.row(1))
  return path


def test_what_is_written_is_read(workdir):
  assert runs.read_circuits(workdir, T) is None
  value = records.circuit(T)
  runs.write_circuits(workdir, value)
  assert runs.read_circuits(workdir, T) == value
  without = value | {"patches": {}, "agreement": {}, "clamp": None}
  without |= {"reason": "no reason", "blocks": []}
  runs.write_circuits(workdir, without)
  assert runs.read_circuits(workdir, T) == without


def test_a_record_is_of_one_training(workdir):
  """It does not fit another end of the history, nor another config."""
  runs.write_circuits(workdir, records.circuit(T))
  runs.append_metrics(workdir, records.row(2))
  with pytest.raises(runs.RunError, match="its checksum does not match"):
    runs.read_circuits(workdir, T)


CHANGES = {
  "its scores is missing": lambda v: v.pop("scores"),
  "its step is 'x'": lambda v: v.update(step="x"),
  "its step or prompts are below 0": lambda v: v.update(step=-1),
  "its parent is missing": lambda v: v["scores"].pop("parent"),
  "its parent is 1": lambda v: v["scores"].update(parent=1),
  "its value is 'x'": lambda v: v["scores"].update(
    parent={"value": "x", "error": None}
  ),
  "its error is missing": lambda v: v.update(clamp={"value": 1.0}),
  "its share is None": lambda v: v["blocks"][0].update(share=None),
  "it has 7": lambda v: v.update(blocks=[7]),
  "it has 8": lambda v: v["agreement"].update({"x": 8}),
  "its agreement has other names": lambda v: v["agreement"].popitem(),
  "its patches are": lambda v: v["patches"].popitem(),
  f"its whole row is not {T} x {T}": lambda v: v["patches"].update(
    {"whole row": [[1.0] * T] * (T - 1)}
  ),
  f"its token alone is not {T} x {T}": lambda v: v["patches"].update(
    {"token alone": [[True] * T] * T}
  ),
  f"its fitted layer 2 is not {T} x {T}": lambda v: v["patches"].update(
    {"fitted layer 2": [["0"] * T] * T}
  ),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_forged_record_is_refused(workdir, message):
  """Its checksum is right."""
  value = copy.deepcopy(records.circuit(T))
  CHANGES[message](value)
  runs.write_circuits(workdir, value)
  with pytest.raises(runs.RunError, match="is damaged") as caught:
    runs.read_circuits(workdir, T)
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


def test_random_damage_is_refused(workdir):
  runs.write_circuits(workdir, records.circuit(T))
  path = workdir / circuits.PATH
  whole = path.read_bytes()
  random = np.random.default_rng(0)
  for _ in range(50):
    damaged = bytearray(whole)
    place = random.integers(len(damaged))
    damaged[place] ^= 1 << int(random.integers(7))
    path.write_bytes(bytes(damaged))
    with pytest.raises(runs.RunError):
      runs.read_circuits(workdir, T)


def test_links_are_refused(workdir, tmp_path):
  runs.write_circuits(workdir, records.circuit(T))
  (workdir / "analysis").rename(tmp_path / "elsewhere")
  (workdir / "analysis").symlink_to(tmp_path / "elsewhere")
  with pytest.raises(runs.RunError, match="symbolic link"):
    runs.read_circuits(workdir, T)
  with pytest.raises(runs.RunError, match="symbolic link"):
    runs.write_circuits(workdir, records.circuit(T))
  (workdir / "analysis").unlink()
  (workdir / "analysis").mkdir()
  (workdir / circuits.PATH).symlink_to(tmp_path / "elsewhere" / "circuits.json")
  with pytest.raises(runs.RunError, match="symbolic link"):
    runs.read_circuits(workdir, T)
