import itertools

import jax
import numpy as np
import pytest

from icl_causal.config import streams

NAMES = ("graph", "init", "data", "test", "posterior", "pool", "fresh")


def test_streams_and_seeds_have_different_keys():
  keys = [
    np.asarray(jax.random.key_data(streams.key(seed, name)))
    for seed, name in itertools.product((0, 1, 2**32 - 1), NAMES)
  ]
  assert len({key.tobytes() for key in keys}) == 3 * len(NAMES)
  with pytest.raises(ValueError, match="not in tuple"):
    streams.key(0, "tests")
