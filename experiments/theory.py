"""Checks what the theory says by number, and prints a table.

    python -m experiments.theory --config=configs/theory.py:gradient

Leaves result.json and a figure under --workdir.
"""

import pathlib
import time

from absl import flags

from experiments import build
from experiments import checks
from experiments import cli
from experiments import fields
from experiments import paper
from experiments import pooled
from experiments import posterior
from experiments import second_layer
from experiments import show
from experiments import theorems
from icl_causal import runs

_CHECKS = {
  "information": checks.information_of_forests,
  "estimates": checks.estimates,
  "gradient": checks.gradient_at_the_start,
  "roots": checks.roots,
  "pooled": pooled.pooled_and_conditional,
  "theorems": theorems.theorems,
  "posterior": posterior.posterior,
  "second_layer": second_layer.second_layer,
}


_SIZES = fields.many(fields.at_least(2))
_PRIORS = fields.many((fields.ALPHA, fields.SHARE))
_FIELDS = {
  "information": {
    "num_forests": fields.at_least(1),
    "T": fields.at_least(2),
    "S": _SIZES,
    "alpha": fields.ALPHA,
    "root_probability": fields.SHARE,
    "num_kernels": fields.at_least(1),
    "tolerance": fields.NOT_NEGATIVE,
  },
  "estimates": {
    "T": fields.at_least(3),
    "S": fields.at_least(2),
    "root_probability": fields.SHARE,
    "priors": _PRIORS,
    "num_kernels": fields.at_least(2),
    "num_sequences": fields.at_least(2),
  },
  "gradient": {
    "T": _SIZES,
    "cases": fields.many(
      (fields.at_least(2), fields.ALPHA, fields.NOT_NEGATIVE)
    ),
    "matching": fields.POSITIVE,
    "root_probability": fields.SHARE,
    "num_prompts": fields.at_least(2),
    "batch_size": fields.at_least(1),
    "num_kernels": fields.at_least(1),
  },
  "roots": {
    "T": _SIZES,
    "batch_size": fields.many(fields.at_least(1)),
    "priors": _PRIORS,
    "num_graphs": fields.at_least(1),
    "S": fields.at_least(2),
  },
  "pooled": {
    "T": fields.at_least(3),
    "S": fields.at_least(2),
    "alpha": fields.ALPHA,
    "epsilon": fields.NOT_NEGATIVE,
    "root_probability": fields.SHARE,
    "num_graphs": fields.at_least(1),
    "num_sequences": fields.many(fields.at_least(2)),
    "num_permutations": fields.at_least(1),
    "pc_sequences": fields.at_least(0),
    "pc_alpha": fields.SHARE,
  },
  "theorems": {
    "T": _SIZES,
    "S": fields.at_least(2),
    "alpha": fields.ALPHA,
    "gamma": fields.SHARE,
    "matching": fields.POSITIVE,
    "steps": fields.at_least(1),
    "first_steps": fields.at_least(1),
    "batch_size": fields.at_least(1),
    "learning_rate": fields.POSITIVE,
    "second_learning_rate": fields.POSITIVE,
    "num_runs": fields.at_least(1),
    "test_size": fields.at_least(1),
  },
  "posterior": {
    "T": fields.at_least(3),
    "alpha": fields.ALPHA,
    "root_probability": fields.SHARE,
    "cases": fields.many(
      (fields.at_least(2), fields.at_least(2), fields.at_least(2))
    ),
    "reference_samples": fields.at_least(2**12),
  },
  "second_layer": {
    "experiments": fields.many(fields.one_of(paper.EXPERIMENTS)),
    "num_prompts": fields.at_least(2),
    "steps": fields.at_least(1),
    "learning_rate": fields.POSITIVE,
  },
}


def main():
  """The command."""
  config = cli.config()
  check(config)
  digest = runs.digest(config.to_dict())
  workdir = cli.workdir(f"theory-{config.check}-{digest}")
  result = found(config, workdir, flags.FLAGS.overwrite)
  print(show.columns(result["header"], result["rows"]))
  print(f"\n{result['wall_seconds']:.0f} s; {workdir}/result.json")


def found(
  config: build.Config, workdir: pathlib.Path, overwrite: bool = False
) -> dict:
  """The result of a check, read from `workdir` if it is there."""
  with runs.opened(workdir, config.to_dict(), overwrite) as finished:
    if finished:
      print(f"{workdir} is finished; --overwrite runs it again")
    else:
      started = time.monotonic()
      seen = _CHECKS[config.check](config)
      if seen.figure is not None:
        runs.save_figure(workdir, config.check, seen.figure)
      runs.write_result(
        workdir,
        {
          "header": seen.header,
          "rows": seen.rows,
          "wall_seconds": time.monotonic() - started,
        },
      )
  return runs.read_result(workdir)


def check(config: build.Config):
  """Raises Refused for the first field, or pair of fields, that can't be."""
  flat = config.to_dict()
  fields.check(flat, "seed", fields.SEED)
  fields.check(flat, "check", fields.one_of(_CHECKS))
  of_check = _FIELDS[config.check]
  fields.check_known(flat, ["check", "seed", *of_check])
  for name, field in of_check.items():
    fields.check(flat, name, field)
  if config.check == "gradient":
    fields.check_multiple(flat, "num_prompts", "batch_size")
    if config.num_prompts == config.batch_size:
      raise cli.Refused(
        f"num_prompts = {config.num_prompts}: must be at least twice "
        f"batch_size = {config.batch_size}, for a standard error"
      )
  if config.check == "information" and config.num_forests % len(config.S):
    raise cli.Refused(
      f"num_forests = {config.num_forests}: must be a multiple of "
      f"{len(config.S)}, the number of S"
    )


if __name__ == "__main__":
  cli.define_run_flags()
  cli.run(main)
