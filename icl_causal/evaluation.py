"""The evaluation of a model on a test set, as a pure function."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
from jax import numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec

from icl_causal import metrics


class Evaluation(NamedTuple):
  """Results on a test set of N prompts.

  Attributes:
    loss_N: the loss of each prompt, in nats; NaN if it is not evaluated.
    attention: each attention map in the model's `out`, averaged over prompts.
    first: of the first P prompts, each attention map, with a leading axis P,
      and `law`, the predicted law P x S at the last position.
    law_NxS: the predicted laws at the last position, NaN if not evaluated; None
      if they are not kept.
  """

  loss_N: jax.Array
  attention: dict[str, jax.Array]
  first: dict[str, jax.Array]
  law_NxS: Any = None


def evaluate(
  params,
  model: nn.Module,
  x_NxT,
  y_NxS,
  batch_size: int,
  epsilon: float = 0.0,
  num_batches=None,
  num_first: int = 0,
  chunk_size: int | None = None,
  mesh: Mesh | None = None,
) -> Evaluation:
  """Evaluates a model on a test set, `batch_size` prompts at a time.

  The loss is that of the law (f + epsilon) / (1 + S epsilon), comparable to
  baselines: the training loss plus the constant log(1 + S epsilon).

  Args:
    params: of the model.
    model: maps tokens to (f_S, out).
    x_NxT: tokens; N is a multiple of `batch_size`.
    y_NxS: targets; or y_NxTxS, over which the loss of a prompt is averaged.
    batch_size: static.
    epsilon: as in training.
    num_batches: only the first batches are evaluated, by default all; may be
      traced.
    num_first: number P of prompts in `first`, at most a device's share of a
      batch; static.
    chunk_size: number of prompts per forward pass, by default all; must divide
      the batch, or a device's share of it.
    mesh: with one axis, over which each batch is split.

  Raises:
    ValueError: if `batch_size` does not divide N, the chunk size does not
      divide a batch, or P is too large.
  """
  chex.assert_rank([x_NxT, y_NxS], [2, {2, 3}])
  if (N := len(x_NxT)) % batch_size:
    raise ValueError(
      f"{N} test prompts do not divide into batches of {batch_size}"
    )
  x_MxBxT, y_MxBxS = (
    a.reshape(-1, batch_size, *a.shape[1:]) for a in (x_NxT, y_NxS)
  )
  num = len(x_MxBxT) if num_batches is None else num_batches
  share = batch_size // (mesh.size if mesh else 1)
  of_share = functools.partial(
    _evaluate_share,
    chunk=functools.partial(_outputs, model, epsilon),
    size=size_of_chunks(chunk_size, share),
    num_first=num_first,
  )
  if mesh is None:
    found = of_share(params, num, x_MxBxT, y_MxBxS)
  else:
    (axis,) = mesh.axis_names
    specs: Any = PartitionSpec(None, axis), PartitionSpec(), PartitionSpec(axis)
    split, full, first = specs
    found = jax.shard_map(
      lambda *arguments: _mean_map(of_share(*arguments), axis),
      mesh=mesh,
      in_specs=(full, full, split, split),
      out_specs=Evaluation(split, full, first, split),
      check_vma=False,
    )(params, num, x_MxBxT, y_MxBxS)
  return found._replace(
    loss_N=found.loss_N.ravel(),
    first=jax.tree.map(lambda a: a[:num_first], found.first),
    law_NxS=found.law_NxS.reshape(N, -1),
  )


def _outputs(model, epsilon, params, x_PxT, y_PxS):
  """The loss of each prompt of a chunk, and its law and maps by name."""

  def one(params, x_T, y_S):
    f_S, out = model.apply({"params": params}, x_T)
    maps = {name: a for name, a in out.items() if name.startswith("attention")}
    law_S = (f_S + epsilon) / (1 + f_S.shape[-1] * epsilon)
    last_S = jnp.atleast_2d(law_S)[-1]
    return metrics.loss(law_S, y_S), {"law": last_S, **maps}

  return jax.vmap(one, (None, 0, 0))(params, x_PxT, y_PxS)


def _evaluate_share(
  params, num, x_MxBxT, y_MxBxS, *, chunk: Callable, size: int, num_first: int
) -> Evaluation:
  """Evaluates the first `num` batches; the losses and laws are M x B."""
  shape = x_MxBxT.shape[:2]
  if num_first > shape[1]:
    raise ValueError(f"num_first is {num_first}, above {shape[1]} prompts")
  x_CxPxT, y_CxPxS = (
    a.reshape(-1, size, *a.shape[2:]) for a in (x_MxBxT, y_MxBxS)
  )
  num_chunks = num * (shape[1] // size)

  def add(c, total: Evaluation) -> Evaluation:
    loss_P, out = chunk(params, x_CxPxT[c], y_CxPxS[c])
    place_P = (c * size + jnp.arange(size))[:num_first]
    return Evaluation(
      total.loss_N.at[c].set(loss_P),
      {
        name: a + out[name].mean(axis=0) / num_chunks
        for name, a in total.attention.items()
      },
      {
        name: a.at[place_P].set(out[name][:num_first], mode="drop")
        for name, a in total.first.items()
      },
      total.law_NxS.at[c].set(out["law"]),
    )

  _, out = jax.eval_shape(chunk, params, x_CxPxT[0], y_CxPxS[0])
  one = {name: a.shape[1:] for name, a in out.items()}
  none = Evaluation(
    jnp.full(x_CxPxT.shape[:2], jnp.nan),
    {name: jnp.zeros(shape) for name, shape in one.items() if name != "law"},
    {name: jnp.zeros((num_first, *shape)) for name, shape in one.items()},
    jnp.full((*x_CxPxT.shape[:2], *one["law"]), jnp.nan),
  )
  found = jax.lax.fori_loop(0, num_chunks, add, none)
  return found._replace(
    loss_N=found.loss_N.reshape(shape),
    law_NxS=found.law_NxS.reshape(*shape, -1),
  )


def _mean_map(found: Evaluation, axis: str) -> Evaluation:
  """The attention averaged over devices."""
  return found._replace(attention=jax.lax.pmean(found.attention, axis))


def size_of_chunks(chunk_size: int | None, share: int) -> int:
  """The chunk size, by default all prompts; it must divide them."""
  size = chunk_size or share
  if share % size:
    raise ValueError(f"{share} prompts do not divide into chunks of {size}")
  return size
