"""The roofline: a lower bound on the time of a computation on this machine.

A computation takes at least its operations divided by the machine's operations
per second, and at least its bytes divided by the machine's bytes per second.
Operations and bytes are counted in the traced program; the rates of the machine
are measured on matrix products and on sums of long arrays. The bound is loose:
programs of small products, random numbers and exponentials stay well above it.
"""

import math
import time
from typing import NamedTuple

import jax
from jax import numpy as jnp
from jax.extend import core
import numpy as np

# Threefry mixes two words in 20 rounds of five operations.
_OPERATIONS_PER_WORD = 50
# Vector units evaluate these functions by a polynomial.
_OPERATIONS_PER_FUNCTION = 10
_FUNCTIONS = {"exp", "exp2", "log", "log1p", "expm1", "erf_inv", "tanh", "pow"}
_FUNCTIONS |= {"sqrt", "rsqrt", "div", "logistic", "sin", "cos"}
# Primitives that move numbers, and primitives that cost nothing.
_MOVES = {"gather", "dynamic_slice", "dynamic_update_slice", "concatenate"}
_MOVES |= {"scatter", "scatter-add", "scatter_add", "pad", "sort"}
_FREE = {"broadcast_in_dim", "reshape", "squeeze", "slice", "transpose", "iota"}
_FREE |= {"convert_element_type", "copy", "stop_gradient", "split", "rev"}
_FREE |= {"random_wrap", "random_unwrap", "sharding_constraint", "pvary"}


class Work(NamedTuple):
  """The operations and the memory traffic of a computation.

  Attributes:
    operations: additions, multiplications and the like.
    bytes: read and written by matrix products, sums and moves. Elementwise
      operations count none; they are assumed to be fused.
  """

  operations: float
  bytes: float


def count_work(function, *arguments) -> Work:
  """The work of `function(*arguments)`, counted in its trace.

  The body of a loop of unknown length counts once, since rejection sampling
  nearly always needs one round.
  """
  return Work(*_count(jax.make_jaxpr(function)(*arguments).jaxpr))


class Limits(NamedTuple):
  """The rates of a machine, each the best of several measurements.

  Attributes:
    operations: per second, in products of large float32 matrices.
    bytes: read and written per second, in sums of arrays of 16 MiB.
  """

  operations: float
  bytes: float


def measure_limits() -> Limits:
  """Measures jax's default device, in a second or two."""
  n, length, times = 2048, 2**22, 8
  x_NxN = jnp.ones((n, n))
  x_L = jnp.ones(length)
  multiply = jax.jit(lambda x: x @ x)
  add = jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, x: x + 1.0, x))
  return Limits(
    2 * n**3 / _best_seconds(multiply, x_NxN),
    2 * times * x_L.nbytes / _best_seconds(add, x_L),
  )


def min_seconds(work: Work, limits: Limits) -> float:
  """The lower bound on the seconds of this work on this machine."""
  return max(work.operations / limits.operations, work.bytes / limits.bytes)


def _best_seconds(function, argument) -> float:
  jax.block_until_ready(function(argument))
  seconds = []
  for _ in range(10):
    started = time.perf_counter()
    jax.block_until_ready(function(argument))
    seconds.append(time.perf_counter() - started)
  return min(seconds)


def _count(jaxpr) -> np.ndarray:
  """(operations, bytes) of a jaxpr."""
  return sum(map(_count_equation, jaxpr.eqns), np.zeros(2))


def _count_equation(equation) -> np.ndarray:
  name, parameters = equation.primitive.name, equation.params
  inner = [_count(jaxpr) for jaxpr in core.jaxprs_in_params(parameters)]
  if inner:
    total = sum(inner) if name in ("while", "pjit", "jit") else inner[0]
    times = parameters["mesh"].size if name == "shard_map" else 1
    return total * times * parameters.get("length", 1)
  size = sum(math.prod(v.aval.shape) for v in equation.outvars)
  moved = sum(map(_bytes, [*equation.invars, *equation.outvars]))
  if name in _FREE:
    return np.zeros(2)
  if name == "random_bits":
    return np.array([_OPERATIONS_PER_WORD * size, 0])
  if name in ("random_split", "random_fold_in", "random_seed"):
    return np.array([2 * _OPERATIONS_PER_WORD * size, 0])
  if name == "dot_general":
    (contracted, _), _ = parameters["dimension_numbers"]
    depth = math.prod(equation.invars[0].aval.shape[d] for d in contracted)
    return np.array([2 * size * depth, moved])
  if name in _MOVES:
    written = sum(map(_bytes, equation.outvars))
    if name == "dynamic_update_slice":  # in place
      written = _bytes(equation.invars[1])
    if name.startswith("scatter"):
      written = _bytes(equation.invars[2])
    return np.array([0, 2 * written])
  if name.startswith(("reduce_", "arg", "cum")):
    read = math.prod(equation.invars[0].aval.shape)
    return np.array([read, moved])
  factor = _OPERATIONS_PER_FUNCTION if name in _FUNCTIONS else 1
  return np.array([factor * size, 0])


def _bytes(variable) -> int:
  aval = variable.aval
  itemsize = getattr(aval.dtype, "itemsize", 8)  # a key has two words
  return math.prod(aval.shape) * itemsize
