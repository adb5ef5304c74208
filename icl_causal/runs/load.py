"""Opens a run for reading: config, graph, model, parameters, history."""

from collections.abc import Callable
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from icl_causal import training
from icl_causal.config import build
from icl_causal.config import record
from icl_causal.config import streams
from icl_causal.graphs import Graph
from icl_causal.runs import checkpoints
from icl_causal.runs import directory
from icl_causal.runs import files
from icl_causal.runs import history
from icl_causal.runs import records
from icl_causal.runs.files import RunError
from icl_causal.sampling import Prompt


class Run(NamedTuple):
  """A run directory, opened.

  Attributes:
    path: the run directory.
    config: an ml_collections.ConfigDict.
    graph: the causal graph.
    model: the Flax module.
    params: the parameters of each checkpoint, by step in ascending order.
    history: the rows of metrics.jsonl.
    attention: the layer-1 maps of each evaluation, H x T x T, by step.
    result: the contents of result.json, or None if the run is not finished.
    warnings: a line for each checkpoint that can't be used.
  """

  path: pathlib.Path
  config: Any
  graph: Graph
  model: Any
  params: dict[int, Any]
  history: list[dict]
  attention: dict[int, np.ndarray]
  result: dict | None
  warnings: list[str]

  @property
  def newest(self) -> Any:
    """The parameters of the newest checkpoint."""
    if not self.params:
      raise RunError(f"{self.path} has no checkpoint")
    return self.params[max(self.params)]

  @property
  def start(self) -> Any:
    """The parameters before the first step."""
    return _start(self.config, self.graph)().params

  def prompts(self, num: int) -> Prompt:
    """The first `num` prompts of the run's own test set."""
    return _test_set(self.config, self.graph, num)

  def apply(self, params, x_BxT) -> tuple[jax.Array, dict]:
    """The model on a batch of prompts: (f_BxS, out)."""
    return _apply(self.model)(params, x_BxT)


class Member(NamedTuple):
  """A run of a sweep.

  Attributes:
    row: its row of table.jsonl.
    path: its run directory.
  """

  row: dict
  path: pathlib.Path

  def load(self) -> Run:
    """Opens the run."""
    return load(self.path)


def load(path: str | pathlib.Path) -> Run:
  """Opens a run directory; writes nothing, takes no lock, compiles no model.

  Works for unfinished runs as well.

  Raises:
    RunError: if the directory is not a run or is damaged, or if its config is
      invalid or has a part that is not registered in this process.
  """
  path = pathlib.Path(path)
  config = record.from_record(directory.read_config(path))
  if "sweep" in config:
    raise RunError(f"{path} is a sweep: open it with load_sweep")
  try:
    build.check(config)
    graph = build.graph(config)
    model = build.model(config, graph)
  except build.ConfigError as error:
    raise RunError(
      f"{path} can't be opened: {error}; if the run has a custom part, "
      "import the config file that registers it, or pass that file as --config"
    ) from error
  result = directory.read_result(path) if directory.is_finished(path) else None
  rows = history.read_metrics(path)
  maps = _maps(path, rows, model)
  like, known = jax.eval_shape(_start(config, graph)), history.known(path)
  params, warnings = {}, []
  for step in checkpoints.saved_steps(path):
    try:
      state = checkpoints.read_state(path, step, like, known)
      params[step] = state.params
    except Exception as error:  # a damaged file can raise any error
      cause = files.reason(error)
      warnings.append(f"the checkpoint of step {step} can't be used ({cause})")
  if result is not None and result["steps"] not in params:
    warnings.append(
      f"the final checkpoint, of step {result['steps']}, is missing"
    )
  return Run(path, config, graph, model, params, rows, maps, result, warnings)


def load_sweep(path: str | pathlib.Path) -> list[Member]:
  """The members of a sweep, in the order of its table.jsonl."""
  path = pathlib.Path(path)
  if not (path / "table.jsonl").exists():
    if "sweep" not in directory.read_config(path):
      raise RunError(f"{path} is a single run: open it with load")
    raise RunError(f"{path} has no table.jsonl: the sweep is not finished")
  return [
    Member(row, path / "members" / row["run"])
    for row in records.read_table(path / "table.jsonl", records.TABLE)
  ]


def _maps(path: pathlib.Path, rows: list[dict], model) -> dict[int, np.ndarray]:
  """The attention of every row, or nothing if the file is missing."""
  maps = history.read_attention(path)
  shape = (model.first_layer_heads, model.T, model.T)
  for row in rows if maps else ():
    found = maps.get(row["step"])
    if found is None or found.shape != shape:
      raise RunError(
        f"{path}/{history.ATTENTION} is damaged: it has no map of step "
        f"{row['step']} with shape {shape}"
      )
  return {row["step"]: maps[row["step"]] for row in rows if maps}


def _start(config, graph: Graph) -> Callable[[], training.TrainState]:
  def start():
    model = build.model(config, graph)
    key = streams.key(config.seed, "init")
    return training.init(key, model, build.optimizer(config, model))

  return start


def _test_set(config, graph: Graph, num: int) -> Prompt:
  """The first `num` test prompts; prompt n depends on its own key only."""
  if not 1 <= num <= config.eval.test_size:
    raise ValueError(
      f"the test set has {config.eval.test_size} prompts, got num = {num}"
    )
  draw = build.sampler(config, graph, num)
  return jax.jit(draw)(streams.key(config.eval.seed, "test"))


@functools.cache
def _apply(model) -> Callable:
  return jax.jit(
    lambda params, x_BxT: jax.vmap(
      lambda x_T: model.apply({"params": params}, x_T)
    )(x_BxT)
  )
