"""Numerical checks of the theory (`experiments/theory/`).

    python -m experiments.theory --config=configs/theory.py:CHECK

A check is a module of experiments/theory/. Its docstring has what it compares
and the time on two cores.
"""

from ml_collections import ConfigDict

from configs import latent
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
  "times": {
    "T": 20,
    "S": 3,
    "beta0": 0.1,
    "epsilon": 0.1,
    "batch_size": 512,
    "root_probability": 0.5,
    # (alpha, gamma, learning rate)
    "cases": ((0.1, 0.0, 90.0), (1.0, 0.1, 270.0)),
    "forests_steps": 640,
    "num_graphs": 12,
    "num_seeds": 3,
    "num_prompts": 2**16,
    "num_kernels": 2**10,
    "strengths": (1.0, 0.7, 0.5, 0.35),
    "strengths_steps": 1024,
    "lengths": (10, 20, 40, 80, 160),
    # (alpha, gamma, learning rate / T, steps / T)
    "pairs": ((1.0, 0.1, 80.0, 4),),
  },
  "order": {
    "T": 20,
    "alpha": 0.1,
    "start": 0.5,
    "batch_size": 256,
    "root_probability": 0.5,
    "strengths": (1.0, 0.7, 0.5, 0.35),
    "num_graphs": 10,
    "num_prompts": 256,
    # (task, S, optimizer, learning rate, steps, steps between measurements)
    "cases": (
      ("chain", 10, "Adam", 0.02, 256, 2),
      ("chain", 10, "SGD", 1.0, 4096, 32),
      ("forests", 3, "Adam", 0.01, 512, 4),
      ("forests", 3, "SGD", 1.0, 4096, 32),
      ("strengths", 3, "Adam", 0.01, 512, 4),
      ("strengths", 3, "SGD", 1.0, 4096, 32),
    ),
  },
  "repetition": {
    "T": 20,
    "S": 3,
    "alpha": 0.1,
    "root_probability": 0.5,
    "num_graphs": 8,
    "num_prompts": (16, 64, 256, 1024, 4096, 16384),
    "measured_at": (8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    "batch_size": 256,
    "learning_rate": 0.01,
    "start": 0.5,
    "test_size": 1024,
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
  "circuits": {
    "tasks": ("chain", "forest"),
    "seeds": (0, 1, 2),
    "steps": 2**10,
    "measure_every": 8,
    "thresholds": (0.2, 0.1),
    "num_prompts": 2**14,
    "more_prompts": 2**18,
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
  "samples": {
    # (S, alpha, T, graphs)
    "settings": (
      (3, 0.1, 20, 200),
      (3, 1.0, 20, 200),
      (10, 0.1, 20, 200),
      (10, 1.0, 20, 200),
      (3, 0.1, 64, 40),
      (3, 1.0, 64, 40),
      (10, 0.1, 64, 40),
      (10, 1.0, 64, 40),
    ),
    "root_probability": 0.5,
    "epsilon": 0.1,
    # Half powers of two.
    "num_prompts": (
      *(1, 2, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512),
      *(724, 1024, 1448, 2048, 2896, 4096),
    ),
    "num_moments": 4096,
    "num_draws": 512,
    "num_kernels": 256,
    # Of the methods that start anew for each number of prompts.
    "num_runs": 20,
    "ascent_prompts": (8, 16, 32, 64, 128, 256),
    "estimate_prompts": (64, 256, 1024),
    "sequences": 16,
    "pc_sequences": 256,
    "pc_alpha": 0.01,
    # Trained in the first setting alone.
    "trained_prompts": (16, 64, 256, 1024),
    "first_rate": 1e3,
    "first_steps": 128,
    "learning_rate": 0.01,
    "steps": 384,
    "batch_size": 256,
    "test_size": 2048,
  },
  "pairs": {
    "S": 3,
    "T": 20,
    "alpha": 0.1,
    "epsilon": 0.1,
    "num_graphs": 48,
    "num_prompts": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    # A head for each slot, by gradient ascent on the information.
    "attention_graphs": 24,
    "attention_prompts": (8, 16, 32, 64, 128, 256, 512),
    "attention_rate": 1.0,
    "attention_steps": 200,
    # The disentangled transformer, from the targets.
    "staged_graphs": 8,
    "staged_prompts": (128, 512, 2048, 8192, 32768),
    "staged_steps": 2048,
    "staged_start": 0.5,
    "phase_steps": 32,
    "joint_steps": 48,
    "max_step": 0.5,
    "learning_rate": 0.03,
    "b2": 0.99,
    "batch_size": 128,
    "test_size": 1024,
  },
  "latent": {
    "lags": (1, 2, 3),
    "lengths": (32, 128),
    "kernel": latent.KERNEL,
    "fresh_lags": (1, 2),
    # (S, alpha, T)
    "fresh": ((3, 0.1, 32), (3, 0.1, 128), (3, 1.0, 32)),
    "num_examples": 10,
    "length": 5,
    "strengths": (1.0, 2.0, 4.0),
    "mean_strengths": (20.0, 100.0),
    "num_prompts": 2**14,
    "batch_size": 256,
    "num_kernels": 20,
    "kernel_alpha": 0.5,
    "kernel_prompts": 2**11,
    "asked": 0.006,
  },
  "lengths": {
    "T": 32,
    "lengths": (32, 64, 128),
    "alpha": 0.1,
    # (S, reach, learning rate), and a reach of 0 is the absolute model
    "cases": (
      (3, 4, 0.01),
      (3, 32, 0.01),
      (3, 0, 0.03),
      (10, 4, 0.01),
      (10, 32, 0.01),
      (10, 0, 0.03),
    ),
    "steps": 1024,
    "measured_every": 4,
    "batch_size": 64,
    "b2": 0.99,
    "max_norm": 1.0,
    "noise": 0.02,
    "num_seeds": 3,
    "test_size": 2**9,
    "map_prompts": 32,
  },
  "interventions": {
    "graphs": ("forest", "chain"),
    # (S, alpha, kernels of the closed forms of a graph)
    "settings": (
      (3, 0.1, 512),
      (3, 1.0, 64),
      (10, 0.1, 64),
      (10, 1.0, 64),
    ),
    "T": 20,
    "root_probability": 0.5,
    "epsilon": 0.1,
    "shares": (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
    "num_graphs": 200,
    # Half powers of two.
    "num_prompts": (
      *(1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512),
      *(724, 1024),
    ),
  },
}

CHECKS = tuple(_DEFAULTS)


def get_config(check: str = "") -> ConfigDict:
  """The config of `CHECK`."""
  if check not in _DEFAULTS:
    raise fields.ConfigError(f"check {check!r} must be one of {CHECKS}")
  return ConfigDict({"check": check, "seed": 0, **_DEFAULTS[check]})
