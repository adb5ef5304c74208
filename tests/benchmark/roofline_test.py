"""That the roofline counts work correctly, and that the library does no more.

Operations are compared with counts by hand and with those of XLA.
"""

import math

import jax
from jax import numpy as jnp
from jax.extend import core
import optax
import pytest

from experiments.benchmark import implementations
from experiments.benchmark import roofline
from icl_causal import models
from icl_causal import parallel
from icl_causal import training

KEY = jax.random.key(0)
SPLIT = jax.sharding.PartitionSpec("batch")


@pytest.mark.parametrize(
  ("function", "operations"),
  [
    (lambda a: a @ a, 2 * 8**3),
    (lambda a: jax.vmap(lambda row: row @ a)(a), 2 * 8**3),
    (lambda a: a + 2 * a, 2 * 64),
    (lambda a: jnp.exp(a), 10 * 64),
    (lambda a: a.sum(), 64),
    (lambda a: a.T.reshape(-1)[:3], 0),
    (lambda a: jax.lax.scan(lambda c, _: (c @ a, None), a, None, 5)[0], 5120),
    (lambda a: jax.grad(lambda b: (b @ a).sum())(a), 2 * 2 * 8**3 + 64),
    (lambda a: jax.jit(lambda b: b @ a)(a), 2 * 8**3),
    (lambda a: jax.random.bits(KEY, (64,)), 50 * 64),
  ],
)
def test_operations_are_counted(function, operations):
  a = jnp.ones((8, 8))
  assert roofline.count_work(function, a).operations == operations


def test_operations_are_those_of_all_devices():
  mesh = parallel.batch_mesh()
  twice = jax.shard_map(
    lambda a: 2 * a, mesh=mesh, in_specs=SPLIT, out_specs=SPLIT
  )
  a = jnp.ones((8 * mesh.size, 8))
  assert roofline.count_work(twice, a).operations == 64 * mesh.size


def test_bytes_are_those_of_products_sums_and_moves():
  a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
  assert roofline.count_work(lambda: a @ b).bytes == 4 * (12 + 20 + 15)
  assert roofline.count_work(lambda: a + 1).bytes == 0
  assert roofline.count_work(lambda: a.sum()).bytes == 4 * (12 + 1)


def test_operations_of_the_gradient_are_those_that_xla_counts():
  """XLA counts before optimization; exp and the like count as ten here."""
  model = models.Disentangled(3, 8, (2, 1))
  params = training.init(KEY, model, optax.sgd(0.1)).params
  x_BxT = jnp.zeros((16, 8), int)

  def loss(params):
    f_BxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(x_BxT)
    return jnp.square(f_BxS).sum()

  counted = roofline.count_work(jax.grad(loss), params).operations
  costs = jax.jit(jax.grad(loss)).lower(params).cost_analysis()
  expected = costs["flops"] + 10 * costs["transcendentals"]
  assert counted == pytest.approx(expected, rel=0.25)


def test_limits_bound_the_time():
  limits = roofline.Limits(operations=1e9, bytes=1e6)
  assert roofline.min_seconds(roofline.Work(1e9, 0), limits) == 1
  assert roofline.min_seconds(roofline.Work(1e9, 2e6), limits) == 2
  measured = roofline.measure_limits()
  assert measured.operations > 1e8
  assert measured.bytes > 1e8


def test_no_array_is_larger_than_the_attention():
  """In the library's gradient; the textbook version has larger arrays."""
  case = implementations.Case(5, 32, 64, (2, 1))
  largest = case.batch_size * case.T**2 * case.heads[0]
  library = implementations.from_library(case)
  loop = implementations.loop("gradient", case, library)
  sizes = _sizes(jax.make_jaxpr(loop.step)(loop.carry, loop.data).jaxpr)
  assert max(sizes) <= largest
  textbook = implementations.from_textbook(case)
  loop = implementations.loop("gradient", case, textbook)
  sizes = _sizes(jax.make_jaxpr(loop.step)(loop.carry, loop.data).jaxpr)
  assert max(sizes) > largest


def _sizes(jaxpr):
  for equation in jaxpr.eqns:
    for variable in equation.outvars:
      yield math.prod(variable.aval.shape)
    for inner in core.jaxprs_in_params(equation.params):
      yield from _sizes(inner)
