"""What a field of a config may hold, and the message where it holds else."""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, NamedTuple

from experiments.cli import Refused


class Field(NamedTuple):
  """The values that a field may take.

  Attributes:
    type: of the value; an int will do for a float.
    holds: whether a value of that type is allowed.
    allowed: the same in words.
  """

  type: type
  holds: Callable[[Any], bool]
  allowed: str


def one_of(names) -> Field:
  """One of some names."""
  return Field(str, lambda v: v in names, "one of " + ", ".join(names))


def at_least(low: int) -> Field:
  """An integer with a lower bound."""
  return Field(int, lambda v: v >= low, f"an integer of at least {low}")


def between(low: float, high: float) -> Field:
  """A number with bounds."""
  return Field(
    float, lambda v: low <= v <= high, f"a number from {low:g} to {high:g}"
  )


def many(entry: Field | Sequence[Field]) -> Field:
  """A tuple of one value or more, or of tuples with a value for each field."""
  if isinstance(entry, Field):
    inner = entry
  else:
    inner = Field(
      tuple,
      lambda v: len(v) == len(entry) and all(map(_holds, entry, v)),
      f"({', '.join(field.allowed for field in entry)})",
    )
  return Field(
    tuple,
    lambda v: len(v) > 0 and all(_holds(inner, value) for value in v),
    f"a tuple of one or more, each {inner.allowed}",
  )


SEED = Field(int, lambda v: 0 <= v < 2**32, "an integer from 0 to 2**32 - 1")
POSITIVE = Field(float, lambda v: 0 < v < math.inf, "a positive number")
ALPHA = between(1e-6, 1e6)  # beyond these float32 does not hold the draws
NOT_NEGATIVE = Field(float, lambda v: 0 <= v < math.inf, "a number >= 0")
FINITE = Field(float, math.isfinite, "a finite number")
SHARE = Field(float, lambda v: 0 <= v <= 1, "a number from 0 to 1")
BELOW_ONE = Field(float, lambda v: 0 <= v < 1, "a number from 0 to below 1")
FLAG = Field(bool, lambda v: True, "True or False")


def check(flat: Mapping, name: str, field: Field):
  """Raises Refused where the field is missing or holds what it may not."""
  if name not in flat:
    raise Refused(f"the config has no {name}")
  if not _holds(field, flat[name]):
    raise Refused(f"{name} = {flat[name]!r}: must be {field.allowed}")


def check_known(flat: Mapping, read: Sequence[str]):
  """Raises Refused for a field that nothing reads."""
  for name in flat:
    if name not in read:
      raise Refused(f"{name} is no field that this experiment reads")


def check_multiple(flat: Mapping, total: str, part: str):
  """Raises Refused unless the one field is a multiple of the other."""
  if flat[total] % flat[part]:
    raise Refused(
      f"{total} = {flat[total]}: must be a multiple of {part} = {flat[part]}"
    )


def _holds(field: Field, value) -> bool:
  return _is_a(value, field.type) and field.holds(value)


def _is_a(value, expected: type) -> bool:
  if isinstance(value, bool) or expected is bool:
    return isinstance(value, bool) and expected is bool
  return isinstance(value, (int, float) if expected is float else expected)
