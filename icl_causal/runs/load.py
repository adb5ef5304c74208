"""Opens a run for reading: config, graph, model, parameters, history."""

from collections.abc import Callable, Collection
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from icl_causal import priors
from icl_causal.config import build
from icl_causal.config import parts
from icl_causal.config import record
from icl_causal.config import streams
from icl_causal.graphs import Graph
from icl_causal.runs import checkpoints
from icl_causal.runs import directory
from icl_causal.runs import files
from icl_causal.runs import history
from icl_causal.runs import records
from icl_causal.runs.files import RunError
from icl_causal.runs.history import Snapshot
from icl_causal.sampling import Prompt


class Run(NamedTuple):
  """A run directory, opened.

  Attributes:
    path: the run directory.
    config: an ml_collections.ConfigDict.
    graph: the causal graph; graphs along a leading axis if it is latent; None
      if it is custom and not registered.
    prior: the prior (key, S, K) -> kernel, or None as above.
    model: the Flax module, or None as above.
    params: the parameters of each checkpoint, by step in ascending order.
    history: the rows of metrics.jsonl.
    snapshots: a `Snapshot` by step, at each evaluation and at steps 0, 1, 2,
      3, 4, 6, 8, ..: the layer-1 maps, and the outputs on a few prompts.
    result: the contents of result.json, or None if the run is not finished.
    warnings: a line for each part that is not registered, and for each
      checkpoint that can't be used.
  """

  path: pathlib.Path
  config: Any
  graph: Graph
  prior: priors.Prior
  model: Any
  params: dict[int, Any]
  history: list[dict]
  snapshots: dict[int, Snapshot]
  result: dict | None
  warnings: list[str]

  def require(self, *names: str):
    """Raises RunError if one of these fields is None."""
    for name in names:
      if getattr(self, name) is None:
        raise RunError(f"{self.path} has no {name}: {self.warnings[0]}")

  @property
  def attention(self) -> dict[int, np.ndarray]:
    """The layer-1 maps of each snapshot, H x T x T, by step."""
    return {step: one.attention for step, one in self.snapshots.items()}

  @property
  def newest(self) -> Any:
    """The parameters of the newest checkpoint."""
    if not self.params:
      raise RunError(f"{self.path} has no checkpoint")
    return self.params[max(self.params)]

  @property
  def start(self) -> Any:
    """The parameters before the first step."""
    self.require("model")
    return _init(self.model)(streams.key(self.config.seed, "init"))

  def prompts(self, num: int, kernels: bool = True) -> Prompt:
    """The first `num` prompts of the run's own test set.

    Args:
      num: number of prompts.
      kernels: if False, the field `kernel` is None. With many states and
        parents, kernels are much larger than prompts.
    """
    self.require("graph", "prior")
    return _test_set(self.config, self.graph, num, kernels)

  def apply(self, params, x_BxT) -> tuple[jax.Array, dict]:
    """The model on a batch of prompts: (f_BxS, out)."""
    self.require("model")
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
  """Opens a run directory; writes nothing, takes no lock, compiles nothing.

  Works for unfinished runs as well. A run with a custom part that is not
  registered in this process opens without the graph, prior or model that needs
  it.

  Raises:
    RunError: if the directory is not a run or is damaged, or if its config is
      invalid.
  """
  path = pathlib.Path(path)
  config = record.from_record(directory.read_config(path))
  if "sweep" in config:
    raise RunError(f"{path} is a sweep: open it with load_sweep")
  unknown = _unregistered(config)
  graph, prior, model = _parts(path, config, unknown)
  warnings = [
    f"{name} is not registered: import the config file that registers it"
    for name in unknown.values()
  ]
  result = directory.read_result(path) if directory.is_finished(path) else None
  rows = history.read_metrics(path)
  snapshots = _snapshots(path, rows, model)
  params, damages = _params(path, model)
  if result is not None and result["steps"] not in params:
    damages.append(
      f"the final checkpoint, of step {result['steps']}, is missing"
    )
  return Run(
    path=path,
    config=config,
    graph=graph,
    prior=prior,
    model=model,
    params=params,
    history=rows,
    snapshots=snapshots,
    result=result,
    warnings=warnings + damages,
  )


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


def _unregistered(config) -> dict[str, str]:
  """The parts that are not registered: `prior.name = 'sticky'` by kind."""
  flat, unknown = record.flatten(config.to_dict()), {}
  for kind, (table, group, choice, _) in parts.KINDS.items():
    name = flat.get(f"{group}.{choice}")
    if isinstance(name, str) and name not in table:
      unknown[kind] = f"{group}.{choice} = {name!r}"
  return unknown


