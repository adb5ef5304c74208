"""The numbers are those of `jax.random`."""

import jax
import numpy as np
import pytest

from icl_causal import threefry

KINDS = [
  (threefry.normal, jax.random.normal),
  (threefry.exponential, jax.random.exponential),
]


@pytest.mark.parametrize(("ours", "of_jax"), KINDS)
@pytest.mark.parametrize("num", [1, 2, 9, 2**14])
def test_equal_numbers(ours, of_jax, num):
  keys_B = jax.random.split(jax.random.key(num), 64)
  found, expected = (
    jax.jit(jax.vmap(draw))(keys_B)
    for draw in (lambda key: ours(key, num), lambda key: of_jax(key, (num,)))
  )
  np.testing.assert_array_equal(found, expected)
  assert len(np.unique(found)) > 0.9 * min(64 * num, 2**16)


@pytest.mark.parametrize(("ours", "of_jax"), KINDS)
def test_another_generator(ours, of_jax):
  key = jax.random.key(3, impl="rbg")
  np.testing.assert_array_equal(ours(key, 9), of_jax(key, (9,)))
  assert not np.array_equal(ours(key, 9), ours(jax.random.key(3), 9))


@pytest.mark.parametrize(("ours", "of_jax"), KINDS)
def test_double_precision(ours, of_jax):
  with jax.enable_x64(True):
    key = jax.random.key(3)
    assert ours(key, 9).dtype == np.float64
    np.testing.assert_array_equal(ours(key, 9), of_jax(key, (9,)))
