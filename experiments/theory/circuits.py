"""The circuit that training finds, and which layer sets its pace.

Trains the tasks of configs/phases.py, without run directories, from several
seeds, with the same data for each layer 1: `trained` jointly; `clamped` to the
graph (`circuits.clamp`), where the rows of roots and of the query are uniform;
or with `edges clamped`, where these rows are trained. `steps to` is the first
step, of those measured, with such an excess over the edge posterior.

The other numbers are those of `experiments.circuits`, of the jointly trained
models: scores, blocks of the parameters, the loss with layer 1 clamped after
training, and patches, measured and predicted. Losses in nats; standard errors
are over seeds. The rows `.., more prompts` are of the first seed on more
prompts, with standard errors over prompts. Five minutes on two cores.
"""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
import numpy as np
import optax
from scipy import stats

from configs import phases
from experiments.harness import circuits as measuring
from experiments.harness import traced
from experiments.theory.outcome import Outcome
from icl_causal import metrics
from icl_causal import parallel
from icl_causal import training
from icl_causal.analysis import agreement
from icl_causal.analysis import circuits
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.config import streams
from icl_causal.graphs import Graph
from icl_causal.plotting import circuits as plots

FIELDS = {
  "tasks": fields.tuple_of(fields.one_of(phases.TASKS)),
  "seeds": fields.tuple_of(fields.SEED),
  "steps": fields.at_least(1),
  "measure_every": fields.at_least(1),
  "thresholds": fields.tuple_of(fields.POSITIVE),
  "num_prompts": fields.at_least(measuring.GROUPS),
  "more_prompts": fields.at_least(measuring.GROUPS),
}


def _divides(config: build.Config) -> str | None:
  for name in ("num_prompts", "more_prompts"):
    if config[name] % measuring.GROUPS:
      multiple = f"must be a multiple of {measuring.GROUPS}"
      return f"{name} = {config[name]}: {multiple}"
  if config.steps % config.measure_every:
    return f"steps = {config.steps}: must be a multiple of measure_every"
  return None


NEEDS = (_divides,)

# Whether layer 1 starts at the graph, and whether it stays there.
LAYER_1 = {
  "trained": (False, False),
  "clamped": (True, True),
  "edges clamped": (True, False),
}
_AT_ONCE = 4  # runs per device


class Course(NamedTuple):
  """A training.

  Attributes:
    excess_M: over the edge posterior, before step 0 and at each measurement.
    params: at the end.
  """

  excess_M: Any
  params: Any


def check(config: build.Config) -> Outcome:
  """A row for each task and number; a panel of excess losses for each task."""
  rows, excess = [], {}
  steps = [*range(0, config.steps + 1, config.measure_every)]
  for task in config.tasks:
    base = _base(config, task)
    graph = build.graph(base)
    by_name = {
      name: courses(config, base, graph, *start)
      for name, start in LAYER_1.items()
    }
    excess[task] = {name: of.excess_M for name, of in by_name.items()}
    joint = by_name["trained"]
    numbers = pace(config, steps, excess[task])
    by_seed = []
    for n, seed in enumerate(config.seeds):
      params = jax.tree.map(lambda a, n=n: a[n], joint.params)
      by_seed.append(measured(config, base, graph, params, seed))
    params = jax.tree.map(lambda a: a[0], joint.params)
    of_first = by_more_prompts(config, base, graph, params)
    numbers |= {name: [found[name] for found in by_seed] for name in by_seed[0]}
    rows += [
      [task, name, *_summary(values)] for name, values in numbers.items()
    ]
    rows += [
      [task, f"{name}, more prompts", number.value, number.error, None, None]
      for name, number in of_first.items()
    ]
  header = ["task", "number", "mean", "error", "least", "largest"]
  return Outcome(header, rows, plots.courses(steps, excess))


def courses(
  config: build.Config,
  base: build.Config,
  graph: Graph,
  is_clamped: bool,
  is_fixed: bool,
) -> Course:
  """The trainings from every seed, along a leading axis."""
  mesh = parallel.runs_mesh()
  function = functools.partial(
    course_of, config, base, graph, is_clamped, is_fixed
  )
  mapped = jax.jit(parallel.over_runs(function, mesh, _AT_ONCE))
  seeds = [(np.uint32(seed),) for seed in config.seeds]
  found = mapped(*parallel.stack(seeds, mesh, _AT_ONCE))
  return jax.tree.map(lambda a: np.asarray(a)[: len(seeds)], found)


