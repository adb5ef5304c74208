"""How every command starts, and how it ends when it can't go on."""

from collections.abc import Callable, Sequence
import sys
from typing import Any, NoReturn

from absl import app
from absl import flags
from absl import logging
import jax

from icl_causal import runs


class Refused(Exception):
  """Input that is refused, with what was wrong and what would be right."""


class NonFinite(Exception):
  """A loss that is not finite, with the step it was seen at."""


def run(main: Callable[[], None]):
  """Parses the flags and runs `main`.

  What is refused ends in one line on stderr and exit code 2, a loss that is not
  finite in one line and exit code 3; anything else is a bug, with a traceback.
  """

  def guarded(argv: Sequence[str]):
    # Matrix products in full float32 on every device: losses are compared to
    # the third decimal, and the default of a TPU has eight bits.
    jax.config.update("jax_default_matmul_precision", "float32")
    try:
      if argv[1:]:
        raise Refused(f"unknown argument {argv[1]!r}: options start with --")
      main()
    except (Refused, runs.RunError) as error:
      _stop(error, 2)
    except NonFinite as error:
      _stop(error, 3)

  logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
  app.run(guarded, flags_parser=_parse)


def config(flag: flags.FlagHolder) -> Any:
  """The ConfigDict of a config-file flag."""
  if flag.value is None:
    raise Refused("--config is missing: configs/NAME.py:VARIANT[,TIER]")
  try:
    flag.value.to_dict()  # a file that can't be read is told of only now
  except OSError as error:
    raise Refused(f"--config: {error}") from error
  return flag.value


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except AttributeError as error:  # what ml_collections raises for a KeyError
    cause = error.args[0]
    name = cause.args[0] if isinstance(cause, KeyError) else cause
    _stop(f"--config has no such field: {name}", 2)
  except Exception as error:  # a config file may raise anything
    _stop(str(error).strip().splitlines()[-1], 2)


def _stop(message: Any, code: int) -> NoReturn:
  print("error:", " ".join(str(message).split()), file=sys.stderr)
  sys.exit(code)
