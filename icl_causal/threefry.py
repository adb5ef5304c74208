"""Random numbers of `jax.random`, faster on CPUs.

Threefry (Salmon et al., 2011) mixes two words in 20 rounds. On a CPU, jax runs
the rounds in a loop, which reads and writes all words in memory in each
iteration. Here, XLA fuses the rounds. The numbers are the same.
"""

import math

import jax
from jax import numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def normal(key, num: int) -> jax.Array:
  """`jax.random.normal(key, (num,))`."""
  if not _is_threefry(key):
    return jax.random.normal(key, (num,))
  x = 2 * _unit(key, num) + np.nextafter(np.float32(-1), np.float32(0))
  return np.float32(math.sqrt(2)) * jax.lax.erf_inv(x)


def exponential(key, num: int) -> jax.Array:
  """`jax.random.exponential(key, (num,))`."""
  if not _is_threefry(key):
    return jax.random.exponential(key, (num,))
  return -jnp.log1p(-_unit(key, num))


def _is_threefry(key) -> bool:
  """Whether a key has jax's default generator, and numbers have 32 bits."""
  return (
    jax.random.key_impl(key) == "threefry2x32"
    and jnp.result_type(float) == jnp.float32
  )


def _unit(key, num: int) -> jax.Array:
  """`jax.random.uniform(key, (num,))`: the first 23 bits of a word."""
  word = _words(jax.random.key_data(key), jnp.arange(num, dtype=jnp.uint32))
  one = jnp.uint32(0x3F800000)  # the bits of 1.0; the others are below 2
  return jax.lax.bitcast_convert_type(word >> 9 | one, jnp.float32) - 1


def _words(key_2, count) -> jax.Array:
  """A word for each count below 2^32."""
  keys = (*key_2, key_2[0] ^ key_2[1] ^ jnp.uint32(0x1BD11BDA))
  x, y = keys[0], count + keys[1]
  for i in range(5):
    for bits in _ROTATIONS[i % 2]:
      x += y
      y = (y << bits | y >> (32 - bits)) ^ x
    x += keys[(i + 1) % 3]
    y += keys[(i + 2) % 3] + jnp.uint32(i + 1)
  return x ^ y