def _parts(
  path: pathlib.Path, config, unknown: Collection[str]
) -> tuple[Any, Any, Any]:
  """The graph, the prior and the model; None if it is or needs an unknown one.

  Raises:
    RunError: if the config is invalid.
  """
  graph = prior = model = None
  try:
    if not unknown:
      build.check(config)
    if "graph" not in unknown:
      graph = build.graph(config)
    if "prior" not in unknown:
      prior = build.prior(config)
    if graph is not None and "model" not in unknown:
      model = build.model(config, graph)
  except Exception as error:  # an unchecked config can raise any error
    cause = files.reason(error)
    raise RunError(f"{path} can't be opened: {cause}") from error
  return graph, prior, model


def _params(path: pathlib.Path, model) -> tuple[dict[int, Any], list[str]]:
  """The parameters by step, and a message for each damaged checkpoint."""
  params, damages, known = {}, [], history.known(path)
  like = None
  if model is not None:
    like = _shapes(jax.eval_shape(_init(model), streams.key(0, "init")))
  for step in checkpoints.saved_steps(path):
    try:
      read = checkpoints.read_params(path, step, known)
      if like not in (None, _shapes(read)):
        raise ValueError(f"its parameters are {_shapes(read)}, not {like}")
      params[step] = read
    except Exception as error:  # a damaged file can raise any error
      cause = files.reason(error)
      damages.append(f"the checkpoint of step {step} can't be used ({cause})")
  return params, damages


def _snapshots(
  path: pathlib.Path, rows: list[dict], model
) -> dict[int, Snapshot]:
  """The snapshots, one for every row, or nothing if the file is missing.

  Raises:
    RunError: if one is missing or has a wrong shape.
  """
  snapshots = history.read_snapshots(path)
  where = f"{path}/{history.SNAPSHOTS} is damaged"
  for row in rows if snapshots else ():
    if row["step"] not in snapshots:
      raise RunError(f"{where}: it has no snapshot of step {row['step']}")
  if len({frozenset(one.phase.weights) for one in snapshots.values()}) > 1:
    raise RunError(f"{where}: its steps have weights of other predictors")
  right = None if model is None else _output_shapes(model)
  for step, snapshot in snapshots.items():
    found = (
      snapshot.attention.shape,
      {name: array.shape[1:] for name, array in snapshot.prompts.items()},
    )
    right = right or found
    numbers = {len(array) for array in snapshot.prompts.values()}
    if (
      found[0] != right[0]
      or (found[1] and found[1] != right[1])
      or len(numbers) > 1
    ):
      raise RunError(f"{where}: arrays of step {step} have wrong shapes")
  return snapshots


def _output_shapes(model) -> tuple[tuple[int, ...], dict[str, tuple]]:
  """The shapes of the layer-1 maps, and of what a snapshot has of a prompt."""
  params = jax.eval_shape(_init(model), streams.key(0, "init"))
  law_S, out = jax.eval_shape(
    lambda params, x_T: model.apply({"params": params}, x_T),
    params,
    jax.ShapeDtypeStruct((model.T,), np.int32),
  )
  maps = {name: out[name].shape for name in out if name.startswith("attention")}
  return maps["attention_1"], {"law": law_S.shape[-1:], **maps}


def _shapes(tree) -> Any:
  """The shape of each array of a tree."""
  return jax.tree.map(lambda array: tuple(array.shape), tree)


def _init(model) -> Callable:
  """A function of a key: the parameters before the first step."""

  def init(key):
    return model.init(key, np.zeros(model.T, np.int32))["params"]

  return init


def _test_set(config, graph: Graph, num: int, kernels: bool) -> Prompt:
  """The first `num` test prompts; prompt n depends on its own key only."""
  if not 1 <= num <= config.eval.test_size:
    raise ValueError(
      f"the test set has {config.eval.test_size} prompts, got num = {num}"
    )
  sample = build.sampler(config, graph, num)

  def draw(key):
    drawn = sample(key)
    return drawn if kernels else drawn._replace(kernel=None)

  return jax.jit(draw)(streams.key(config.eval.seed, "test"))


@functools.cache
def _apply(model) -> Callable:
  return jax.jit(
    lambda params, x_BxT: jax.vmap(
      lambda x_T: model.apply({"params": params}, x_T)
    )(x_BxT)
  )
