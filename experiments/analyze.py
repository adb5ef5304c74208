"""Holds information, gradients and attention of a run against the graph.

    python -m experiments.analyze --workdir=runs/chain

Reads a run of one parent for each token. For its start and for every checkpoint
that was kept (`experiments.train --keep=N`), the gradient of the first layer's
position block is measured on fresh prompts and held against the closed form of
the gradient at the start. Prints two tables; writes analysis/gradient_STEP.csv,
which has every entry, and figures.
"""

import functools
import io
import pathlib
import sys
from typing import Any, NamedTuple

from absl import flags
import jax
import numpy as np

from experiments import build
from experiments import cli
from icl_causal import graphs
from icl_causal import information
from icl_causal import plotting
from icl_causal import recovery
from icl_causal import runs
from icl_causal import training
from icl_causal.graphs import Graph

_NUM_KERNELS = 1024
_NUM_CONTROLS = 100


class Fit(NamedTuple):
  """A measured gradient against the closed form, in the rows of children.

  Attributes:
    correlation: over the entries j <= i; None where one of them is constant.
    slope: of measured on predicted, through the origin; None likewise.
    noise: the standard error of an entry over the spread of the entries.
    edges: how many the graph has.
    recovered: how many are the top entry j < i of their row.
  """

  correlation: float | None
  slope: float | None
  noise: float | None
  edges: int
  recovered: int


def main():
  """The command."""
  if flags.FLAGS.workdir is None:
    raise cli.Refused("--workdir is missing: the directory of a run")
  workdir = pathlib.Path(flags.FLAGS.workdir)
  config = build.from_record(runs.read_config(workdir))
  build.check(config)
  if config.model.name == "standard":
    raise cli.Refused(
      f"{workdir}: the closed form is for position blocks, which "
      "model.name = 'standard' has none of"
    )
  graph = build.graph(config)
  if graph.parents_TxK.shape[1] > 1:
    raise cli.Refused(f"{workdir}: the closed form is for single parents")
  if not graphs.edges(graph):
    raise cli.Refused(f"{workdir}: the graph has no edges to hold against")

  matrices = expected(config, graph)
  predicted_TxT = matrices.pop("gradient, closed form")
  gradient_of = measure(config, graph, flags.FLAGS.num_prompts)
  attention_of = attention(config, graph)
  print(f"{'step':>8}  {'correlation':>11}  {'slope':>7}  {'noise':>6}  edges")
  for step, params in saved_params(config, graph, workdir).items():
    measured_TxT, error_TxT = gradient_of(params)
    found = fit(measured_TxT, error_TxT, predicted_TxT, graph)
    print(
      f"{step:>8}  {_decimals(found.correlation, 4):>11}  "
      f"{_decimals(found.slope, 3):>7}  {_decimals(found.noise, 3):>6}  "
      f"{found.recovered} of {found.edges}"
    )
    matrices[f"gradient, step {step}"] = measured_TxT
    matrices[f"attention, step {step}"] = attention_of(params)
    (workdir / "analysis").mkdir(exist_ok=True)
    runs.write_text(
      workdir / f"analysis/gradient_{step}.csv",
      csv(measured_TxT, error_TxT, predicted_TxT, graph),
    )
    runs.save_figure(
      workdir,
      f"gradient_{step}",
      plotting.gradient_and_prediction(
        measured_TxT, predicted_TxT, graphs.adjacency(graph)
      ),
    )
  print()
  print(ranking_table(matrices, graph))
  print(f"\n{workdir}/analysis and figures/gradient_*.png show all entries")


def expected(config: build.Config, graph: Graph) -> dict[str, np.ndarray]:
  """Matrices of the task alone, by name, conditional on the kernel."""
  S, prior = config.prior.S, build.prior(config)
  reduced = config.model.name == "reduced"
  score = functools.partial(
    information.gradient_score,
    epsilon=config.train.epsilon,
    read_out="linear" if reduced else "softmax",
  )
  # The disentangled read-out starts from `matching` as well.
  scale = config.model.matching ** (1 if reduced else 2)
  kinds: dict[str, Any] = {
    "Shannon information": "shannon",
    "chi-squared information": "chi2",
    "gradient, closed form": score,
  }
  mean = {
    name: jax.jit(
      lambda key, kind=kind: information.expected(
        key, graph, prior, S, kind, _NUM_KERNELS
      )[0]
    )(build.key(config.seed, "data"))
    for name, kind in kinds.items()
  }
  name = "gradient, closed form"
  mean[name] = information.start_gradient(mean[name], scale, S)
  return {name: np.asarray(matrix) for name, matrix in mean.items()}


