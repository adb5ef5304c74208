"""In-context learning of causal structure, in JAX."""

import importlib.metadata

try:
  __version__ = importlib.metadata.version("icl-causal")
except importlib.metadata.PackageNotFoundError:  # a folder on sys.path
  __version__ = "unknown"
