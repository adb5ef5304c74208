"""Numerical checks of the theory (`experiments/theory/`).

    python -m experiments.theory --config=configs/theory.py:CHECK

A check is a module of experiments/theory/. Its docstring has what it compares
and the time on two cores.
"""

from ml_collections import ConfigDict

from configs import beyond
from icl_causal.config import fields

_DEFAULTS = {
  "information": {
    "num_forests": 10_000,
    "T": 20,
    "S": (3, 4, 5, 6, 7, 8, 9, 10),
    "alpha": 0.1,
    "root_probability": 0.5,
    "num_kernels": 8,
    "tolerance": 1e-9,
  },
  "estimates": {
    "T": 20,
    "S": 3,
    "root_probability": 0.3,
    # (alpha, gamma)
    "priors": ((0.1, 0.0), (1.0, 0.0), (1.0, 0.1)),
    "num_kernels": 64,
    "num_sequences": 2**14,
  },
  "gradient": {
    "T": (16, 32, 64, 128, 256),
    # (S, alpha, epsilon)
    "cases": (
      (10, 0.1, 0.1),
      (10, 0.1, 1e-3),
      (3, 1.0, 0.1),
      (3, 0.1, 0.1),
    ),
    "beta0": 1e-3,
    "root_probability": 0.5,
    "num_prompts": 2**14,
    "batch_size": 256,
    "num_kernels": 128,
  },
  "key_lemma": {
    "T": 20,
    # (S, alpha, gamma, stay)
    "cases": (
      (3, 0.1, 0.0, 0.0),
      (10, 0.1, 0.0, 0.0),
      (3, 1.0, 0.3, 0.0),
      (10, 1.0, 0.3, 0.0),
      (3, 0.1, 0.0, 0.5),
      (10, 0.1, 0.0, 0.5),
    ),
    "beta0": 0.1,
    "epsilon": 0.05,
    "root_probability": 0.5,
    "num_graphs": 64,
    "num_batches": 32,
    "batch_size": 512,
    "num_kernels": 4096,
  },
  "assumptions": {
    # (S, alpha, gamma)
    "cases": (
      (3, 1.0, 0.3),
      (3, 0.1, 0.3),
      (3, 1.0, 0.1),
      (10, 1.0, 0.3),
      (10, 0.1, 0.3),
    ),
    "num_kernels": 2**14,
  },
  "roots": {
    "T": (20, 40, 80, 160),
    "batch_size": (512, 8192),
    # (alpha, gamma)
    "priors": ((0.1, 0.0), (1.0, 0.1)),
    "num_graphs": 16,
    "S": 3,
  },
  "pooled": {
    "T": 20,
    "S": 3,
    "alpha": 0.1,
    "epsilon": 0.1,
    "root_probability": 0.5,
    "num_graphs": 5,
    "num_sequences": (256, 1024, 4096, 16384),
    "num_permutations": 50,
    "pc_sequences": 1024,
    "pc_alpha": 0.01,
  },
  "theorems": {
    "T": (16, 32, 64, 128, 256),
    "S": 3,
    "alpha": 1.0,
    "gamma": 0.3,
    "beta0": 0.1,
    # Powers of T of the rate and of the number of steps of stage 1; the rate
    # and the number of steps below are for the least T.
    "schedules": ((2.0, 0.0), (1.0, 1.0), (1.0, 0.0)),
    "learning_rate": 12800.0,
    "first_steps": 16,
    "second_learning_rate": 30.0,
    "second_steps": 128,
    "batch_size": 512,
    "converged": 0.9,
    "num_runs": 8,
    "test_size": 4096,
  },
  "posterior": {
    "T": 20,
    "alpha": 0.1,
    "root_probability": 0.5,
    # (S, keys, prompts of a key, samples)
    "cases": ((2, 20, 16, 128), (3, 4, 2, 512), (10, 2, 1, 512)),
    "reference_samples": 2**20,
  },
  "second_layer": {
    "experiments": ("chain", "half", "bigram", "three"),
    "num_prompts": 2**15,
    "steps": 512,
    "learning_rate": 0.1,
  },
  "missed_edges": {
    # (experiment, changes), and a change is (child, slot, copied)
    "cases": (
      ("half", ((16, 1, 7),)),
      ("half", ((16, 1, 0),)),
      ("bigram", ((31, 0, 30),)),
      ("bigram", ((31, 0, 30), (31, 1, 31))),
      ("bigram", ((31, 0, 30), (31, 1, 0))),
    ),
    "num_prompts": 2**15,
    "steps": 512,
    "learning_rate": 0.1,
  },
  "forest_gap": {
    "num_graphs": 10,
    "first_graph": 0,
    "num_prompts": 2**12,
    "posterior_samples": 256,
    "steps": 2**11,
  },
  **beyond.DEFAULTS,
}

CHECKS = tuple(_DEFAULTS)


def get_config(check: str = "") -> ConfigDict:
  """The config of `CHECK`."""
  if check not in _DEFAULTS:
    raise fields.ConfigError(f"check {check!r} must be one of {CHECKS}")
  return ConfigDict({"check": check, "seed": 0, **_DEFAULTS[check]})