def course_of(
  config: build.Config,
  base: build.Config,
  graph: Graph,
  is_clamped: bool,
  is_fixed: bool,
  seed,
) -> Course:
  """Trains from one seed, as `experiments.train` does.

  Args:
    config: of the check.
    base: of the task.
    graph: of the task.
    is_clamped: whether layer 1 starts at the graph.
    is_fixed: whether A1 stays as it starts.
    seed: of the run and its test set.
  """
  filled = traced.fill(base, {"seed": seed, "eval.seed": seed})
  model = build.model(filled, graph)
  optimizer = build.optimizer(filled, model)
  if is_fixed:
    optimizer = optax.multi_transform(
      {"trained": optimizer, "fixed": optax.set_to_zero()},
      {"A1": "fixed", "A2": "trained", "W": "trained"},
    )
  state = training.init(streams.key(seed, "init"), model, optimizer)
  if is_clamped:
    state = state._replace(params=circuits.clamp(state.params, graph))
  test = build.sampler(filled, graph, base.eval.test_size)(
    streams.key(seed, "test")
  )
  edge_N = metrics.predictor_losses(
    test.x_T, test.y_S, graph, base.prior.alpha
  )["edge_posterior"]
  size = base.train.batch_size

  def excess(params):
    loss_N = training.evaluate(
      params, model, test.x_T, test.y_S, base.eval.batch_size
    ).loss_N
    return (loss_N - edge_N).mean()

  def advance(state, _):
    state, _ = training.train(
      state,
      streams.key(seed, "data"),
      num_steps=config.measure_every,
      model=model,
      optimizer=optimizer,
      draw=build.sampler(filled, graph, size),
      chunk_size=parallel.chunk_size(size, model),
    )
    return state, excess(state.params)

  num = config.steps // config.measure_every
  end, excess_M = jax.lax.scan(advance, state, length=num)
  first = excess(state.params)
  return Course(jnp.concatenate([first[None], excess_M]), end.params)


def pace(config: build.Config, steps, excess: Mapping) -> dict[str, list]:
  """Values by seed: the steps to an excess, and the excess at the end.

  Args:
    config: of the check.
    steps: of the M measurements.
    excess: R x M by the names in `LAYER_1`.
  """
  found = {}
  for threshold in config.thresholds:
    for name, excess_RxM in excess.items():
      found[f"steps to {threshold}, {name}"] = [
        float(steps[int(np.argmax(excess_M <= threshold))])
        if (excess_M <= threshold).any()
        else None
        for excess_M in excess_RxM
      ]
  for name, excess_RxM in excess.items():
    found[f"excess, {name}"] = excess_RxM[:, -1].tolist()
  joint_R = excess["trained"][:, -1]
  for name, excess_RxM in excess.items():
    if name != "trained":
      more_R = excess_RxM[:, -1] - joint_R
      found[f"excess, {name} minus trained"] = more_R.tolist()
  return found


def measured(
  config: build.Config, base: build.Config, graph: Graph, params, seed: int
) -> dict[str, float | None]:
  """The numbers of `experiments.circuits`, of one model."""
  filled = traced.fill(base, {"seed": seed, "eval.seed": seed})
  model = build.model(filled, graph)
  draw = jax.jit(build.sampler(filled, graph, config.num_prompts))
  batch = draw(streams.key(seed, "test"))
  scores = measuring.scores(model, params, batch.x_T, graph)
  found = {
    f"{name.replace('_', ' ')}": mean.value for name, mean in scores.items()
  }
  found["loss, clamped after training"] = measuring.clamp(
    model, params, batch, graph
  ).value
  found["change of outputs by the gauge"] = change_by_gauge(
    model, params, batch.x_T[: base.eval.batch_size]
  )
  blocks = circuits.compare(model, params, graph)
  for one in blocks:
    name = f"{one.matrix} {one.row} > {one.column}"
    found[f"{name}: share"] = one.share
    if one.cosine is not None:
      found |= {f"{name}: cosine": one.cosine, f"{name}: scale": one.scale}
  for name, share in circuits.outside(blocks).items():
    found[f"{name}: share outside"] = share
  patched = agreements(filled, graph, params, config.num_prompts)
  return found | {name: number.value for name, number in patched.items()}


def by_more_prompts(
  config: build.Config, base: build.Config, graph: Graph, params
) -> dict[str, agreement.Number]:
  """The agreement for the first seed, with errors over prompts."""
  seed = config.seeds[0]
  filled = traced.fill(base, {"seed": seed, "eval.seed": seed})
  return agreements(filled, graph, params, config.more_prompts)


def agreements(
  filled: build.Config, graph: Graph, params, num_prompts: int
) -> dict[str, agreement.Number]:
  """Measured against predicted effects of patches, by name."""
  draw = jax.jit(build.sampler(filled, graph, num_prompts))
  batch = draw(streams.key(filled.eval.seed, "test"))
  fitted = measuring.fit_layer_2(
    filled, graph, streams.key(filled.seed, "data"), min(num_prompts, 2**14)
  )
  of = measuring.patch(params, batch, graph, filled.prior.alpha, fitted)
  return {
    f"{', '.join(names)}: {name.replace('_', ' ')}": number
    for names, found in measuring.agreements(of, graph).items()
    for name, number in found._asdict().items()
  }


def change_by_gauge(model, params, x_BxT) -> float:
  """The largest change of a prediction if the gauge is fixed."""
  fixed = circuits.gauge_fixed(model, params)

  @jax.jit
  def laws(params):
    return jax.vmap(lambda x_T: model.apply({"params": params}, x_T)[0])(x_BxT)

  like = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), fixed)
  return float(jnp.abs(laws(params) - laws(like)).max())


def _base(config: build.Config, task: str) -> build.Config:
  """The config of a task, with the steps of the check."""
  base: build.Config = phases.get_config(task).base
  base = base.copy_and_resolve_references()
  base.train.steps = config.steps
  return base


def _summary(values: list[float | None]) -> list[float | None]:
  """Mean, standard error, least and largest; None if a value is not defined."""
  known = [value for value in values if value is not None]
  if len(known) < len(values):
    return [None] * 4
  error = float(stats.sem(known)) if len(known) > 1 else None
  return [float(np.mean(known)), error, min(known), max(known)]
