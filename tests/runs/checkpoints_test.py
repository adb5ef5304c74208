"""Checkpoints: the state that was saved is read, or an error is reported."""

import re

import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from icl_causal import runs
from icl_causal.runs import checkpoints
from icl_causal.training import TrainState


def _state(value):
  params = {"W": jnp.full((3, 2), value), "A1": jnp.full((1, 2, 2), -value)}
  return TrainState(params, optax.adam(0.1).init(params), jnp.int32(value))


def _assert_equal(one, other):
  """Bitwise, with types and shapes."""
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _file(workdir, step):
  return workdir / "checkpoints" / f"{step}.npz"


def _names(folder):
  return {path.name for path in folder.iterdir()}


def _workdirs(tmp_path, *steps_by_run):
  """A run directory with checkpoints for each set of steps."""
  workdirs = []
  for r, steps in enumerate(steps_by_run):
    workdirs.append(tmp_path / f"run{r}")
    workdirs[-1].mkdir()
    for step in steps:
      runs.save_state(workdirs[-1], step, _state(10 * step + r), keep=9)
  return workdirs


def test_state_round_trip_keeps_the_newest(tmp_path):
  assert runs.load_state(tmp_path, _state(0)) == (None, [])
  for step in (1, 2, 30):
    runs.save_state(tmp_path, step, _state(step))
  assert _names(tmp_path / "checkpoints") == {"2.npz", "30.npz"}
  assert checkpoints.saved_steps(tmp_path) == [2, 30]
  state, messages = runs.load_state(tmp_path, _state(0))
  _assert_equal(state, _state(30))
  assert messages == []
  for step in (2, 30):
    _assert_equal(
      checkpoints.read_state(tmp_path, step, _state(0)), _state(step)
    )
  runs.save_state(tmp_path, 31, _state(31), keep=1)
  assert _names(tmp_path / "checkpoints") == {"31.npz"}


def test_leaves_of_any_type_and_value(tmp_path):
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
  runs.save_state(tmp_path, 0, state)
  _assert_equal(checkpoints.read_state(tmp_path, 0, state), state)


