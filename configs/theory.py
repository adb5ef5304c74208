"""Checks of the theory by number (`experiments/theory.py`).

    python -m experiments.theory --config=configs/theory.py:CHECK

CHECK on two cores:

information: of random forests, exact Shannon and chi-squared information given
the kernel. The parent is the top entry of every row, and no pair has more
information than an edge on its path. Three minutes.

estimates: information estimated from sequences of one kernel, with and without
correction for bias, against the exact one, over kernels of several priors.
One minute.

gradient: the gradient of the reduced model at the start against its closed
form, for growing T. Five minutes.

roots: Algorithm 1 on random forests; roots that pick up a false parent, for
growing T and for 16 times the batch. Nine minutes.

pooled: edges found from sequences with a kernel each, from pooled information
and from conditional scores, and from sequences of one kernel; by Chow and Liu's
tree and, where causal-learn is installed, by the PC algorithm, which takes half
of the ten minutes.

theorems: attention on the parent, excess loss and supremum error after
Algorithm 1, for growing T, on a prior with a floor and on kernels off it.
Seven minutes.

posterior: the exact posterior (bayes.exact_posterior) against integration over
both rows for two states, and against plain importance sampling of a million
kernels for more. The mean over 64 draws of it, in standard errors of the
difference. Ten minutes.

second_layer: the least excess over the edge posterior that layer 2 can have
where layer 1 is the graph, with and without a place to attend to that says
nothing. Two minutes.
"""

from ml_collections import ConfigDict

CHECKS = (
  "information",
  "estimates",
  "gradient",
  "roots",
  "pooled",
  "theorems",
  "posterior",
  "second_layer",
)


def get_config(check: str = "") -> ConfigDict:
  """The config of `CHECK`."""
  if check not in CHECKS:
    raise ValueError(f"check {check!r} must be one of {CHECKS}")
  config = ConfigDict({"check": check, "seed": 0})
  config.update(
    {
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
        "matching": 1e-3,
        "root_probability": 0.5,
        "num_prompts": 2**14,
        "batch_size": 256,
        "num_kernels": 128,
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
        "matching": 0.1,
        "steps": 192,
        "first_steps": 64,
        "batch_size": 512,
        "learning_rate": 12.5,  # times T^2
        "second_learning_rate": 30.0,
        "num_runs": 3,
        "test_size": 4096,
      },
      "posterior": {
        "T": 20,
        "alpha": 0.1,
        "root_probability": 0.5,
        # (S, prompts, samples)
        "cases": ((2, 32, 256), (3, 8, 512), (10, 2, 512)),
        "reference_samples": 2**20,
      },
      "second_layer": {
        "experiments": ("chain", "half", "bigram", "three"),
        "num_prompts": 2**15,
        "steps": 512,
        "learning_rate": 0.1,
      },
      "roots": {
        "T": (20, 40, 80, 160),
        "batch_size": (512, 8192),
        # (alpha, gamma)
        "priors": ((0.1, 0.0), (1.0, 0.1)),
        "num_graphs": 16,
        "S": 3,
      },
    }[check]
  )
  return config
