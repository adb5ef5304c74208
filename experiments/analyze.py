"""Compares information, gradients and attention of a run with its graph.

    python -m experiments.analyze --workdir=runs/chain

Reads a run of one parent for each token. At its start and at every checkpoint
that was kept (`experiments.train --keep=N`), the gradient of the first layer's
position block is measured on fresh prompts and compared with the closed form of
the gradient at the start. Prints two tables; writes analysis/gradient_STEP.csv,
which has every entry, and figures.
"""

import functools
import io
import sys

from absl import flags
import jax
import numpy as np

from experiments.harness import app
from experiments.harness import signals
from icl_causal import graphs
from icl_causal import parallel
from icl_causal import runs
from icl_causal import training
from icl_causal.analysis import gradient
from icl_causal.analysis import information
from icl_causal.analysis import recovery
from icl_causal.config import build
from icl_causal.config import streams
from icl_causal.graphs import Graph
from icl_causal.plotting import matrices

_NUM_KERNELS = 1024
_NUM_CONTROLS = 100
_CLOSED_FORM = "gradient, closed form"


def main():
  """The command."""
  signals.end_at_once()
  run = runs.load(app.existing_workdir())
  check(run)
  for warning in run.warnings:
    print(f"warning: {warning}", file=sys.stderr)
  scores = expected(run)
  predicted_TxT = scores.pop(_CLOSED_FORM)
  gradient_of = measure(run, flags.FLAGS.num_prompts)
  attention_of = attention(run)
  print(f"{'step':>8}  {'correlation':>11}  {'slope':>7}  {'noise':>6}  edges")
  for step, params in ({0: run.start} | run.params).items():
    measured_TxT, error_TxT = gradient_of(params)
    fit = gradient.fit(measured_TxT, error_TxT, predicted_TxT, run.graph)
    print(
      f"{step:>8}  {_decimals(fit.correlation, 4):>11}  "
      f"{_decimals(fit.slope, 3):>7}  {_decimals(fit.noise, 3):>6}  "
      f"{fit.recovered} of {fit.edges}"
    )
    scores[f"gradient, step {step}"] = measured_TxT
    scores[f"attention, step {step}"] = attention_of(params)
    runs.make_directory(run.path / "analysis")
    runs.write_text(
      run.path / f"analysis/gradient_{step}.csv",
      csv(measured_TxT, error_TxT, predicted_TxT, run.graph),
    )
    figure = matrices.gradient_and_prediction(
      measured_TxT, predicted_TxT, graphs.adjacency(run.graph)
    )
    runs.save_figure(run.path, f"gradient_{step}", figure)
  print()
  print(ranking_table(scores, run.graph))
  print(f"\n{run.path}/analysis and figures/gradient_*.png show all entries")


def check(run: runs.Run):
  """Raises Refused for a run that the closed form does not describe."""
  run.require("graph", "prior", "model")
  if not hasattr(run.model, "position_blocks"):
    raise app.Refused(
      f"{run.path}: the closed form is for position blocks, which "
      f"model.name = {run.config.model.name!r} has none of"
    )
  if run.graph.parents_TxK.ndim > 2 or getattr(run.model, "every", False):
    raise app.Refused(
      f"{run.path}: the closed form is for one graph and a loss at the last "
      "position"
    )
  if run.graph.parents_TxK.shape[1] > 1:
    raise app.Refused(f"{run.path}: the closed form is for single parents")
  if not graphs.edges(run.graph):
    raise app.Refused(f"{run.path}: the graph has no edges to compare with")


def expected(run: runs.Run) -> dict[str, np.ndarray]:
  """Matrices of the task alone, by name, conditional on the kernel."""
  S, prior = run.config.prior.S, run.prior
  score = functools.partial(
    gradient.gradient_score,
    epsilon=run.config.train.epsilon,
    read_out=run.model.read_out,
  )
  measures = {
    "Shannon information": information.shannon_of,
    "chi-squared information": information.chi2_of,
    _CLOSED_FORM: score,
  }

  def mean(measure):
    return jax.jit(
      lambda key: information.expected(
        key, run.graph, prior, S, measure, _NUM_KERNELS
      )[0]
    )(streams.key(run.config.seed, "data"))

  means = {name: mean(measure) for name, measure in measures.items()}
  means[_CLOSED_FORM] = gradient.start_gradient(
    means[_CLOSED_FORM], run.model.start_scale, S
  )
  return {name: np.asarray(matrix) for name, matrix in means.items()}


def measure(run: runs.Run, num_prompts: int):
  """A function of the parameters: -dL/dA1 between positions, and its error.

  Both are T x T, the error over batches; of several heads, those of the head
  that fits the graph best.
  """
  batch_size = run.config.train.batch_size
  mean_gradient = jax.jit(
    functools.partial(
      training.mean_gradient,
      num_batches=max(2, num_prompts // batch_size),
      model=run.model,
      draw=build.sampler(
        run.config, run.graph, batch_size, parallel.batch_mesh()
      ),
      epsilon=run.config.train.epsilon,
    )
  )

  def of_params(params) -> tuple[np.ndarray, np.ndarray]:
    mean, error = mean_gradient(params, streams.key(run.config.seed, "test"))
    blocks_HxTxT, errors_HxTxT = (
      run.model.position_blocks(tree["A1"]) for tree in (mean, error)
    )
    (head,) = recovery.compare(-blocks_HxTxT, run.graph).head_of_slot
    lower = np.tri(blocks_HxTxT.shape[1], dtype=bool)
    return (
      np.where(lower, -blocks_HxTxT[head], 0),
      np.where(lower, errors_HxTxT[head], 0),
    )

  return of_params


def attention(run: runs.Run):
  """A function of the parameters: layer 1 on test prompts, H x T x T."""
  x_BxT = run.prompts(run.config.eval.batch_size, kernels=False).x_T

  @jax.jit
  def of_params(params):
    return run.apply(params, x_BxT)[1]["attention_1"].mean(axis=0)

  return lambda params: np.asarray(of_params(params))


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


def ranking_table(scores: dict[str, np.ndarray], graph: Graph) -> str:
  """Every matrix against the edges, and against random graphs."""
  lines = [
    f"{'':<26}{'row argmax':>12}{'top |E|':>12}{'av. precision':>16}"
    f"{'by chance':>12}"
  ]
  key = jax.random.key(0)
  for name, score in scores.items():
    rows, order = recovery.compare(score, graph), recovery.rank(score, graph)
    chance = recovery.control(key, score, graph, _NUM_CONTROLS)
    argmax, top = (f"{n.recovered} of {n.edges}" for n in (rows, order))
    lines.append(
      f"{name:<26}{argmax:>12}{top:>12}{order.average_precision:>16.3f}"
      f"{chance.average_precision:>12.3f}"
    )
  return "\n".join(lines)


def _decimals(value: float | None, digits: int) -> str:
  return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
  app.define_read_flags()
  flags.DEFINE_integer("num_prompts", 2**16, "Prompts for each gradient.", 2)
  app.run(main)