@pytest.mark.parametrize(
  ("other", "message"),
  [
    (
      {"W": np.zeros(2)},
      """it has ["['A']", "['W']"], not ["['W']"]""",
    ),
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
  runs.save_state(tmp_path, 0, state)
  with pytest.raises(ValueError, match=re.escape(message)):
    checkpoints.read_state(tmp_path, 0, other)


def test_flipped_bits_are_never_misread(tmp_path):
  runs.save_state(tmp_path, 1, _state(1))
  generator, refused = np.random.default_rng(0), 0
  path, like, saved = _file(tmp_path, 1), _state(0), _state(1)
  data = path.read_bytes()
  for at in generator.integers(len(data), size=1000):
    flipped = bytearray(data)
    flipped[at] ^= 1 << generator.integers(8)
    path.write_bytes(flipped)
    try:
      state = checkpoints.read_state(tmp_path, 1, like)
    except Exception:
      refused += 1
    else:
      _assert_equal(state, saved)
  assert refused > 500
  path.write_bytes(data)
  _assert_equal(checkpoints.read_state(tmp_path, 1, like), saved)


def test_truncated_files_are_never_misread(tmp_path):
  runs.save_state(tmp_path, 1, _state(1))
  path, like = _file(tmp_path, 1), _state(0)
  data = path.read_bytes()
  for length in range(0, len(data), 7):
    path.write_bytes(data[:length])
    with pytest.raises(Exception, match=r".*"):
      checkpoints.read_state(tmp_path, 1, like)


@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_damaged_older_checkpoint_does_not_prevent_a_save(tmp_path, damage):
  for step in (1, 2):
    runs.save_state(tmp_path, step, _state(step), keep=3)
  path = _file(tmp_path, 1)
  path.unlink() if damage is None else path.write_bytes(damage)
  runs.save_state(tmp_path, 3, _state(3), keep=3)
  runs.save_state(tmp_path, 4, _state(4), keep=2)
  for step in (3, 4):
    _assert_equal(
      checkpoints.read_state(tmp_path, step, _state(0)), _state(step)
    )
  assert _names(tmp_path / "checkpoints") == {"3.npz", "4.npz"}


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage"])
def test_damaged_checkpoint_is_moved_and_the_one_before_is_loaded(
  tmp_path, damage
):
  for step in (1, 2):
    runs.save_state(tmp_path, step, _state(step))
  path = _file(tmp_path, 2)
  data = path.read_bytes()
  content = {
    "truncated": data[: len(data) // 2],
    "empty": b"",
    "garbage": b"\0\n" * 500,
  }[damage]
  path.write_bytes(content)
  state, messages = runs.load_state(tmp_path, _state(0))
  _assert_equal(state, _state(1))
  assert len(messages) == 1
  assert "the checkpoint of step 2 can't be used" in messages[0]
  assert "\n" not in messages[0]
  assert (tmp_path / "damaged_checkpoints/2.1.npz").read_bytes() == content
  runs.save_state(tmp_path, 2, _state(2))
  _assert_equal(runs.load_state(tmp_path, _state(0))[0], _state(2))


def test_a_renamed_checkpoint_is_damaged(tmp_path):
  for step in (1, 2):
    runs.save_state(tmp_path, step, _state(step))
  _file(tmp_path, 2).rename(_file(tmp_path, 3))
  state, (message,) = runs.load_state(tmp_path, _state(0))
  _assert_equal(state, _state(1))
  assert "step 3 can't be used" in message
  assert "(it is of step 2)" in message


def test_the_checkpoint_of_another_run_is_damaged(tmp_path):
  for name in ("a", "b"):
    runs.prepare(tmp_path / name, {"seed": name}, overwrite=False)
    runs.save_state(tmp_path / name, 1, _state(1))
  _file(tmp_path / "a", 1).replace(_file(tmp_path / "b", 1))
  with pytest.raises(runs.RunError, match="it is of another run"):
    runs.load_state(tmp_path / "b", _state(0))


def test_checkpoint_damaged_twice(tmp_path):
  runs.save_state(tmp_path, 1, _state(1))
  for _ in range(2):
    runs.save_state(tmp_path, 2, _state(2))
    _file(tmp_path, 2).write_bytes(b"")
    _assert_equal(runs.load_state(tmp_path, _state(0))[0], _state(1))
  assert _names(tmp_path / "damaged_checkpoints") == {"2.1.npz", "2.2.npz"}


def test_without_a_readable_checkpoint_nothing_is_moved_or_restarted(tmp_path):
  runs.save_state(tmp_path, 1, _state(1))
  path = _file(tmp_path, 1)
  data = path.read_bytes()
  path.write_bytes(b"")
  message = rf"{tmp_path} has no checkpoint that can be used \(.+delete the "
  with pytest.raises(runs.RunError, match=message):
    runs.load_state(tmp_path, _state(0))
  assert _names(tmp_path) == {"checkpoints"}
  path.write_bytes(data)
  _assert_equal(runs.load_state(tmp_path, _state(0))[0], _state(1))


def test_file_of_a_save_that_was_killed_is_ignored(tmp_path):
  runs.save_state(tmp_path, 1, _state(1))
  folder = tmp_path / "checkpoints"
  (folder / ".2.npz.tmp").write_bytes(b"PK")
  (folder / "notes.npz").write_bytes(b"PK")
  assert checkpoints.saved_steps(tmp_path) == [1]
  state, messages = runs.load_state(tmp_path, _state(0))
  _assert_equal(state, _state(1))
  assert messages == []


def test_failed_save_keeps_the_states_before_it(tmp_path):
  runs.save_state(tmp_path, 1, _state(1), keep=1)
  (tmp_path / "checkpoints" / "2.npz").mkdir()  # in the way of the rename
  (tmp_path / "checkpoints" / "2.npz" / "file").touch()
  with pytest.raises(
    runs.RunError, match=rf"^can't save the state of step 2 in {tmp_path}: .+"
  ):
    runs.save_state(tmp_path, 2, _state(2), keep=1)
  _assert_equal(checkpoints.read_state(tmp_path, 1, _state(0)), _state(1))


def test_runs_load_the_newest_step_that_all_have(tmp_path):
  workdirs = _workdirs(tmp_path, (2, 4), (4, 6))
  states, messages = runs.load_states(workdirs, _state(0))
  for r in range(2):
    _assert_equal(states[r], _state(40 + r))
  assert messages == []
  assert [checkpoints.saved_steps(w) for w in workdirs] == [[2, 4], [4, 6]]


def test_damaged_common_step_falls_back_to_the_common_step_before(tmp_path):
  workdirs = _workdirs(tmp_path, (2, 4), (2, 4), (1, 2, 4))
  _file(workdirs[1], 4).write_bytes(b"")
  states, messages = runs.load_states(workdirs, _state(0))
  for r in range(3):
    _assert_equal(states[r], _state(20 + r))
  assert len(messages) == 1
  assert "the checkpoint of step 4 can't be used" in messages[0]
  assert [checkpoints.saved_steps(w) for w in workdirs] == [
    [2, 4],
    [2],
    [1, 2, 4],
  ]
  assert _names(workdirs[1] / "damaged_checkpoints") == {"4.1.npz"}


def test_runs_without_a_common_step_have_no_state(tmp_path):
  workdirs = _workdirs(tmp_path, (2, 4), (6,))
  assert runs.load_states(workdirs, _state(0)) == (None, [])
  assert runs.load_states([], _state(0)) == (None, [])
  for workdir in workdirs:
    runs.delete_states(workdir)
    assert checkpoints.saved_steps(workdir) == []


def test_common_steps_of_which_none_can_be_read(tmp_path):
  workdirs = _workdirs(tmp_path, (2, 4), (2, 4))
  for r, step in ((0, 4), (1, 2)):
    _file(workdirs[r], step).write_bytes(b"PK")
  before = [_names(w / "checkpoints") for w in workdirs]
  with pytest.raises(
    runs.RunError, match=r"has no checkpoint that can be used"
  ) as e:
    runs.load_states(workdirs, _state(0))
  assert "\n" not in str(e.value)
  assert [_names(w / "checkpoints") for w in workdirs] == before
  assert all(_names(w) == {"checkpoints"} for w in workdirs)
