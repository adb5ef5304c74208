"""Times the library against a textbook version and against the roofline.

    python -m experiments.benchmark --parts=step,sweep,start

Parts: `step`, the parts of a training step at S = 10, T = 20, batch 1024;
`sizes`, the same at other S and T; `batches`; `heads`, with one layer and two;
`parents`, the sampling of 256 prompts whose tokens have several parents, with
all rows of the kernel and with those that a prompt visits; `sweep`, 64 runs in
one program and one after another; `edges`, the time from a cold start until
every edge of a chain is recovered; `start`, the time of imports and of --help;
`tiers`, estimates of the hours that `experiments.verify` trains three seeds of
each tier. The default is all parts, half an hour on two cores.

The textbook version and the library run alternately in one process; the
numbers are medians. The command writes metrics.jsonl with a row per comparison,
result.json, table.txt, and a figure for `sizes`. With --before=FILE, an earlier
result.json, it also prints how much faster each row is than before.
"""

import json
import pathlib
import time

from absl import flags

from experiments.benchmark import measure
from experiments.benchmark import tables
from experiments.harness import app
from experiments.harness import signals
from experiments.harness import smoke
from icl_causal import runs


def main():
  """The command."""
  signals.end_at_once()
  app.use_cores(app.cores())
  small = smoke.is_on()
  parts, repeats = flags.FLAGS.parts, 1 if small else flags.FLAGS.repeats
  for part in parts:
    if part not in measure.PARTS:
      raise app.Refused(
        f"--parts: {part!r} must be one of {', '.join(measure.PARTS)}"
      )
  before = _read(flags.FLAGS.before)
  workdir = app.workdir(time.strftime("benchmark-%Y%m%d-%H%M%S"))
  config = {"parts": parts, "repeats": repeats, "smoke": small}
  with runs.opened(workdir, config, flags.FLAGS.overwrite) as finished:
    if finished:
      raise app.Refused(f"{workdir} is finished: name another --workdir")
    result = measure.measure(workdir, parts, repeats, small)
  print(f"\n{tables.table(result)}\n{workdir}/result.json has every number")
  if before is not None:
    print(f"\n{tables.changes(before, result)}")


def _read(path: str | None) -> dict | None:
  if path is None:
    return None
  try:
    return json.loads(pathlib.Path(path).read_text())
  except (OSError, ValueError) as error:
    raise app.Refused(f"--before={path}: {error}") from error


if __name__ == "__main__":
  flags.DEFINE_list("parts", list(measure.PARTS), "Parts to time.")
  flags.DEFINE_integer("repeats", 9, "Timings per number.", 1)
  flags.DEFINE_string("before", None, "An earlier result.json to compare with.")
  flags.DEFINE_string("workdir", None, "Directory; by default one under runs/.")
  flags.DEFINE_bool("overwrite", False, "Delete the contents of the directory.")
  smoke.define()
  app.run(main)
