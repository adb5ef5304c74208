"""That rivals do the same work, that it is counted right, and no more of it."""

import json
import math
import pathlib

import jax
from jax import numpy as jnp
from jax.extend import core
import numpy as np
import pytest

from configs import many_graphs
from configs import single_parent
from experiments import benchmark
from experiments import build
from experiments import machine
from experiments import rivals
from experiments import timings
from icl_causal import models
from icl_causal import training

SPLIT = jax.sharding.PartitionSpec("batch")
KEY = jax.random.key(0)
CASE = rivals.Case(3, 6, 64, (2, 1))


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
  assert machine.work(function, a).operations == operations


def test_operations_are_those_of_all_devices():
  mesh = build.mesh()
  twice = jax.shard_map(
    lambda a: 2 * a, mesh=mesh, in_specs=SPLIT, out_specs=SPLIT
  )
  a = jnp.ones((8 * mesh.size, 8))
  assert machine.work(twice, a).operations == 64 * mesh.size


def test_bytes_are_those_of_products_sums_and_moves():
  a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
  assert machine.work(lambda: a @ b).bytes == 4 * (12 + 20 + 15)
  assert machine.work(lambda: a + 1).bytes == 0
  assert machine.work(lambda: a.sum()).bytes == 4 * (12 + 1)


def test_operations_of_the_gradient_are_those_that_xla_counts():
  """Of the program before it is optimised; functions count ten times here."""
  model = models.Disentangled(3, 8, (2, 1))
  params = training.init(jax.random.key(0), model, rivals.optax.sgd(0.1)).params
  x_BxT = jnp.zeros((16, 8), int)

  def loss(params):
    f_BxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(x_BxT)
    return jnp.square(f_BxS).sum()

  counted = machine.work(jax.grad(loss), params).operations
  costs = jax.jit(jax.grad(loss)).lower(params).cost_analysis()
  theirs = costs["flops"] + 10 * costs["transcendentals"]
  assert counted == pytest.approx(theirs, rel=0.25)


def test_limits_bound_the_time():
  can = machine.Limits(operations=1e9, bytes=1e6)
  assert machine.least_seconds(machine.Work(1e9, 0), can) == 1
  assert machine.least_seconds(machine.Work(1e9, 2e6), can) == 2
  measured = machine.limits()
  assert measured.operations > 1e8
  assert measured.bytes > 1e8


def test_nothing_has_a_width_for_every_pair_of_positions():
  """No array of the gradient is larger than the attention of all heads."""
  case = rivals.Case(5, 32, 64, (2, 1))
  made = rivals.loop("gradient", case, rivals.from_library(case))
  sizes = _sizes(jax.make_jaxpr(made.step)(made.carry, made.data).jaxpr)
  assert max(sizes) <= case.batch_size * case.T**2 * case.heads[0]
  dense = rivals.loop("gradient", case, rivals.from_textbook(case))
  sizes = _sizes(jax.make_jaxpr(dense.step)(dense.carry, dense.data).jaxpr)
  assert max(sizes) > case.batch_size * case.T**2 * case.heads[0]


def _sizes(jaxpr):
  for equation in jaxpr.eqns:
    for variable in equation.outvars:
      yield math.prod(variable.aval.shape)
    for inner in core.jaxprs_in_params(equation.params):
      yield from _sizes(inner)


def test_rivals_take_the_same_gradient():
  loops = [
    rivals.loop("gradient", CASE, made(CASE))
    for made in (rivals.from_textbook, rivals.from_library)
  ]
  data = loops[0].data
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    *(jax.jit(loop.step)(loop.carry, data) for loop in loops),
  )


