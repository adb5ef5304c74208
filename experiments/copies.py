"""Copies of metrics.jsonl for the viewers of others.

Off unless a flag asks for one. metrics.jsonl is what counts; a copy is made
anew from it whenever a run is taken up, and follows it from there.
"""

from collections.abc import Callable, Mapping
import pathlib
import shutil

from absl import flags

from experiments import cli
from icl_causal import runs

Write = Callable[[Mapping], None]


def define_flags():
  """Defines the flags of the copies."""
  flags.DEFINE_bool(
    "tensorboard", False, "Copy the metrics for TensorBoard, in the workdir."
  )
  flags.DEFINE_bool(
    "wandb", False, "Copy the metrics for W&B, offline, in the workdir."
  )


def asked(workdir: pathlib.Path, config: Mapping) -> Callable[[], None]:
  """A function to be called when metrics.jsonl has grown."""
  makers = {"tensorboard": _tensorboard, "wandb": _wandb}
  following = [
    _following(workdir, make(workdir, config))
    for name, make in makers.items()
    if flags.FLAGS[name].value
  ]

  def follow():
    for one in following:
      one()

  return follow


def none():
  """Follows nothing."""


def _following(workdir: pathlib.Path, write: Write) -> Callable[[], None]:
  written = 0

  def follow():
    nonlocal written
    rows = runs.read_metrics(workdir)
    for row in rows[written:]:
      write(row)
    written = len(rows)

  return follow


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
    raise cli.Refused(
      "--tensorboard needs tensorboardX: pip install 'icl-causal[tensorboard]'"
    ) from error
  writer = tensorboardX.SummaryWriter(str(_emptied(workdir / "tensorboard")))
  writer.add_text("config", f"```\n{runs.canonical(config)}```")

  def write(row):
    for name, value in _numbers(row).items():
      writer.add_scalar(name, value, row["step"])
    writer.flush()

  return write


def _wandb(workdir: pathlib.Path, config: Mapping) -> Write:
  try:
    import wandb
  except ImportError as error:
    raise cli.Refused(
      "--wandb needs wandb: pip install 'icl-causal[wandb]'"
    ) from error
  run = wandb.init(
    project="icl_causal",
    name=workdir.name,
    id=runs.digest(config),
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
