"""Settings that every test runs under, made before jax is imported."""

import gc
import importlib.metadata
import os
import pathlib

_ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_ROOT / ".cache/jax"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Compiling takes most of the time of the tests. It takes half of it without
# LLVM's optimisations, and a third of that without XLA's newer emitter of CPU
# loops (a flag that later versions may no longer know); results do not depend
# on either.
_FLAGS = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
  _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))

# As commands set it (experiments/__init__.py).
gc.set_threshold(100_000, 10, 10)

import hypothesis
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling counts for no deadline, and the database of failures stays away.
_ALWAYS = {"deadline": None, "database": None, "derandomize": True}
hypothesis.settings.register_profile("some", max_examples=200, **_ALWAYS)
hypothesis.settings.register_profile("many", max_examples=10000, **_ALWAYS)
hypothesis.settings.load_profile("some")
