"""Compiled programs on disk, for the next time a command starts."""

import pathlib
import re
import sys
import warnings

from absl import flags
import jax

import icl_causal

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

  A damaged entry is deleted, so jax writes it anew.
  """
  icl_causal.enable_compile_cache()
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
