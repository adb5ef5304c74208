"""Types and ranges of config fields, with the message for other values."""

from collections.abc import Callable, Collection, Mapping, Sequence
import math
import types
from typing import Any, NamedTuple

# Maps a config to an error message, or to None if the config is valid.
Need = Callable[[Any], str | None]
_NO_FIELDS: Mapping[str, Any] = types.MappingProxyType({})


class ConfigError(ValueError):
  """A config that is refused: what is wrong, and what would be right."""


class Field(NamedTuple):
  """The values that a field may have.

  Attributes:
    type: of the value; an int counts as a float.
    holds: whether a value of that type is allowed.
    allowed: the same in words.
  """

  type: type
  holds: Callable[[Any], bool]
  allowed: str


class Part(NamedTuple):
  """What a name in a config means.

  Attributes:
    make: builds the object; takes the fields as keyword arguments.
    fields: the type and range of each field, by its name in the group.
    needs: rules between fields; each returns a message if it is violated.
  """

  make: Callable[..., Any]
  fields: Mapping[str, Field] = _NO_FIELDS
  needs: Sequence[Need] = ()


def one_of(names: Collection[str]) -> Field:
  """One of some names."""
  return Field(str, lambda v: v in names, "one of " + ", ".join(names))


def at_least(low: int) -> Field:
  """An integer with a lower bound; jax counts with 32 bits."""
  return Field(
    int,
    lambda v: low <= v < 2**31,
    f"an integer of at least {low}, below 2**31",
  )


def between(low: float, high: float) -> Field:
  """A number with bounds."""
  return Field(
    float, lambda v: low <= v <= high, f"a number from {low:g} to {high:g}"
  )


def tuple_of(entry: Field | Sequence[Field]) -> Field:
  """A tuple of one value or more, or of tuples with a value for each field."""
  if isinstance(entry, Field):
    inner = entry
  else:
    inner = Field(
      tuple,
      lambda v: len(v) == len(entry) and all(map(holds, entry, v)),
      f"({', '.join(field.allowed for field in entry)})",
    )
  return Field(
    tuple,
    lambda v: len(v) > 0 and all(holds(inner, value) for value in v),
    f"a tuple of one or more, each {inner.allowed}",
  )


SEED = Field(int, lambda v: 0 <= v < 2**32, "an integer from 0 to 2**32 - 1")
POSITIVE = Field(float, lambda v: 0 < v < math.inf, "a positive number")
ALPHA = between(1e-6, 1e6)  # float32 cannot represent draws beyond these
NOT_NEGATIVE = Field(float, lambda v: 0 <= v < math.inf, "a number >= 0")
FINITE = Field(float, math.isfinite, "a finite number")
SHARE = Field(float, lambda v: 0 <= v <= 1, "a number from 0 to 1")
BELOW_ONE = Field(float, lambda v: 0 <= v < 1, "a number from 0 to below 1")
FLAG = Field(bool, lambda v: True, "True or False")
TUPLE = Field(tuple, lambda v: True, "a tuple")


def check(flat: Mapping, name: str, field: Field):
  """Raises ConfigError if the field is missing or has a value it may not."""
  if name not in flat:
    raise ConfigError(f"the config has no {name}")
  if not holds(field, flat[name]):
    raise ConfigError(f"{name} = {flat[name]!r}: must be {field.allowed}")


def check_known(flat: Mapping, known: Collection[str]):
  """Raises ConfigError for a field that nothing reads."""
  for name in flat:
    if name not in known:
      raise ConfigError(f"{name} is not a field of this experiment")


def check_set(flat: Mapping, known: Mapping[str, Field]):
  """Raises ConfigError with all fields that have no value."""
  missing = [name for name in known if flat.get(name, name) is None]
  if missing:
    wanted = ", ".join(f"{name} ({known[name].allowed})" for name in missing)
    raise ConfigError(f"these fields have no value and need one: {wanted}")


def check_multiple(flat: Mapping, total: str, part: str):
  """Raises ConfigError unless one field is a multiple of the other."""
  if flat[total] % flat[part]:
    divisor = math.gcd(flat[total], flat[part])
    raise ConfigError(
      f"{total} = {flat[total]}: must be a multiple of {part} = {flat[part]}; "
      f"{part} = {divisor} divides it"
    )


def holds(field: Field, value) -> bool:
  """Whether the field may have the value."""
  return _is_a(value, field.type) and field.holds(value)


def _is_a(value, expected: type) -> bool:
  if isinstance(value, bool) or expected is bool:
    return isinstance(value, bool) and expected is bool
  return isinstance(value, (int, float) if expected is float else expected)
