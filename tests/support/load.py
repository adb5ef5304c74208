r"""Large sweeps and long histories: processor time and memory.

    python -m tests.support.load --rows=1000000 --members=2000 \
      --evaluations=10000

Writes a history of many evaluations and opens the run; trains a sweep of many
tiny runs and writes its tables; trains a run with an evaluation at each step.
"""

import argparse
import pathlib
import resource
import tempfile
import time

import numpy as np

from configs import single_parent
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from experiments.sweep import summary
from icl_causal import runs
from icl_causal.runs import records as of_runs
from tests.support import records
from tests.support import small_sweeps

_T = 6


def megabytes() -> float:
  """The largest memory of this process so far."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident() -> float:
  """The memory of this process in megabytes."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * resource.getpagesize() / 2**20


def append(workdir: pathlib.Path, steps: range):
  """Evaluations of a run: a row of metrics and a snapshot for each."""
  map_HxTxT = np.tri(_T)[None] / _T
  prompts = {"law": np.full((4, 3), 1 / 3)}
  prompts["attention_1"] = np.stack([map_HxTxT] * 4)
  prompts["attention_2"] = np.full((4, 1, _T), 1 / _T)
  snapshot = runs.Snapshot(1.0, map_HxTxT, prompts, records.phase(0))
  for step in steps:
    runs.append_snapshot(workdir, step, snapshot)
    runs.append_metrics(workdir, records.row(step, loss=1 / (step + 1)))


def history(workdir: pathlib.Path, num_rows: int) -> list[tuple[str, float]]:
  """Appends rows to a run, and opens it.

  Returns:
    (what, seconds): the first and the last tenth of the rows, and the opening.
  """
  config = single_parent.get_config("manual")
  config.graph.parents, config.graph.target = (-1, 0, 1, 0, -1, -1), ()
  runs.prepare(workdir, config.to_dict(), overwrite=False)
  seconds, tenth = [], num_rows // 10
  for part in range(10):
    started = time.process_time()
    append(workdir, range(part * tenth, (part + 1) * tenth))
    seconds.append(time.process_time() - started)
  started = time.process_time()
  run = runs.load(workdir)
  opened = time.process_time() - started
  assert len(run.history) == len(run.attention) == 10 * tenth
  return [
    ("first tenth of the rows", seconds[0]),
    ("last tenth of the rows", seconds[-1]),
    ("opening the run", opened),
  ]


def sweep(workdir: pathlib.Path, members: int) -> list[tuple[str, float]]:
  """Trains a sweep of tiny runs, and writes its tables and figures."""
  seeds = tuple(range(members))
  axes = {"graph": {"seed": (0,)}, "seed": seeds}
  config = small_sweeps.config(axes)
  laps = [time.process_time()]
  planned = grid.every_run(config, workdir)
  laps.append(time.process_time())
  runs.prepare(workdir, config.to_dict(), overwrite=False)
  for batch in grid.divide(planned, 256):
    loop.train_batch(batch, 8)
  laps.append(time.process_time())
  summary.write(workdir, config, planned)
  laps.append(time.process_time())
  rows = of_runs.read_table(workdir / "table.jsonl", of_runs.TABLE)
  assert [row["status"] for row in rows] == ["finished"] * members
  names = ("planning", "training", "tables and figures")
  return list(zip(names, np.diff(laps).tolist(), strict=True))


def evaluations(workdir: pathlib.Path, num: int) -> list[tuple[str, float]]:
  """Trains a run with `num` evaluations.

  Returns:
    (what, seconds): the second and the last tenth, with the memory after them.
  """
  config = small_sweeps.config({"seed": (0,)})
  config.train.update(steps=num, eval_every=1)
  (run,) = grid.every_run(config, workdir)
  seen = {}

  def log(row):
    seen[row["step"]] = (time.process_time(), resident())

  with runs.opened(run.workdir, run.config.to_dict(), overwrite=False):
    loop.train_single(run, distributed.this_process(), log=log)
  tenth, measured = num // 10, []
  for what, end in (("second", 2 * tenth), ("last", num)):
    (before, _), (after, memory) = seen[end - tenth], seen[end]
    measured.append((f"{what} tenth, at {memory:.0f} MiB", after - before))
  return measured


def main():
  """The command."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rows", type=int, default=10**6)
  parser.add_argument("--members", type=int, default=2000)
  parser.add_argument("--evaluations", type=int, default=10**4)
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    for name, function, num in (
      ("rows", history, arguments.rows),
      ("members", sweep, arguments.members),
      ("evaluations", evaluations, arguments.evaluations),
    ):
      before = megabytes()
      measured = function(path / name, num) if num else []
      for what, seconds in measured:
        print(f"{num} {name}: {what:<26}{seconds:>9.1f} s", flush=True)
      if measured:
        print(f"{num} {name}: {before:.0f} to {megabytes():.0f} MiB at most")


if __name__ == "__main__":
  main()
