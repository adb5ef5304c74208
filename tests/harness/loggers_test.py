"""Logs for TensorBoard and W&B have the rows of metrics.jsonl."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from icl_causal import runs

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]

READ_TENSORBOARD = """
import json, sys
from tensorboard.backend.event_processing import event_accumulator
events = event_accumulator.EventAccumulator(sys.argv[1])
events.Reload()
found = {
  name: [(e.step, e.value) for e in events.Scalars(name)]
  for name in events.Tags()["scalars"]
}
print(json.dumps(found))
"""

# A W&B file is a header of 7 bytes and a log in the format of LevelDB: blocks
# of 32 KiB with parts of records, each with a checksum, a length and a kind.
READ_WANDB = """
import json, pathlib, struct, sys
from wandb.proto import wandb_internal_pb2
(path,) = pathlib.Path(sys.argv[1]).glob("offline-run-*/*.wandb")
data, at, joined, rows = path.read_bytes(), 7, b"", []
while at + 7 <= len(data):
  left = 2**15 - at % 2**15
  _, size, kind = struct.unpack_from("<IHB", data, at)
  if left < 7 or kind == 0:
    at += left
    continue
  joined += data[at + 7 : at + 7 + size]
  at += 7 + size
  if kind in (1, 4):  # a record in one part, or the last part of one
    record = wandb_internal_pb2.Record()
    record.ParseFromString(joined)
    joined = b""
    if record.WhichOneof("record_type") == "history":
      rows.append({
        (item.key or ".".join(item.nested_key)): json.loads(item.value_json)
        for item in record.history.item
      })
print(json.dumps(rows))
"""


def _run(*command):
  done = subprocess.run(
    [sys.executable, *command],
    cwd=ROOT,
    env={**os.environ, "WANDB_MODE": "offline"},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_logs_equal_the_metrics_also_after_an_interruption(tmp_path):
  workdir = tmp_path / "run"
  command = (
    "-m",
    "experiments.train",
    "--config=configs/single_parent.py:manual",
    "--config.train.steps=8",
    "--config.train.eval_every=2",
    "--config.train.batch_size=32",
    "--config.eval.test_size=64",
    "--config.eval.batch_size=64",
    "--config.eval.posterior_prompts=0",
    f"--workdir={workdir}",
    "--tensorboard",
    "--wandb",
  )
  _run(*command)
  rows = runs.read_metrics(workdir)
  assert [row["step"] for row in rows] == [0, 2, 4, 6, 8]
  # As if interrupted before the last checkpoint: its steps are taken again.
  (workdir / "result.json").unlink()
  (workdir / "checkpoints" / "8.npz").rename(tmp_path / "8.npz")
  _run(*command)
  _check(workdir, runs.read_metrics(workdir))
  shutil.rmtree(workdir / "tensorboard")
  _run(*command[:-1])  # logs of a finished run are written again
  assert len(list((workdir / "tensorboard").iterdir())) == 1


def _check(workdir, rows):
  scalars = json.loads(_run("-c", READ_TENSORBOARD, workdir / "tensorboard"))
  names = {name for row in rows for name in row if name != "step"}
  assert set(scalars) == names
  for name, values in scalars.items():
    expected = [
      (row["step"], row[name]) for row in rows if row[name] is not None
    ]
    assert [step for step, _ in values] == [step for step, _ in expected]
    for (_, logged), (_, value) in zip(values, expected, strict=True):
      assert abs(logged - value) <= 1e-6 * abs(value)
  history = json.loads(_run("-c", READ_WANDB, workdir / "wandb"))
  assert [row["_step"] for row in history] == [row["step"] for row in rows]
  for logged, row in zip(history, rows, strict=True):
    for name in names - {"train_loss", "gradient_norm"}:
      assert logged[name] == row[name]
