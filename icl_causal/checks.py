"""Checks of arguments that may be traced."""

from jax import core


def require(condition, message: str):
  """Raises ValueError if `condition` is false; does not check traced values."""
  if not isinstance(condition, core.Tracer) and not condition:
    raise ValueError(message)
