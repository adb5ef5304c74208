"""How every command starts, and how it ends on an error."""

from collections.abc import Callable, Sequence
import os
import pathlib
import sys
from typing import Any, NoReturn

from absl import app
from absl import flags
from absl import logging
import jax

from experiments.harness import compile_cache
from experiments.harness import config_flag
from experiments.harness import signals
from experiments.harness import smoke
from icl_causal import runs
from icl_causal.config import changes
from icl_causal.config import fields

flags.disclaim_key_flags()  # flags defined here belong to the command


class Refused(Exception):
  """A command line that is refused: what is wrong, and what would be right."""


class NonFinite(Exception):
  """A number that is not finite, with its step."""


def run(main: Callable[[], None]):
  """Parses the flags and runs `main`.

  Refused input, and a file that can't be read or written, ends in one line on
  stderr and exit code 2. A number that is not finite ends in one line and exit
  code 3. A run that stops on a signal, or since another of its processes has
  ended, prints the command that resumes it, and has exit code 4. Anything else
  is a bug and prints a traceback.
  """

  def guarded(argv: Sequence[str]):
    configure()
    if flags.FLAGS.compile_cache:
      compile_cache.keep()
    try:
      if argv[1:]:
        raise Refused(f"unknown argument {argv[1]!r}: options start with --")
      main()
    except (Refused, fields.ConfigError, runs.RunError) as error:
      _stop(error, 2)
    except NonFinite as error:
      _stop(error, 3)
    except OSError as error:
      _stop(f"{error.filename or 'the system'}: {error.strerror or error}", 2)
    except signals.Stopped as stopped:
      print(f"{stopped}; resume with: {signals.command_again()}")
      sys.exit(4)
    except Exception as error:
      if platforms := _missing_platforms():
        _stop(f"JAX_PLATFORMS={platforms}: jax has no such devices here", 2)
      # Gloo connects the processes on CPUs.
      is_of_jax = isinstance(error, jax.errors.JaxRuntimeError)
      if jax.process_count() > 1 and (is_of_jax or "Gloo" in str(error)):
        _end_with_the_others(error)
      raise

  compile_cache.define()
  logging.set_verbosity(logging.FATAL)
  app.run(guarded, flags_parser=_parse)


def configure():
  """Settings of jax for every command."""
  # Matrix products in full float32 on every device: losses are compared to
  # the third decimal, and the default of a TPU has eight bits.
  jax.config.update("jax_default_matmul_precision", "float32")


def cores() -> int:
  """The processor cores that this process may run on."""
  if hasattr(os, "sched_getaffinity"):  # not on every system
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def use_cores(num: int):
  """Makes jax use `num` cores of the processor as separate devices.

  The arrays of this project are small, and XLA splits few of its operations
  over cores. Splitting the prompts or the runs is faster. An environment that
  sets the number of devices takes precedence, and accelerators stay as they
  are.
  """
  is_set = "xla_force_host_platform_device_count" in os.environ.get(
    "XLA_FLAGS", ""
  )
  if not is_set and "JAX_NUM_CPU_DEVICES" not in os.environ:
    jax.config.update("jax_num_cpu_devices", num)


def define_run_flags():
  """Defines --config, --workdir, --overwrite and --smoke for a command.

  Flags are defined when a command starts, not when its module is imported, so
  that one process can import several.
  """
  config_flag.define(
    "configs/NAME.py:VARIANT[,TIER]. --config.GROUP.FIELD=VALUE sets a field; "
    "the file lists the fields, and their ranges are in "
    "icl_causal/config/parts.py."
  )
  flags.DEFINE_string(
    "workdir", None, "Run directory; by default one under runs/."
  )
  flags.DEFINE_bool(
    "overwrite", False, "Delete the contents of the run directory first."
  )
  smoke.define()


def define_read_flags():
  """Defines --workdir and --config for a command that reads a run."""
  flags.DEFINE_string("workdir", None, "Directory of a run.")
  config_flag.define("A config file that registers parts of your own.")


def config() -> Any:
  """The ConfigDict of --config."""
  value = flags.FLAGS.config
  if value is None:
    raise Refused("--config is missing: configs/NAME.py:VARIANT[,TIER]")
  if smoke.is_on():
    smoke.shrink(value)
  changes.fit_interval(value, config_flag.overrides())
  return value


def workdir(default: str) -> pathlib.Path:
  """The run directory, runs/DEFAULT unless --workdir names another."""
  prefix = "smoke-" if smoke.is_on() else ""
  named = flags.FLAGS.workdir or f"runs/{prefix}{default}"
  return pathlib.Path(named).expanduser()


def output(flag: str, default: str, workdir: pathlib.Path) -> pathlib.Path:
  """The directory that a flag names, or else `default`.

  A smoke run writes to its run directory instead of `default`.
  """
  if named := flags.FLAGS[flag].value:
    return pathlib.Path(named).expanduser()
  return workdir / flag if smoke.is_on() else pathlib.Path(default)


def existing_workdir() -> pathlib.Path:
  """The run directory of --workdir, for commands that read a run."""
  if flags.FLAGS.workdir is None:
    raise Refused("--workdir is missing: the directory of a run")
  return pathlib.Path(flags.FLAGS.workdir).expanduser()


def _end_with_the_others(error: Exception) -> NoReturn:
  """Ends a process whose call failed, most likely since another one ended.

  At once: at a normal end, jax waits 100 s for the others, and then aborts.
  """
  reason = str(error).partition("\n")[0]
  print(
    f"error: a call of all processes failed, most likely since one has ended "
    f"({reason}); resume with: "
    f"{signals.command_again()}",
    file=sys.stderr,
  )
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(4)


def _missing_platforms() -> str | None:
  """The platforms that the environment names, if jax finds none of them."""
  try:
    jax.devices()
  except (RuntimeError, AssertionError):  # depends on the platform
    return os.environ.get("JAX_PLATFORMS")
  return None


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _stop(error, 2)


def _stop(message: Any, code: int) -> NoReturn:
  print("error:", " ".join(str(message).split()), file=sys.stderr)
  sys.exit(code)
