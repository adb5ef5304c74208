"""How every command starts, and how it ends when it can't go on."""

from collections.abc import Callable, Sequence
import sys
from typing import NoReturn

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


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  # A config file may raise anything; ml_collections raises AttributeError for
  # a key that the config does not have.
  except (flags.Error, AttributeError, OSError, TypeError, ValueError) as error:
    _stop(error, 2)


def _stop(error: Exception, code: int) -> NoReturn:
  print("error:", " ".join(str(error).split()), file=sys.stderr)
  sys.exit(code)