def test_rivals_draw_from_the_same_law():
  """How often a token repeats its parent, and how sharp the target is."""
  case = rivals.Case(3, 6, 4096)
  means, variances = [], []
  for seed, made in enumerate((rivals.from_textbook, rivals.from_library)):
    batch = jax.jit(made(case).draw)(jax.random.key(seed))
    repeats_B = (batch.x_T[:, 1:-1] == batch.x_T[:, :-2]).mean(axis=1)
    sharpness_B = jnp.square(batch.y_S).sum(axis=1)
    values = jnp.stack([repeats_B, sharpness_B])
    means.append(values.mean(axis=1))
    variances.append(values.var(axis=1) / case.batch_size)
  error = jnp.sqrt(variances[0] + variances[1])
  assert (jnp.abs(means[0] - means[1]) < 4 * error).all()


@pytest.mark.parametrize("kind", rivals.KINDS)
def test_a_row_for_each_kind_of_work(kind):
  row = benchmark.compare(kind, CASE, machine.Limits(1e12, 1e12), repeats=3)
  assert row["kind"] == kind
  assert row["batch_size"] == 64
  for name in ("textbook_ms", "ours_ms", "times_faster", "limit_ms"):
    assert row[name] > 0
  assert row["times_limit"] == pytest.approx(row["ours_ms"] / row["limit_ms"])


def test_growth_is_a_power_of_T():
  rows = [
    {
      "kind": "training step",
      "S": S,
      "T": T,
      "textbook_ms": 1.0,
      "ours_ms": 0.1 * T**power if T > 20 else 100.0,
      "limit_ms": 1.0,
    }
    for S, power in ((3, 1.5), (10, 2.0))
    for T in (20, 64, 256, 512)
  ]
  powers = timings.growth(rows)
  assert powers["power of T at S =  3"] == pytest.approx(1.5)
  assert powers["power of T at S = 10"] == pytest.approx(2.0)


def test_table_and_changes_of_what_was_kept():
  """As read from a file, whose names are sorted."""
  row = {
    "kind": "gradient",
    **CASE._asdict(),
    **{
      name: value
      for value, name in enumerate(
        ("textbook_ms", "ours_ms", "times_faster", "limit_ms"), start=10
      )
    },
    "times_limit": 14.0,
    "MiB": 15.0,
  }
  result = {
    "device": "2 x cpu",
    "limits": {"operations": 2e11, "bytes": 3e10},
    "step": [row],
    "sweep": {"side by side": 700.0},
  }
  kept = json.loads(json.dumps(result, sort_keys=True))
  shown = timings.table(kept)
  assert shown == timings.table(result)
  assert "2 x cpu: 200 GFLOP/s, 30 GB/s" in shown
  assert "side by side                        700" in shown
  found = next(
    line for line in shown.splitlines() if line.startswith("gradient")
  )
  values = ["gradient", "3", "6", "64", "2,1", *map(str, range(10, 16))]
  assert found.split() == values
  faster = {**kept, "step": [{**kept["step"][0], "times_faster": 18}]}
  assert timings.changes(kept, faster).splitlines()[1].split() == [
    *values[:5],
    "1.50",
    "times",
  ]


def test_side_by_side_and_one_after_another():
  config = many_graphs.get_config("rates")
  config.graph.T, config.prior.S, config.train.batch_size = 5, 2, 8
  found = benchmark.side_by_side(3, config, num_runs=3)
  assert min(found.values()) > 0


def test_time_to_all_edges():
  config = single_parent.get_config("chain")
  config.graph.T, config.prior.S, config.train.batch_size = 4, 3, 64
  config.train.eval_every = 32
  made = rivals.from_library(rivals.Case(3, 4, 64))
  assert rivals.seconds_to_all_edges(made, config) > 0
  config.train.steps = 32
  config.train.learning_rate = 0.0
  with pytest.raises(ValueError, match="do not find every edge"):
    rivals.seconds_to_all_edges(made, config)


def test_the_table_in_docs_is_that_of_the_numbers_beside_it():
  folder = pathlib.Path(__file__).parents[1] / "docs" / "benchmark"
  result = json.loads((folder / "result.json").read_text())
  assert (folder / "table.txt").read_text() == timings.table(result)
  assert result["growth"] == pytest.approx(timings.growth(result["sizes"]))
  assert set(benchmark.PARTS) <= set(result)
