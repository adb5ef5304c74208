"""Puts one-line faults into icl_causal, one at a time: do the tests see them?

    python -m tests.mutants

Works on a copy of the project, whose tests must pass as it is. A fault is
caught if a test of its module fails, or else one of those that put modules
together.
"""

import argparse
from collections.abc import Iterable
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
TOGETHER = (
  "constructions",
  "training",
  "program",
  "processes",
  "forests",
  "end_to_end",
)


class Fault(NamedTuple):
  """A line that is changed: in which module, what, and into what."""

  module: str
  line: str
  wrong: str


FAULTS = (
  Fault("graphs", "[i - 1 if i % 2 else", "[i - 2 if i % 2 else"),
  Fault(
    "graphs", "NO_PARENT, jnp.arange(T - 1))", "NO_PARENT, jnp.arange(1, T))"
  ),
  Fault("graphs", "is_root | (positions == 0)", "is_root | (positions == 1)"),
  Fault("graphs", "+ jnp.tri(T, k=-1)", "+ jnp.tri(T)"),
  Fault("graphs", "rows = [((i - 1) // 2, i - 1)", "rows = [(i // 2, i - 1)"),
  Fault("priors", "+ gamma / S, law", "+ gamma, law"),
  Fault("priors", "d = shape - 1 / 3", "d = shape + 1 / 3"),
  Fault("priors", "(num,)) / alpha", "(num,)) / (alpha + 1)"),
  Fault(
    "priors", "pi_SxS[n, :n], pi_SxS[:n, n]", "pi_SxS[:n, n], pi_SxS[n, :n]"
  ),
  Fault("sampling", "== T - 1) & (graph", "== T - 1) | (graph"),
  Fault("sampling", "shape[-1])[::-1]", "shape[-1])"),
  Fault(
    "sampling", "jnp.where(parents_K < 0, S", "jnp.where(parents_K <= 0, S"
  ),
  Fault("bayes", "_normalise(counts_S + alpha)", "_normalise(counts_S + 1)"),
  Fault("metrics", "xlogy(y_S, f_S + epsilon)", "xlogy(y_S, f_S)"),
  Fault("metrics", "std(ddof=1)", "std(ddof=0)"),
  Fault("models", "x_T, token_TxS) + mask)", "x_T, token_TxS))"),
  Fault("models", "(token_TxS[-1] @ A2))", "(A2 @ token_TxS[-1]))"),
  Fault("models", "queries @ A_DxD @ h_TxD.T", "queries @ A_DxD.T @ h_TxD.T"),
  Fault(
    "models", "copies = [_compose(att, mix)", "copies = [_compose(att.T, mix)"
  ),
  Fault("training", "weight = size / share", "weight = 1.0"),
  Fault("training", "jax.lax.pmean(of_share", "jax.lax.psum(of_share"),
  Fault(
    "training", "state.step < max_first_steps", "state.step <= max_first_steps"
  ),
  Fault(
    "training", "jnp.arange(1, len(A1_TxT) + 1)", "jnp.arange(len(A1_TxT))"
  ),
  Fault("training", "(1 + f_S.size * epsilon)", "(1 + epsilon)"),
  Fault(
    "information",
    "_ratio(P_TxTxSxS, P_j)).sum((2, 3)) - 1",
    "_ratio(P_TxTxSxS, P_j)).sum((2, 3))",
  ),
  Fault("information", '"ijts,st->ij"', '"ijts,ts->ij"'),
  Fault("information", "(positions <= parent)[", "(positions >= parent)["),
  Fault("recovery", "if j < i and score", "if j <= i and score"),
  Fault("sweeps", "padding = -len(runs) %", "padding = len(runs) %"),
  Fault("runs", 'if row["step"] <= step]', 'if row["step"] < step]'),
)


def caught(fault: Fault, copy: pathlib.Path) -> str | None:
  """The tests that see a fault in a copy of the project, or None."""
  path = copy / "icl_causal" / f"{fault.module}.py"
  text = path.read_text()
  if text.count(fault.line) != 1:
    raise ValueError(f"{fault.line!r} is not once in {path.name}")
  path.write_text(text.replace(fault.line, fault.wrong))
  try:
    if not _pass([fault.module], copy):
      return "its own tests"
    return None if _pass(TOGETHER, copy) else "tests of the whole"
  finally:
    path.write_text(text)


def _pass(names: Iterable[str], copy: pathlib.Path) -> bool:
  tests = [f"tests/{name}_test.py" for name in names]
  command = [sys.executable, "-m", "pytest", "-x", "-n", "2", *tests]
  done = subprocess.run(
    command,
    cwd=copy,
    env={**os.environ, "PYTHONPATH": str(copy)},
    capture_output=True,
    text=True,
  )
  if done.returncode > 2:  # neither passed, failed, nor ended by a failure
    raise RuntimeError(done.stdout + done.stderr)
  return done.returncode == 0


def main():
  """The command."""
  argparse.ArgumentParser(description=__doc__).parse_args()
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / "copy"
    leave_out = shutil.ignore_patterns(".venv", "runs", ".git")
    shutil.copytree(ROOT, copy, ignore=leave_out)
    if not _pass({*TOGETHER, *(fault.module for fault in FAULTS)}, copy):
      raise RuntimeError("the tests fail without any fault")
    by = {}
    for fault in FAULTS:
      by[fault] = caught(fault, copy)
      found = by[fault] or "NOBODY"
      print(f"{fault.module:<12}{fault.wrong:<50}{found}", flush=True)
  print(f"{sum(map(bool, by.values()))} of {len(FAULTS)} caught")


if __name__ == "__main__":
  main()
