"""Devices: meshes, shardings, chunk sizes, and many runs as one program.

A single run splits the prompts of a batch over all devices. Many runs split a
leading axis of runs over the devices of a process instead; the devices then do
not communicate.
"""

from collections.abc import Callable, Sequence
import math

from flax import linen as nn
import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

RUNS = PartitionSpec("runs")
# With fewer prompts per core, synchronization costs more than an extra core
# gains.
_MIN_PROMPTS_PER_CORE = 32


def batch_mesh(num_devices: int | None = None) -> Mesh:
  """A mesh of the first devices, by default all, along an axis of prompts."""
  devices = np.array(jax.devices()[:num_devices])
  return Mesh(devices, ("batch",), axis_types=(AxisType.Auto,))


def runs_mesh() -> Mesh:
  """A mesh of all devices of this process, along an axis of runs."""
  devices = np.array(jax.local_devices())
  return Mesh(devices, ("runs",), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Splits the first axis of an array over the devices of a `batch_mesh`."""
  return NamedSharding(mesh, PartitionSpec("batch"))


def replicated(mesh: Mesh) -> NamedSharding:
  """Places a full copy of an array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def num_cores(batch_size: int, others: Sequence[int], available: int) -> int:
  """The largest number of CPU cores that divides the prompts evenly.

  Args:
    batch_size: prompts per batch; with several cores, each gets at least 32.
    others: other numbers of prompts that are split over the cores.
    available: number of available cores.
  """
  return max(
    num
    for num in range(1, available + 1)
    if num == 1
    or (
      not any(count % num for count in (batch_size, *others))
      and batch_size // num >= _MIN_PROMPTS_PER_CORE
    )
  )


def chunk_size(num_prompts: int, model: nn.Module) -> int:
  """The number of prompts per gradient computation on one device.

  On an accelerator this is `num_prompts`. On a CPU it is the largest divisor of
  `num_prompts` for which the `map_entries` of a chunk take at most 256 KiB, so
  that they and the values computed from them stay in the cache of a core. It is
  1 if the entries of one prompt exceed 64 KiB, since XLA is slow at summing
  such maps over prompts.

  Args:
    num_prompts: prompts of a batch on one device.
    model: of `icl_causal.models`, with the attribute `map_entries`.
  """
  if jax.default_backend() != "cpu" or not model.map_entries:
    return num_prompts
  entries = model.map_entries
  most = 2**16 // entries if entries <= 2**14 else 1
  return max(
    n for n in range(1, num_prompts + 1) if num_prompts % n == 0 and n <= most
  )


def stack(runs: Sequence, mesh: Mesh, parallel: int):
  """Stacks pytrees of single runs along a leading axis, over a `runs_mesh`.

  The last run is repeated until every device has the same number of runs and
  can split them into groups of equal size, at most `parallel`. The first
  `len(runs)` entries of a result belong to the runs; the others are copies.
  """
  num_groups = math.ceil(len(runs) / (mesh.size * parallel))
  padding = -len(runs) % (mesh.size * num_groups)
  tree = jax.tree.map(
    lambda *leaves: np.stack([*leaves, *leaves[-1:] * padding]), *runs
  )
  return jax.device_put(tree, NamedSharding(mesh, RUNS))


def over_runs(
  function: Callable, mesh: Mesh, parallel: int, num_shared: int = 0
) -> Callable:
  """Maps a function of one run over stacked runs; the result is not compiled.

  Args:
    function: maps pytrees of one run to a pytree.
    mesh: the mesh passed to `stack`.
    parallel: number of runs that a device processes at once, as in `stack`.
      Groups of this size are processed one after another, so intermediate
      values exist for one group only.
    num_shared: number of arguments, the last ones, that are not stacked: all
      runs share them.
  """

  def on_one_device(shared, stacked):
    num_runs = jax.tree.leaves(stacked)[0].shape[0]
    num_groups = math.ceil(num_runs / parallel)
    if num_groups == 1:
      return jax.vmap(lambda *run: function(*run, *shared))(*stacked)
    return jax.lax.map(
      lambda run: function(*run, *shared),
      stacked,
      batch_size=num_runs // num_groups,
    )

  mapped = jax.shard_map(
    on_one_device,
    mesh=mesh,
    in_specs=(PartitionSpec(), RUNS),
    out_specs=RUNS,
    check_vma=False,
  )

  def over(*arguments):
    num_stacked = len(arguments) - num_shared
    return mapped(arguments[num_stacked:], arguments[:num_stacked])

  return over
