"""In-context learning of causal structure, in JAX."""

import importlib.metadata
import os
import pathlib

try:
  __version__ = importlib.metadata.version("icl-causal")
except importlib.metadata.PackageNotFoundError:  # a folder on sys.path
  __version__ = "unknown"


def enable_compile_cache(folder: str | pathlib.Path | None = None):
  """Keeps compiled programs on disk, for the next process that needs them.

  Call it before the first computation. It keeps programs that take more than .2
  seconds to compile, unless JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS is set.

  Args:
    folder: by default that of JAX_COMPILATION_CACHE_DIR, or else icl_causal/jax
      in the user's cache folder, $XDG_CACHE_HOME or ~/.cache.
  """
  import jax  # not above: a program may set jax's variables first

  if folder is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = pathlib.Path(caches) / "icl_causal" / "jax"
  if folder is not None:
    path = pathlib.Path(folder).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(path))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