def saved_params(
  config: build.Config, graph: Graph, workdir: pathlib.Path
) -> dict[int, Any]:
  """The parameters at the start and at every checkpoint, by step."""
  start = training.init(
    build.key(config.seed, "init"),
    build.model(config, graph),
    build.optimizer(config),
  )
  states, messages = runs.load_states(workdir, start)
  for message in messages:
    print(f"warning: {message}", file=sys.stderr)
  return {0: start.params} | {step: s.params for step, s in states.items()}


def measure(config: build.Config, graph: Graph, num_prompts: int):
  """A function of the parameters: -dL/dA1 between positions, and its error.

  Both are T x T; of several heads, those of the one that fits the graph best.
  """
  batch_size = config.train.batch_size
  gradient = jax.jit(
    functools.partial(
      training.mean_gradient,
      num_batches=max(2, num_prompts // batch_size),
      model=build.model(config, graph),
      draw=build.sampler(config, graph, batch_size, build.mesh()),
      epsilon=config.train.epsilon,
    )
  )

  def of_params(params) -> tuple[np.ndarray, np.ndarray]:
    mean, error = gradient(params, build.key(config.seed, "test"))
    blocks_HxTxT, errors_HxTxT = (
      _position_blocks(config, tree["A1"]) for tree in (mean, error)
    )
    (head,) = recovery.compare(-blocks_HxTxT, graph).head_of_slot
    lower = np.tri(blocks_HxTxT.shape[1], dtype=bool)
    return (
      np.where(lower, -blocks_HxTxT[head], 0),
      np.where(lower, errors_HxTxT[head], 0),
    )

  return of_params


def attention(config: build.Config, graph: Graph):
  """A function of the parameters: layer 1 as used on prompts, H x T x T."""
  test = jax.jit(
    build.sampler(config, graph, config.eval.batch_size, build.mesh())
  )(build.key(config.eval.seed, "test"))
  evaluate = jax.jit(
    functools.partial(
      training.evaluate,
      model=build.model(config, graph),
      batch_size=config.eval.batch_size,
      epsilon=config.train.epsilon,
    )
  )

  def of_params(params) -> np.ndarray:
    found = evaluate(params, x_NxT=test.x_T, y_NxS=test.y_S)
    return np.asarray(found.attention["attention_1"])

  return of_params


def fit(measured_TxT, error_TxT, predicted_TxT, graph: Graph) -> Fit:
  """Compares the entries j <= i of the rows that have a parent."""
  children = sorted({child for child, _ in graphs.edges(graph)})
  chosen = np.tri(len(measured_TxT), dtype=bool)[children]
  seen, told, error = (
    a[children][chosen] for a in (measured_TxT, predicted_TxT, error_TxT)
  )
  found = recovery.compare(measured_TxT, graph)
  known = seen.std() > 0 and told.std() > 0
  return Fit(
    correlation=float(np.corrcoef(seen, told)[0, 1]) if known else None,
    slope=float((seen @ told) / (told @ told)) if known else None,
    noise=float(error.mean() / seen.std()) if known else None,
    edges=found.edges,
    recovered=found.recovered,
  )


def csv(measured_TxT, error_TxT, predicted_TxT, graph: Graph) -> str:
  """A line for every entry j <= i."""
  edges = np.asarray(graphs.adjacency(graph))
  text = io.StringIO()
  text.write("child,candidate,measured,standard_error,predicted,edge\n")
  for i, j in np.argwhere(np.tri(len(edges), dtype=bool)):
    values = measured_TxT[i, j], error_TxT[i, j], predicted_TxT[i, j]
    numbers = ",".join(f"{value:.9g}" for value in values)
    text.write(f"{i},{j},{numbers},{int(edges[i, j])}\n")
  return text.getvalue()


def ranking_table(matrices: dict[str, np.ndarray], graph: Graph) -> str:
  """Every matrix against the edges, and against random graphs."""
  lines = [
    f"{'':<26}{'row argmax':>12}{'top |E|':>12}{'av. precision':>16}"
    f"{'by chance':>12}"
  ]
  key = jax.random.key(0)
  for name, matrix in matrices.items():
    rows, order = recovery.compare(matrix, graph), recovery.rank(matrix, graph)
    chance = recovery.control(key, matrix, graph, _NUM_CONTROLS)
    argmax, top = (
      f"{found.recovered} of {found.edges}" for found in (rows, order)
    )
    lines.append(
      f"{name:<26}{argmax:>12}{top:>12}{order.average_precision:>16.3f}"
      f"{chance.average_precision:>12.3f}"
    )
  return "\n".join(lines)


def _position_blocks(config: build.Config, A1) -> np.ndarray:
  if config.model.name == "reduced":
    return np.asarray(A1)[None]
  return np.asarray(A1)[:, config.prior.S :, config.prior.S :]


def _decimals(value: float | None, digits: int) -> str:
  return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "Directory of a run.")
  flags.DEFINE_integer("num_prompts", 2**16, "Prompts for each gradient.", 2)
  cli.run(main)
