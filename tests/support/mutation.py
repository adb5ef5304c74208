"""Mutation testing: puts one-line faults into icl_causal, one at a time.

    python -m tests.support.mutation

Works on a copy of the project. The tests must pass on the copy without a fault.
A fault is caught if a test of its module fails, or else a test that combines
several modules.
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

ROOT = pathlib.Path(__file__).parents[2]
# Tests that combine several modules, by their paths in tests/.
COMBINED = (
  "constructions",
  "training",
  "harness/program",
  "harness/distributed",
  "harness/forests",
  "train",
)


class Fault(NamedTuple):
  """A changed line.

  Attributes:
    module: its path in icl_causal/, without the suffix.
    line: a part of one line.
    wrong: its replacement.
  """

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
  Fault(
    "models",
    "queries @ A_DxD @ keys_TxD.T",
    "queries @ A_DxD.T @ keys_TxD.T",
  ),
  Fault("models", "[mixes.compose(att, mix)", "[mixes.compose(att.T, mix)"),
  Fault("training", "weight = size / share", "weight = 1.0"),
  Fault("training", "jax.lax.pmean(of_share", "jax.lax.psum(of_share"),
  Fault("training", "(1 + f_S.size * epsilon)", "(1 + epsilon)"),
  Fault(
    "optimizers",
    "state.step < max_first_steps",
    "state.step <= max_first_steps",
  ),
  Fault(
    "optimizers", "jnp.arange(1, len(A1_TxT) + 1)", "jnp.arange(len(A1_TxT))"
  ),
  Fault(
    "analysis/information",
    "ratio(P_TxTxSxS, P_j)).sum((2, 3)) - 1",
    "ratio(P_TxTxSxS, P_j)).sum((2, 3))",
  ),
  Fault(
    "analysis/information", "(positions <= parent)[", "(positions >= parent)["
  ),
  Fault("analysis/gradient", '"ijts,st->ij"', '"ijts,ts->ij"'),
  Fault("analysis/recovery", "if j < i and score", "if j <= i and score"),
  Fault("parallel", "padding = -len(runs) %", "padding = len(runs) %"),
  Fault("runs/directory", 'if row["step"] <= step]', 'if row["step"] < step]'),
)


def source(fault: Fault, root: pathlib.Path) -> pathlib.Path:
  """The file of the module of a fault."""
  return root / "icl_causal" / f"{fault.module}.py"


def test_file(name: str) -> str:
  """The test file of a module, or of `COMBINED`, relative to the root."""
  return f"tests/{name}_test.py"


def insert(fault: Fault, root: pathlib.Path) -> str:
  """The text of the module with the fault.

  Raises:
    ValueError: unless the line occurs exactly once.
  """
  path = source(fault, root)
  text = path.read_text()
  if (num := text.count(fault.line)) != 1:
    raise ValueError(f"{fault.line!r} occurs {num} times in {path}, not once")
  return text.replace(fault.line, fault.wrong)


def caught_by(fault: Fault, copy: pathlib.Path) -> str | None:
  """The tests that fail on a copy of the project with the fault, or None."""
  path = source(fault, copy)
  text = path.read_text()
  path.write_text(insert(fault, copy))
  try:
    if not _pass([fault.module], copy):
      return "tests of the module"
    return None if _pass(COMBINED, copy) else "combined tests"
  finally:
    path.write_text(text)


def ignored(folder: str, names: Iterable[str]) -> set[str]:
  """The names in a folder that the copy does not need, for `copytree`."""
  if pathlib.Path(folder) != ROOT:  # icl_causal/runs is needed
    return set()
  return {".venv", "runs", ".git"} & {*names}


def _pass(names: Iterable[str], copy: pathlib.Path) -> bool:
  tests = map(test_file, names)
  command = [sys.executable, "-m", "pytest", "-x", "-n", "2", *tests]
  done = subprocess.run(
    command,
    cwd=copy,
    env={**os.environ, "PYTHONPATH": str(copy)},
    capture_output=True,
    text=True,
  )
  if done.returncode > 2:  # neither passed, nor failed, nor stopped by -x
    raise RuntimeError(done.stdout + done.stderr)
  return done.returncode == 0


def main():
  """The command."""
  argparse.ArgumentParser(description=__doc__).parse_args()
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / "copy"
    shutil.copytree(ROOT, copy, ignore=ignored)
    if not _pass({*COMBINED, *(fault.module for fault in FAULTS)}, copy):
      raise RuntimeError("the tests fail without a fault")
    num_caught = 0
    for fault in FAULTS:
      tests = caught_by(fault, copy)
      num_caught += tests is not None
      name = tests or "NOT CAUGHT"
      print(f"{fault.module:<22}{fault.wrong:<50}{name}", flush=True)
  print(f"{num_caught} of {len(FAULTS)} caught")


if __name__ == "__main__":
  main()
