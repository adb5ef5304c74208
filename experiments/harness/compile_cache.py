"""Compiled programs on disk, for the next time a command starts."""

import os
import pathlib
import re
import sys
import warnings

from absl import flags
import jax

flags.disclaim_key_flags()  # flags defined here belong to the command

# A warning of jax, which leaves the entry where it is.
_DAMAGED = re.compile(
  "Error reading persistent compilation cache entry for '(.*)': "
)


def define():
  """Defines --compile_cache for the calling command."""
  flags.DEFINE_bool(
    "compile_cache",
    True,
    "Keep compiled programs for the next time, in JAX_COMPILATION_CACHE_DIR or "
    "else in the user's cache folder.",
  )


def keep():
  """Makes jax keep compiled programs on disk.

  In the directory of jax's own variable, by default icl_causal/jax in the
  user's cache folder, $XDG_CACHE_HOME or ~/.cache. A damaged entry is deleted,
  so jax writes it anew.
  """
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = pathlib.Path(caches).expanduser() / "icl_causal" / "jax"
    jax.config.update("jax_compilation_cache_dir", str(folder))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
  show = warnings.showwarning

  def show_or_delete(message, category, filename, lineno, file=None, line=None):
    if damaged := _DAMAGED.match(str(message)):
      delete(damaged[1])
    else:
      show(message, category, filename, lineno, file, line)

  warnings.showwarning = show_or_delete


def delete(name: str):
  """Deletes the entries of the programs with a name."""
  folder = pathlib.Path(jax.config.values["jax_compilation_cache_dir"])
  for path in folder.iterdir():
    if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]+-cache", path.name):
      path.unlink(missing_ok=True)
  print(
    f"{folder}: deleted a damaged compiled program, {name}", file=sys.stderr
  )
