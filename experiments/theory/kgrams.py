"""Chains of order k: which models learn them, and where they stop on the way.

The parents of a token are the k tokens before it (`graphs.kgram`), roots are
uniform, and the kernel is new in every prompt. Models predict at every
position. `relative` is `models.Relative` and `attention` the disentangled
transformer, both without MLPs; `MLP` is a standard transformer with norms and
residual MLPs. Adam with a cosine schedule, gradients of norm at most 1.

The k'-gram line is the loss of the edge posterior with the k' nearest parents
(`running.edge_posterior`), for k' = 0 that of the token counts. A gap is the
loss minus the k-gram line, averaged over the positions from k on, or at the
last one. Losses in nats; each seed has its own data, start and test prompts.

Tasks:
- `trained`: the gap at the end, and the weight of the k-gram predictor in the
  mixture of all lines that is closest to the model at the last position.
- `plateau`: each stretch of a training in which the loss falls by less than .02
  nats while the step grows by a factor of three or more, before it falls again
  (`analysis.plateaus`). `line` is the nearest one, or `uniform`, and `distance`
  the difference to it. `norm` is the least gradient norm of the stretch over
  the largest after it.
- `stationary`: a model that is trained on chains of order `order` < k, with
  prompts of order k. `distance` is its loss there minus the line of its order,
  `norm / start` and `norm / largest` its gradient norm over that at the start
  and over the largest of the same model during its training on order k. They
  are small if sub-k-gram predictors are near-stationary (Varre et al., 2025).
  The gradient norm is that of the loss on fixed test prompts.

Ten minutes on two cores.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np
import optax
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import graphs
from icl_causal import metrics
from icl_causal import models
from icl_causal import priors
from icl_causal import running
from icl_causal import sampling
from icl_causal import training
from icl_causal.analysis import plateaus
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.plotting import kgrams as plots

MODELS = ("relative", "attention", "MLP")
FIELDS = {
  "S": fields.at_least(2),
  "T": fields.at_least(4),
  "alpha": fields.ALPHA,
  "steps": fields.at_least(1),
  # (k, model, heads of layer 1, layers, learning rate, rounds of `steps`)
  "cases": fields.tuple_of(
    (
      fields.at_least(1),
      fields.one_of(MODELS),
      fields.at_least(1),
      fields.at_least(2),
      fields.POSITIVE,
      fields.at_least(1),
    )
  ),
  # (k, order): the first case of that k, trained on another order
  "transfers": fields.tuple_of((fields.at_least(2), fields.at_least(1))),
  "width": fields.at_least(1),
  "reach": fields.at_least(2),
  "noise": fields.POSITIVE,
  "batch_size": fields.at_least(1),
  "b2": fields.BELOW_ONE,
  "max_norm": fields.POSITIVE,
  "num_seeds": fields.at_least(2),
  "test_size": fields.at_least(2),
  "gradient_size": fields.at_least(1),
}
HEADER = (
  *("task", "k", "model", "heads", "order", "seed", "steps"),
  *("gap", "error", "largest"),
  *("last", "error of last", "line k - 1", "weight", "error of weight"),
  *("plateaus", "from", "to", "line", "distance"),
  *("error of distance", "norm", "norm / start", "error of start"),
  *("norm / largest", "error of largest"),
)


class Case(NamedTuple):
  """A model, and how it is trained."""

  k: int
  model: str
  heads: int
  layers: int
  learning_rate: float
  rounds: int


class Course(NamedTuple):
  """The training of a case, for R seeds.

  Attributes:
    params: at the end.
    loss_RxN: on test prompts at N steps, over positions >= k.
    norm_RxN: of the gradient.
    lines_RxL: the losses of the k'-gram predictors, k' = 0, .., k.
    last_R: the loss at the last position minus that of the k-gram predictor.
    weight_R: of the k-gram predictor at the last position, at the end.
  """

  params: Any
  loss_RxN: Any
  norm_RxN: Any
  lines_RxL: Any
  last_R: Any
  weight_R: Any


def _fits(config: build.Config) -> str | None:
  for case in map(Case._make, config.cases):
    if case.k >= config.T:
      return f"cases: k = {case.k} must be less than T = {config.T}"
  known = {k for k, *_ in config.cases}
  for k, order in config.transfers:
    if order >= k or k not in known:
      return f"transfers: {(k, order)} must have a case of k, and order < k"
  return None


NEEDS = (_fits,)


def check(config: build.Config) -> Outcome:
  """Gaps, plateaus and gradient norms."""
  rows, panels, courses = [], {}, {}
  for case in map(Case._make, config.cases):
    course = courses.setdefault(case, trained(config, case, case.k))
    num_steps = case.rounds * config.steps
    rows += rows_of(case, num_steps, config.S, course)
    steps, curves = measured_at(num_steps), panels.setdefault(case.k, {})
    gap_RxN = course.loss_RxN - course.lines_RxL[:, -1:]
    curves[_name(case)] = (steps, gap_RxN, course.norm_RxN)
  for k, order in config.transfers:
    case = next(case for case in courses if case.k == k)
    rows.append(transfer(config, case, order, courses[case]))
  gaps = {
    case.k: course.lines_RxL.mean(axis=0) - course.lines_RxL[:, -1].mean()
    for case, course in courses.items()
  }
  order = {"trained": 0, "plateau": 1, "stationary": 2}
  rows.sort(key=lambda row: order[row[0]])
  return Outcome(list(HEADER), rows, plots.courses(panels, gaps))


def model_of(config: build.Config, case: Case):
  """The model of a case; layers after the first have one head."""
  S, T = config.S, config.T
  heads = (case.heads, *[1] * (case.layers - 1))
  if case.model == "relative":
    return models.Relative(
      S, T, heads, config.reach, noise=config.noise, every=True
    )
  if case.model == "attention":
    return models.Disentangled(S, T, heads, noise=config.noise, every=True)
  return models.Standard(
    S, T, heads, config.width, "residual", norm=True, scaled=True, every=True
  )


def measured_at(steps: int) -> np.ndarray:
  """Step 0, then four steps in each octave, and the last one."""
  powers = 2 ** np.arange(0, np.log2(steps), 0.25)
  return np.unique([0, *np.round(powers).astype(int), steps])


def sampler(config: build.Config, k: int, size: int):
  """Maps a key to prompts of order k."""
  graph = graphs.kgram(config.T, k)
  prior = priors.dirichlet(config.alpha, "uniform")
  return lambda key: sampling.sample_batch(
    key, graph, prior, config.S, size, True
  )


def trained(config: build.Config, case: Case, order: int) -> Course:
  """The training of a case on chains of some order, tested on order k."""
  seeds = config.seed + jnp.arange(config.num_seeds)
  course = functools.partial(_course, config, case, order)
  return Course(*jax.tree.map(np.asarray, jax.jit(jax.vmap(course))(seeds)))


def _course(config: build.Config, case: Case, order: int, seed) -> Course:
  model = model_of(config, case)
  init_key, data_key, test_key = jax.random.split(jax.random.key(seed), 3)
  test = sampler(config, case.k, config.test_size)(test_key)
  few = jax.tree.map(lambda a: a[: config.gradient_size], test)
  last_step = case.rounds * config.steps
  rate = optax.cosine_decay_schedule(case.learning_rate, last_step)
  optimizer = optax.chain(
    optax.clip_by_global_norm(config.max_norm), optax.adam(rate, b2=config.b2)
  )

  def mean_loss(params, batch):
    return jax.vmap(lambda p: loss_T(model, params, p)[case.k :].mean())(
      batch
    ).mean()

  def measure(params):
    norm = optax.tree.norm(jax.grad(mean_loss)(params, few))
    return mean_loss(params, test), norm

  def advance(state, num_steps):
    found = measure(state.params)
    state, _ = training.train(
      state,
      data_key,
      num_steps=num_steps,
      max_steps=last_step,
      model=model,
      optimizer=optimizer,
      draw=sampler(config, order, config.batch_size),
    )
    return state, found

  start = training.init(init_key, model, optimizer)
  between = jnp.asarray(np.diff(measured_at(last_step)))
  state, (loss_N, norm_N) = jax.lax.scan(advance, start, between)
  params: Any = state.params
  loss, norm = measure(params)
  law_LxNxTxS = predictors(config, case.k, test.x_T)
  lines_LxNxT = _losses(law_LxNxTxS, test.y_S[None])
  f_NxTxS, _ = jax.vmap(lambda x_T: model.apply({"params": params}, x_T))(
    test.x_T
  )
  w_L, _ = metrics.mixture_weights(f_NxTxS[:, -1], law_LxNxTxS[:, :, -1])
  last = (_losses(f_NxTxS, test.y_S) - lines_LxNxT[-1])[:, -1].mean()
  return Course(
    params,
    jnp.append(loss_N, loss),
    jnp.append(norm_N, norm),
    lines_LxNxT[..., case.k :].mean(axis=(1, 2)),
    last,
    w_L[-1],
  )


def loss_T(model, params, prompt: sampling.Prompt) -> jax.Array:
  """The loss at each position of one prompt."""
  f_TxS, _ = model.apply({"params": params}, prompt.x_T)
  return _losses(f_TxS, prompt.y_S)


def _losses(f, y) -> jax.Array:
  return -special.xlogy(jnp.broadcast_to(y, f.shape), f).sum(axis=-1)


def predictors(config: build.Config, k: int, x_NxT) -> jax.Array:
  """The laws of the k'-gram predictors, k' = 0, .., k: L x N x T x S."""

  def one(x_T):
    laws = [running.unigram(x_T, config.S)]
    for fewer in range(1, k + 1):
      graph = graphs.kgram(config.T, fewer)
      laws.append(running.edge_posterior(x_T, graph, config.alpha, config.S))
    return jnp.stack(laws)

  return jax.lax.map(one, x_NxT, batch_size=32).swapaxes(0, 1)


def rows_of(
  case: Case, num_steps: int, num_states: int, course: Course
) -> list[list]:
  """The rows of the tasks `trained` and `plateau`."""
  gap_R = course.loss_RxN[:, -1] - course.lines_RxL[:, -1]
  steps, found = measured_at(num_steps), []
  for r, (loss_N, norm_N) in enumerate(
    zip(course.loss_RxN, course.norm_RxN, strict=True)
  ):
    for plateau in plateaus.plateaus(steps, loss_N):
      lines = {
        "uniform": np.log(num_states),
        **dict(enumerate(course.lines_RxL[r])),
      }
      line = min(lines, key=lambda name: abs(plateau.level - lines[name]))
      stretch = slice(plateau.first, plateau.last + 1)
      found.append(
        {
          **_named(case, "plateau", r),
          "from": int(steps[plateau.first]),
          "to": int(steps[plateau.last]),
          "gap": float(plateau.level - course.lines_RxL[r, -1]),
          "line": line,
          "distance": float(plateau.level - lines[line]),
          "norm": float(
            norm_N[stretch].min() / norm_N[plateau.last + 1 :].max()
          ),
        }
      )
  below_R = course.lines_RxL[:, -2] - course.lines_RxL[:, -1]
  trained_row = {
    **_named(case, "trained", len(gap_R)),
    "steps": num_steps,
    **_mean(gap_R, "gap", "error"),
    "largest": float(gap_R.max()),
    **_mean(course.last_R, "last", "error of last"),
    "line k - 1": float(below_R.mean()),
    **_mean(course.weight_R, "weight", "error of weight"),
    "plateaus": len(found),
  }
  return [_row(one) for one in (trained_row, *found)]


def transfer(
  config: build.Config, case: Case, order: int, course: Course
) -> list:
  """The row of a model that is trained on another order."""
  other = trained(config, case, order)
  distance_R = other.loss_RxN[:, -1] - other.lines_RxL[:, order]
  norm_R = other.norm_RxN[:, -1]
  return _row(
    {
      **_named(case, "stationary", len(norm_R)),
      "steps": case.rounds * config.steps,
      "order": order,
      **_mean(distance_R, "distance", "error of distance"),
      "norm": float(norm_R.mean()),
      **_mean(norm_R / course.norm_RxN[:, 0], "norm / start", "error of start"),
      **_mean(
        norm_R / course.norm_RxN.max(axis=1),
        "norm / largest",
        "error of largest",
      ),
    }
  )


def _named(case: Case, task: str, seed: int) -> dict:
  heads = str((case.heads, *[1] * (case.layers - 1)))
  return {
    "task": task,
    "k": case.k,
    "model": case.model,
    "heads": heads,
    "seed": seed,
  }


def _name(case: Case) -> str:
  return f"{case.model} {_named(case, '', 0)['heads']}"


def _mean(values_R, name: str, error: str) -> dict[str, float]:
  return {name: float(np.mean(values_R)), error: float(stats.sem(values_R))}


def _row(cells: dict) -> list:
  return [cells.get(name) for name in HEADER]
