"""Damages run directories at random, and runs commands on them.

    python -m tests.support.damage --damages=500

Each damage changes one or two files of a finished run, of an unfinished run or
of a sweep; then one of the commands that read it is run. Each must give the
output of the undamaged directory, or say in one line for each file what is
wrong. It must not raise another error, wait, or write outside of the directory.
A forged record, whose checksum is right, may change the output.
"""

import argparse
import collections
from collections.abc import Callable
import contextlib
import hashlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import traceback
from typing import NamedTuple

from absl import flags
import numpy as np

from configs import many_graphs
from configs import single_parent
from experiments import analyze
from experiments import circuits
from experiments import report
from experiments import train
from experiments.harness import app
from experiments.harness import compile_cache
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loggers
from experiments.harness import signals
from experiments.sweep import __main__ as sweep
from experiments.sweep import launch
from icl_causal import runs
from icl_causal.config import fields
from icl_causal.runs import records
from tests.support import artifacts

_SECONDS = 600  # after which a command hangs
_TINY = {
  "train.steps": 6,
  "train.eval_every": 2,
  "train.batch_size": 32,
  "eval.test_size": 64,
  "eval.batch_size": 64,
  "eval.posterior_prompts": 0,
}


# The commands that read each kind of directory, with their arguments.
COMMANDS: dict[str, dict[str, Callable[[], None]]] = {
  "finished": {
    "report": report.main,
    "analyze": analyze.main,
    "circuits": circuits.main,
    "train": train.main,
  },
  "unfinished": {"train": train.main, "analyze": analyze.main},
  "sweep": {"sweep": sweep.main},
  "unfinished sweep": {"sweep": sweep.main},
}


class Outcome(NamedTuple):
  """What a command did.

  Attributes:
    output: what it printed and the records that it left, None if it refused.
    said: the lines on stderr.
    fault: a traceback or a hang, or nothing.
  """

  output: tuple | None
  said: list[str]
  fault: str


def configure():
  """Sets what all commands read from the command line."""
  app.define_run_flags()
  distributed.define_flags()
  loggers.define_flags()
  launch.define_flags()
  flags.DEFINE_integer("num_prompts", 64, "")
  flags.DEFINE_integer("keep", 4, "")
  flags.DEFINE_integer("runs_per_batch", 256, "")
  flags.DEFINE_integer("parallel", 8, "")
  flags.DEFINE_bool("members", False, "")
  flags.FLAGS(["damage"])
  app.configure()
  compile_cache.keep()
  app.use_cores = lambda num: None
  signals.install_handlers = lambda: signals.never
  # Figures take seconds, and many kernels and graphs as well.
  runs.save_figure = _save_figure
  analyze._NUM_KERNELS, analyze._NUM_CONTROLS = 8, 2


def _config(kind: str):
  config = single_parent.get_config("manual")
  if "sweep" in kind:
    config = many_graphs.get_config("graphs")
    config.graph.T, config.prior.S = 5, 2
    config.sweep.grid = {"graph": {"seed": (0, 1)}}
  config.update_from_flattened_dict(_TINY)
  return config


def run(kind: str, command: str, workdir: pathlib.Path) -> Outcome:
  """Runs a command in this process, as `app.run` does."""
  stdout, stderr, fault, refused = io.StringIO(), io.StringIO(), "", False

  def hang(*_):
    raise TimeoutError("hang")

  signal.signal(signal.SIGALRM, hang)
  signal.alarm(_SECONDS)
  with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
    try:
      flags.FLAGS.workdir = str(workdir)
      app.config = lambda: _config(kind)
      COMMANDS[kind][command]()
    except (app.Refused, fields.ConfigError, runs.RunError) as error:
      refused = True
      print("error:", error, file=sys.stderr)
    except TimeoutError:
      fault = "hang"
    except OSError as error:
      refused = True
      print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    except BaseException:
      fault = traceback.format_exc()
    finally:
      signal.alarm(0)
  output = None
  if not refused and not fault:
    output = _output(kind, stdout.getvalue(), workdir)
  return Outcome(output, _lines(stderr.getvalue()), fault)


