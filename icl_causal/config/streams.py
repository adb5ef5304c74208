"""The independent streams of randomness that a seed feeds."""

import jax

_STREAMS = (
  *("graph", "init", "data", "test", "posterior", "wrong_graph", "pool"),
  "fresh",
)


def key(seed, stream: str) -> jax.Array:
  """The typed key of one stream; the seed may be traced."""
  return jax.random.fold_in(jax.random.key(seed), _STREAMS.index(stream))
