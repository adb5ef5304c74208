"""That the textbook version and the library do the same work."""

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from configs import single_parent
from experiments.benchmark import implementations

BOTH = (implementations.from_textbook, implementations.from_library)


def test_both_take_the_same_gradient():
  case = implementations.Case(3, 6, 64, (2, 1))
  loops = [implementations.loop("gradient", case, make(case)) for make in BOTH]
  data = loops[0].data
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    *(jax.jit(loop.step)(loop.carry, data) for loop in loops),
  )


def test_both_draw_from_the_same_law():
  """Compares how often a token repeats its parent, and how sharp targets are.

  The tolerance is four standard errors.
  """
  case = implementations.Case(3, 6, 4096)
  means, variances = [], []
  for seed, make in enumerate(BOTH):
    batch = jax.jit(make(case).draw)(jax.random.key(seed))
    repeats_B = (batch.x_T[:, 1:-1] == batch.x_T[:, :-2]).mean(axis=1)
    sharpness_B = jnp.square(batch.y_S).sum(axis=1)
    values = jnp.stack([repeats_B, sharpness_B])
    means.append(values.mean(axis=1))
    variances.append(values.var(axis=1) / case.batch_size)
  error = jnp.sqrt(variances[0] + variances[1])
  assert (jnp.abs(means[0] - means[1]) < 4 * error).all()


def test_time_to_all_edges():
  config = single_parent.get_config("chain")
  config.graph.T, config.prior.S, config.train.batch_size = 4, 3, 64
  config.train.eval_every = 32
  library = implementations.from_library(implementations.Case(3, 4, 64))
  assert implementations.seconds_to_all_edges(library, config) > 0
  config.train.steps = 32
  config.train.learning_rate = 0.0
  with pytest.raises(ValueError, match="32 steps do not recover every edge"):
    implementations.seconds_to_all_edges(library, config)