def _lines(text: str) -> list[str]:
  """Without the progress bar."""
  lines = (line.rpartition("\r")[2] for line in text.splitlines())
  return [line for line in lines if line.startswith(("error:", "warning:"))]


def _output(kind: str, printed: str, workdir: pathlib.Path):
  """What was printed, the report and the records, without times and paths."""
  members = [workdir]
  if "sweep" in kind:
    members = [workdir / "members" / name for name in _members(kind)]
  try:
    left = [artifacts.by_run(member) for member in members]
  except (runs.RunError, AssertionError):
    left = None
  if "unfinished" in kind:  # what is printed and reported has times
    return None, left
  shown = printed.replace(str(workdir), "W")
  return (shown, _digest(workdir / "report.html")), left


def _members(kind: str) -> list[str]:
  every = grid.every_run(_config(kind), pathlib.Path())
  return [run.name for run in every]


def _digest(path: pathlib.Path) -> str:
  # By the command that has just written it, from the records.
  is_there = path.is_file() and not path.is_symlink()
  return hashlib.sha256(path.read_bytes()).hexdigest() if is_there else ""


def make(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """The undamaged directories, by kind."""
  made = {kind: folder / kind.replace(" ", "-") for kind in COMMANDS}
  for kind in ("finished", "sweep"):
    command = "train" if kind == "finished" else "sweep"
    outcome = run(kind, command, made[kind])
    assert outcome.output, outcome
  outcome = run("finished", "circuits", made["finished"])
  assert outcome.output, outcome
  shutil.copytree(made["finished"], made["unfinished"])
  for name in ("result.json", "report.html", "checkpoints/6.npz"):
    (made["unfinished"] / name).unlink()
  shutil.copytree(made["sweep"], made["unfinished sweep"])
  (made["unfinished sweep"] / "result.json").unlink()
  for member in (made["unfinished sweep"] / "members").iterdir():
    (member / "result.json").unlink()
    (member / "checkpoints/6.npz").unlink()
  return made


def _write(path: pathlib.Path, data: bytes):
  path.unlink()
  path.write_bytes(data)


def _flip(rng: random.Random, path: pathlib.Path, _):
  data = bytearray(path.read_bytes())
  for _ in range(rng.choice((1, 1, 8))):
    if data:
      data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  _write(path, bytes(data))


def _truncate(rng: random.Random, path: pathlib.Path, _):
  data = path.read_bytes()
  _write(path, data[: rng.randrange(len(data) + 1)])


def _insert(rng: random.Random, path: pathlib.Path, _):
  data = path.read_bytes()
  at = rng.randrange(len(data) + 1)
  _write(path, data[:at] + rng.randbytes(rng.choice((1, 5, 500))) + data[at:])


def _cut_out(rng: random.Random, path: pathlib.Path, _):
  data = path.read_bytes()
  at = rng.randrange(len(data) + 1)
  _write(path, data[:at] + data[at + rng.choice((1, 5, 500)) :])


def _delete(rng: random.Random, path: pathlib.Path, _):
  path.unlink()


def _link(rng: random.Random, path: pathlib.Path, outside: pathlib.Path):
  path.unlink()
  path.symlink_to(outside / rng.choice(("notes.txt", "missing")))


def _pipe(rng: random.Random, path: pathlib.Path, _):
  path.unlink()
  os.mkfifo(path)


def _folder(rng: random.Random, path: pathlib.Path, _):
  path.unlink()
  path.mkdir()


def _linked_folder(rng: random.Random, path: pathlib.Path, outside):
  """The folder of the file, if it is one inside of the run."""
  folder = path.parent
  if folder.name in ("checkpoints", "figures", "members"):
    shutil.rmtree(folder)
    folder.symlink_to(outside)
  else:
    _link(rng, path, outside)


def _swap(rng: random.Random, path: pathlib.Path, _):
  """With another file of the same name or ending, or with any."""
  root = _root(path)
  others = [p for p in _files(root) if p != path]
  alike = [p for p in others if p.suffix == path.suffix]
  same = [p for p in others if p.name == path.name]
  other = rng.choice(rng.choice([c for c in (others, alike, same) if c]))
  temporary = path.with_name("swapped")
  path.rename(temporary)
  other.rename(path)
  temporary.rename(other)


def _rows(rng: random.Random, path: pathlib.Path, _):
  """Drops, doubles, moves or changes a line."""
  lines = path.read_bytes().splitlines(keepends=True)
  if not lines:
    return
  i, j = (rng.randrange(len(lines)) for _ in range(2))
  what = rng.randrange(4)
  if what == 0:
    del lines[i]
  elif what == 1:
    lines.insert(j, lines[i])
  elif what == 2:
    lines[i], lines[j] = lines[j], lines[i]
  else:
    lines[i] = lines[i].replace(b"1", b"7", 1)
  _write(path, b"".join(lines))


_VALUES = (None, True, "x", "", -1, 1e308, 10**17, [], {}, [[]], "../../x", 0.5)


def _change(rng: random.Random, value: dict) -> dict:
  """With a field that is changed, dropped or new, at some depth."""
  keys = list(value)
  key = rng.choice(keys) if keys else "new"
  if isinstance(value.get(key), dict) and rng.random() < 0.7:
    return value | {key: _change(rng, value[key])}
  if rng.random() < 0.2:
    return {name: v for name, v in value.items() if name != key}
  if rng.random() < 0.1:
    key = rng.choice(("a.b", "__class__", "new", "items"))
  return value | {key: rng.choice(_VALUES)}


def _value(rng: random.Random, path: pathlib.Path, _):
  """A value of a record, without a new checksum."""
  text = path.read_text()
  if path.suffix == ".json":
    _write(path, json.dumps(_change(rng, json.loads(text))).encode())
  elif path.suffix == ".jsonl":
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(_change(rng, json.loads(lines[at])))
    _write(path, "".join(line + "\n" for line in lines).encode())
  else:
    _flip(rng, path, _)


def _forge(rng: random.Random, path: pathlib.Path, _):
  """A value of a record, with a new checksum."""
  workdir, text = path.parent, path.read_text(errors="replace")
  if path.name in ("metrics.jsonl", "snapshots.jsonl"):
    rows = [json.loads(line) for line in text.splitlines()]
    at = rng.randrange(len(rows))
    rows[at] = _change(rng, rows[at])
    path.unlink()
    for row in rows:
      row.pop("checksum", None)
      records.append(path, row)
  elif path.name == "config.json":
    config = _change(rng, json.loads(text))
    _write(path, json.dumps(config).encode())
    _seal(workdir / "environment.json")
  elif path.suffix == ".json":
    _write(path, json.dumps(_change(rng, json.loads(text))).encode())
    _seal(path)
  else:
    _flip(rng, path, _)


def _seal(path: pathlib.Path):
  value = json.loads(path.read_text())
  value.pop("checksum", None)
  is_inner = path.parent.name == "analysis"
  workdir = path.parent.parent if is_inner else path.parent
  start = records.checksum_of_config(workdir)
  if path.name != "environment.json":
    start = records.last_checksum(workdir / "metrics.jsonl")
  records.write(path, value, start)


DAMAGES = (
  _flip,
  _truncate,
  _insert,
  _cut_out,
  _delete,
  _link,
  _pipe,
  _folder,
  _linked_folder,
  _swap,
  _rows,
  _value,
  _forge,
)
_TEXT = (_rows, _value, _forge)


def _files(root: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    p for p in root.rglob("*") if p.is_file() and not p.is_symlink()
  )


def _root(path: pathlib.Path) -> pathlib.Path:
  """The damaged directory of a file."""
  return next(p for p in path.parents if p.name.startswith("damaged-"))


def damage(rng: random.Random, workdir: pathlib.Path, outside) -> list[str]:
  """Damages one or two files, and names what was done."""
  done = []
  for _ in range(rng.choice((1, 1, 1, 2))):
    every = _files(workdir)
    damager = rng.choice(DAMAGES)
    records_of = [p for p in every if p.suffix in (".json", ".jsonl")]
    is_record = damager in _TEXT or rng.random() < 0.4
    path = rng.choice(records_of if is_record and records_of else every)
    # A record that is no longer one.
    with contextlib.suppress(ValueError, AttributeError, runs.RunError):
      damager(rng, path, outside)
      name = path.relative_to(workdir)
      done.append(f"{damager.__name__.strip('_')} {name}")
  return done


def trials(num: int, seed: int, folder: pathlib.Path) -> collections.Counter:
  """Damages directories and runs commands.

  Returns:
    The number of outcomes of each kind; faults are printed.
  """
  outside = folder / "outside"
  outside.mkdir()
  (outside / "notes.txt").write_text("years of work")
  (outside / "2.npz").write_text("data")
  before = artifacts.all_bytes(outside)
  made, expected = make(folder), {}
  counts = collections.Counter()
  rng = random.Random(seed)
  for n in range(num):
    kind = rng.choice(list(COMMANDS))
    command = rng.choice(list(COMMANDS[kind]))
    if (kind, command) not in expected:
      expected[kind, command] = _trial(kind, command, made, folder)
    done: list[str] = []

    def spoil(workdir, done=done):
      done += damage(rng, workdir, outside)

    outcome = _trial(kind, command, made, folder, spoil)
    what = _judge(outcome, expected[kind, command], done)
    if artifacts.all_bytes(outside) != before:
      what = "WROTE OUTSIDE"
    counts[what] += 1
    if what.isupper():
      print(f"{n}: {what}: {command} on {kind}: {', '.join(done)}")
      print("\n".join(outcome.said) + outcome.fault, flush=True)
  return counts


def _trial(kind, command, made, folder, spoil=lambda workdir: None) -> Outcome:
  """A command on a copy of a directory, always at the same place."""
  workdir = folder / f"damaged-{kind.replace(' ', '-')}"
  shutil.rmtree(workdir, ignore_errors=True)
  shutil.copytree(made[kind], workdir)
  spoil(workdir)
  return run(kind, command, workdir)


def _judge(outcome: Outcome, expected: Outcome, done: list[str]) -> str:
  if outcome.fault:
    return "HANG" if outcome.fault == "hang" else "TRACEBACK"
  if any(len(line) > 1000 for line in outcome.said):
    return "LONG LINE"
  if outcome.output is None:
    return "refused in one line" if len(outcome.said) else "SAID NOTHING"
  assert expected.output is not None
  # A command that only reads may not need what is damaged. One that trains
  # again what is missing prints other times.
  is_same = any(
    mine and mine == other
    for mine, other in zip(outcome.output, expected.output, strict=True)
  )
  if is_same:
    return "same output, with a warning" if outcome.said else "same output"
  if outcome.said:
    return "another output, with a warning"
  if any(name.startswith("forge") for name in done):
    return "another output, of a forged record"
  return "SILENT CHANGE"


def _save_figure(workdir: pathlib.Path, name: str, figure):
  """In place of drawing, which takes seconds: a digest of what is drawn."""
  digest = hashlib.sha256()
  for axes in figure.axes:
    for line in axes.lines:
      digest.update(np.asarray(line.get_xydata(), float).tobytes())
    for picture in axes.images:
      digest.update(np.asarray(picture.get_array(), float).tobytes())
  runs.make_directory(workdir / "figures")
  runs.write_text(workdir / f"figures/{name}.png", digest.hexdigest())


def main():
  """The command."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--damages", type=int, default=500)
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args()
  configure()
  with tempfile.TemporaryDirectory() as folder:
    counts = trials(arguments.damages, arguments.seed, pathlib.Path(folder))
  for what, count in sorted(counts.items()):
    print(f"{count:>5}  {what}")
  sys.exit(any(what.isupper() for what in counts))


if __name__ == "__main__":
  main()
