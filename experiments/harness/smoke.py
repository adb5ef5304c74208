"""Small versions of configs, with which a command runs whole in a minute.

    python -m experiments.train --config=configs/single_parent.py --smoke

A smoke run shows that a command works, and what it prints and writes. Its
numbers have no meaning.
"""

from typing import Any

from absl import flags

flags.disclaim_key_flags()  # flags defined here belong to the command

# The largest value of each field, wherever it is in a config.
_LARGEST = {
  # Runs.
  "steps": 16,
  "eval_every": 8,
  "phase_steps": 2,
  "joint_steps": 2,
  "batch_size": 64,
  "test_size": 128,
  "posterior_prompts": 16,
  "posterior_samples": 16,
  "samples": 2,
  # Checks of the theory.
  "attention_graphs": 2,
  "attention_steps": 4,
  "first_steps": 4,
  "gradient_size": 64,
  "second_steps": 4,
  "staged_graphs": 2,
  "staged_steps": 16,
  "num_batches": 2,
  "num_blocks": 4,
  "num_draws": 64,
  "num_forests": 4,
  "num_graphs": 2,
  "kernel_prompts": 128,
  "num_kernels": 16,
  "num_moments": 64,
  "num_permutations": 4,
  "num_prompts": 128,
  "more_prompts": 128,
  "num_runs": 2,
  "num_sequences": 256,
  "pc_sequences": 64,
  "reference_samples": 2**12,
}
# Tuples of which two values are kept, and those of the grid of a sweep.
_LISTS = {"S", "T", "batch_size", "graph_seeds", "lengths", "measured_at"}
_LISTS |= {"num_sequences", "seeds", "sizes"}
_LISTS |= {"settings", "num_prompts", "ascent_prompts", "estimate_prompts"}
_LISTS |= {"trained_prompts", "attention_prompts", "staged_prompts"}


def define():
  """Defines --smoke for the calling command."""
  flags.DEFINE_bool(
    "smoke",
    False,
    "Run the whole command at small sizes, in a minute (`verify`: three).",
  )


def is_on() -> bool:
  """Whether --smoke is given."""
  return flags.FLAGS.smoke


def shrink(config: Any):
  """Lowers the sizes in a ConfigDict, in place."""
  with config.unlocked():
    config.update(_smaller(config.to_dict(), "", in_grid=False))


def _smaller(value: Any, name: str, in_grid: bool) -> Any:
  if isinstance(value, dict):
    return {
      field: _smaller(inner, field, in_grid or field == "grid")
      for field, inner in value.items()
    }
  if isinstance(value, tuple):
    kept = value[:2] if in_grid or name in _LISTS else value
    return tuple(
      _smaller(inner, "" if isinstance(inner, tuple) else name, in_grid=False)
      for inner in kept
    )
  if isinstance(value, int) and name in _LARGEST:
    return min(value, _LARGEST[name])
  return value
