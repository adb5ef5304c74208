import re
import sys

import jax

from icl_causal.config import record
from icl_causal.runs import environment


def test_environment_has_versions_devices_and_revision():
  made = environment.environment()
  assert made["icl_causal"] == environment.version()
  assert made["format"] == environment.FORMAT
  assert made["versions"]["jax"] == jax.__version__
  assert set(made["versions"]) >= {"jaxlib", "flax", "optax", "numpy"}
  assert made["backend"] == jax.default_backend()
  assert len(made["devices"]) == jax.device_count()
  assert made["processes"] == 1
  assert made["command"] == sys.argv
  assert made["git_revision"] is None or re.fullmatch(
    r"[0-9a-f]{40}\+?", made["git_revision"]
  )
  record.canonical(made)


def test_without_git_there_is_no_revision(monkeypatch):
  monkeypatch.setenv("PATH", "")
  assert environment.environment()["git_revision"] is None
