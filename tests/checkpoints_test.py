"""States on disk: what is read is what was saved, or nothing is."""

import pathlib
import re

import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from icl_causal import checkpoints
from icl_causal.training import TrainState


def _state(value):
  params = {"W": jnp.full((3, 2), value), "A1": jnp.full((1, 2, 2), -value)}
  return TrainState(params, optax.adam(0.1).init(params), jnp.int32(value))


def _equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _files(folder: pathlib.Path):
  return sorted(path for path in folder.rglob("*") if path.is_file())


def test_states_come_back_as_they_were(tmp_path):
  for step in (1, 2, 30):
    checkpoints.save(tmp_path / "there", step, _state(step), keep=2)
  for step in (2, 30):
    _equal(checkpoints.load(tmp_path / "there", step, _state(0)), _state(step))
  assert {p.name for p in (tmp_path / "there").iterdir()} == {"2", "30"}


def test_of_any_type_and_any_number(tmp_path):
  generator = np.random.default_rng(0)
  state = {
    "bfloat16": jnp.array([1.1, -jnp.inf], jnp.bfloat16),
    "float8": jnp.ones((2, 3), jnp.float8_e4m3fn),
    "float32": np.array([np.nan, -0.0, 1e-45, np.inf], np.float32),
    "bool": (np.array(True), [np.zeros((0, 3), bool)]),
    "file": generator.normal(size=(5, 4)).T,  # not in C order
    "uint32": jax.random.key_data(jax.random.key(1)),
    "none": None,
  }
  checkpoints.save(tmp_path, 0, state, keep=1)
  _equal(checkpoints.load(tmp_path, 0, state), state)


@pytest.mark.parametrize(
  ("other", "message"),
  [
    ({"W": np.zeros(2)}, """it has ["['A']", "['W']"], not ["['W']"]"""),
    (
      {"W": np.zeros(2), "A": np.zeros((2, 1))},
      "its ['W'] is float64[3], not float64[2]",
    ),
    (
      {"W": np.zeros(3, np.int64), "A": np.zeros((2, 1))},
      "its ['W'] is float64[3], not int64[3]",
    ),
  ],
)
def test_another_structure_is_refused(tmp_path, other, message):
  state = {"A": np.zeros((2, 1)), "W": np.zeros(3)}
  checkpoints.save(tmp_path, 0, state, keep=1)
  with pytest.raises(ValueError, match=re.escape(message)):
    checkpoints.load(tmp_path, 0, other)


def test_a_flipped_bit_is_never_misread(tmp_path):
  checkpoints.save(tmp_path, 1, _state(1), keep=1)
  generator, refused, flips = np.random.default_rng(0), 0, 0
  for path in _files(tmp_path):
    data = path.read_bytes()
    for at in generator.integers(len(data), size=min(len(data), 500)):
      flipped = bytearray(data)
      flipped[at] ^= 1 << generator.integers(8)
      path.write_bytes(flipped)
      flips += 1
      try:
        state = checkpoints.load(tmp_path, 1, _state(0))
      except Exception:
        refused += 1
      else:
        _equal(state, _state(1))
    path.write_bytes(data)
  assert flips > 500
  assert refused > 200
  _equal(checkpoints.load(tmp_path, 1, _state(0)), _state(1))


def test_a_byte_that_is_missing_is_never_misread(tmp_path):
  checkpoints.save(tmp_path, 1, _state(1), keep=1)
  (path,) = tmp_path.rglob("*.npz")
  data = path.read_bytes()
  for length in range(0, len(data), 7):
    path.write_bytes(data[:length])
    with pytest.raises(Exception, match=r".*"):
      checkpoints.load(tmp_path, 1, _state(0))


@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_an_older_one_that_is_damaged_does_not_hinder(tmp_path, damage):
  for step in (1, 2):
    checkpoints.save(tmp_path, step, _state(step), keep=3)
  for path in _files(tmp_path / "1"):
    path.unlink() if damage is None else path.write_bytes(damage)
  checkpoints.save(tmp_path, 3, _state(3), keep=3)
  checkpoints.save(tmp_path, 4, _state(4), keep=2)
  for step in (3, 4):
    _equal(checkpoints.load(tmp_path, step, _state(0)), _state(step))
  assert {path.name for path in tmp_path.iterdir()} == {"3", "4"}
