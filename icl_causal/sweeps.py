"""Many runs as one program: the run axis mapped, and split over devices.

The functions of a run are written for one run. Here they are mapped over a
leading axis R of runs, which is laid out over the devices. The devices never
speak with each other: each has a share of the runs to itself.
"""

from collections.abc import Callable, Mapping, Sequence
import itertools
import math
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

RUNS = PartitionSpec("runs")


def grid(axes: Mapping[str, Sequence]) -> list[dict[str, Any]]:
  """Every combination of one value from each axis, the last axis fastest."""
  return [
    dict(zip(axes, values, strict=True))
    for values in itertools.product(*axes.values())
  ]


def draws(
  ranges: Mapping[str, tuple[str, float, float]], num: int, seed: int
) -> list[dict[str, float]]:
  """`num` independent points of a random search.

  The first n of them do not depend on `num`.

  Args:
    ranges: by name, ("uniform", low, high), or ("log", low, high) for a value
      whose logarithm is uniform.
    num: of points.
    seed: of the generator.
  """
  generator = np.random.default_rng(seed)

  def draw(law, low, high):
    if law == "log":
      return math.exp(generator.uniform(math.log(low), math.log(high)))
    return generator.uniform(low, high)

  return [
    {name: draw(*limits) for name, limits in ranges.items()} for _ in range(num)
  ]


def local_mesh() -> Mesh:
  """All devices of this process, along an axis of runs."""
  devices = jax.local_devices()
  return Mesh(np.array(devices), ("runs",), axis_types=(AxisType.Auto,))


def stack(runs: Sequence, mesh: Mesh, parallel: int):
  """Pytrees of single runs along a leading axis, over the devices of a mesh.

  The last run is repeated until all devices have equally many, in groups of
  equal size of at most `parallel`; whoever reads what comes of them takes the
  first `len(runs)` entries.
  """
  num_groups = math.ceil(len(runs) / (mesh.size * parallel))
  padding = -len(runs) % (mesh.size * num_groups)
  tree = jax.tree.map(
    lambda *leaves: np.stack([*leaves, *leaves[-1:] * padding]), *runs
  )
  return jax.device_put(tree, NamedSharding(mesh, RUNS))


def over_runs(function: Callable, mesh: Mesh, parallel: int) -> Callable:
  """`function` of single runs as a function of stacked ones, not compiled yet.

  Args:
    function: pytrees of one run to a pytree.
    mesh: that the runs were stacked for.
    parallel: how many runs a device works on at once. It takes its share group
      by group, so that what a run needs between input and output is there for
      one group only. The same as in `stack`.
  """

  def on_one_device(*stacked):
    share = jax.tree.leaves(stacked)[0].shape[0]
    num_groups = math.ceil(share / parallel)
    if num_groups == 1:
      return jax.vmap(function)(*stacked)
    return jax.lax.map(
      lambda run: function(*run), stacked, batch_size=share // num_groups
    )

  return jax.shard_map(
    on_one_device, mesh=mesh, in_specs=RUNS, out_specs=RUNS, check_vma=False
  )
