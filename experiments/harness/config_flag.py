"""The flag --config, and the flags --config.GROUP.FIELD of its fields."""

import difflib
import importlib.util
import re
import sys
import traceback
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections import config_flags

from icl_causal.config import changes
from icl_causal.config import record
from icl_causal.config.fields import ConfigError

flags.disclaim_key_flags()  # flags defined here belong to the command


class _Parser(flags.ArgumentParser):
  """Loads the config, with the fields of the parts that other flags choose."""

  def parse(self, path: str):
    """The config of FILE.py[:VARIANT], locked."""
    config, values = load(path), _values()
    changes.choose(config, values)
    _check_names(config, values)
    return config.lock()


def define(help_string: str):
  """Defines --config."""
  config_flags.DEFINE_config_file("config", help_string=help_string)
  flags.FLAGS["config"].parser = _Parser()


def overrides() -> dict[str, Any]:
  """The values of --config.GROUP.FIELD, by GROUP.FIELD."""
  flag: Any = flags.FLAGS["config"]
  return flag.override_values


def file() -> str:
  """The value of --config, FILE.py[:VARIANT]."""
  flag: Any = flags.FLAGS["config"]
  return flag.config_filename


def load(path: str) -> Any:
  """The ConfigDict of FILE.py[:VARIANT].

  Raises:
    ConfigError: with the line of the file, if the file raises an error.
  """
  name, _, variant = path.partition(":")
  try:
    spec = importlib.util.spec_from_file_location("config_file", name)
    if spec is None or spec.loader is None:
      raise ConfigError("must be FILE.py[:VARIANT]")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*([variant] if variant else []))
  except ConfigError:
    raise
  except FileNotFoundError as error:
    raise ConfigError(f"No such file: {error.filename}") from error
  except SyntaxError as error:
    raise ConfigError(
      f"{error.filename}, line {error.lineno}: {error.msg}"
    ) from error
  except Exception as error:  # a config file may raise anything
    raise ConfigError(
      f"{_line(error, name)}{type(error).__name__}: {error}"
    ) from error
  if not isinstance(config, ConfigDict):
    raise ConfigError(
      f"get_config returns a {type(config).__name__}; it must return an "
      "ml_collections.ConfigDict"
    )
  return config


def _values() -> dict[str, str | None]:
  """The values of --config.GROUP.FIELD on the command line, by GROUP.FIELD."""
  words = flags.FLAGS.read_flags_from_files(sys.argv[1:], force_gnu=False)
  values = {}
  for word, following in zip(words, [*words[1:], None], strict=True):
    flag = re.fullmatch(r"--?(no)?config\.([^=]*)(=(.*))?", word, re.DOTALL)
    if flag:
      values[flag[2]] = following if flag[3] is None else flag[4]
  return values


def _check_names(config: ConfigDict, values: dict):
  """Refuses flags of fields that the config does not have."""
  known = record.flatten(config.to_dict())
  for name in values:
    if name not in known:
      close = difflib.get_close_matches(name, known, 1)
      hint = f"; did you mean {close[0]}?" if close else ""
      raise ConfigError(f"the config has no field {name}{hint}")


def _line(error: Exception, name: str) -> str:
  """The last line of the file that led to the error."""
  numbers = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if frame.filename == name
  ]
  return f"line {numbers[-1]}: " if numbers else ""
