"""Loggers that copy metrics.jsonl to TensorBoard and W&B.

Each is off unless its flag is set. metrics.jsonl is the record: when a run
starts or resumes, a logger is emptied and filled from it.
"""

from collections.abc import Callable, Mapping
import pathlib
import shutil

from absl import flags

from experiments.harness import app
from icl_causal import runs
from icl_causal.config import record

flags.disclaim_key_flags()  # flags defined here belong to the command

Write = Callable[[Mapping], None]


def define_flags():
  """Defines a flag for each logger."""
  flags.DEFINE_bool(
    "tensorboard", False, "Copy the metrics for TensorBoard, in the workdir."
  )
  flags.DEFINE_bool(
    "wandb", False, "Copy the metrics for W&B, offline, in the workdir."
  )


def create(workdir: pathlib.Path, config: Mapping) -> Write:
  """A function that logs the last row of metrics.jsonl, by the flags.

  Its first call also logs all rows before.
  """
  makers = {"tensorboard": _tensorboard, "wandb": _wandb}
  writes = [
    make(workdir, config)
    for name, make in makers.items()
    if flags.FLAGS[name].value
  ]
  filled = False

  def log(row):
    nonlocal filled
    for new in [row] if filled or not writes else runs.read_metrics(workdir):
      for write in writes:
        write(new)
    filled = True

  return log


def none(row: Mapping):
  """Logs nothing."""
  del row


def _numbers(row: Mapping) -> dict:
  return {
    name: value
    for name, value in row.items()
    if name != "step" and value is not None
  }


def _tensorboard(workdir: pathlib.Path, config: Mapping) -> Write:
  try:
    import tensorboardX
  except ImportError as error:
    raise app.Refused(
      "--tensorboard needs tensorboardX: pip install -e '.[tensorboard]'"
    ) from error
  writer = tensorboardX.SummaryWriter(str(_emptied(workdir / "tensorboard")))
  writer.add_text("config", f"```\n{record.canonical(config)}```")

  def write(row):
    for name, value in _numbers(row).items():
      writer.add_scalar(name, value, row["step"])
    writer.flush()

  return write


def _wandb(workdir: pathlib.Path, config: Mapping) -> Write:
  try:
    import wandb
  except ImportError as error:
    raise app.Refused(
      "--wandb needs wandb: pip install -e '.[wandb]'"
    ) from error
  run = wandb.init(
    project="icl_causal",
    name=workdir.name,
    id=record.digest(config),
    config=dict(config),
    dir=_emptied(workdir / "wandb").parent,
    mode="offline",
    settings=wandb.Settings(silent=True, console="off"),
  )
  return lambda row: run.log(_numbers(row), step=row["step"])


def _emptied(folder: pathlib.Path) -> pathlib.Path:
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  return folder
