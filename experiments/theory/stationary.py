"""Are sub-k-grams near-stationary? The gradient at constructed predictors.

`constructions.kgram` with k heads is the k'-gram predictor, for k' < k. Varre,
Yuce and Flammarion (2025) prove for a simplified transformer that the gradient
of the loss on chains of order k vanishes at such parameters, as the prompts and
the parameters grow. Roots are uniform, and the kernel is new in every prompt.

The loss is that of f = (1 - 1/T) p + 1/(S T) with the normalised row p of
`logits_TxS`, averaged over the second half of the positions. The gradient is
with respect to the attention, A1, U1, A2 and U2. Columns have its norm in two
parts:
- `skip`: the block of A2 from the query's token at distance k' to the key's
  own token. The construction does not use it, but head k' provides this token;
- `rest`: all other entries.

Tasks:
- `norm`: the norms at T, free of the bias of a finite number of prompts: the
  sum of products of the gradients of different batches of prompts. `excess` is
  the loss minus that of the k'-gram posterior mean. Errors are over batches, by
  the jackknife.
- `power`: the slopes of the log norms against log T.
- `limit`: the limit of `skip` for long prompts, from the stationary laws of
  kernels. Given the k' tokens compared, the token x at distance k' and the next
  token y are dependent in a chain of higher order, and the block is minus the
  mean over kernels of P(x = a, y = b) - E[P(x = a | ..) P(y = b | ..)].

Three minutes on two cores.
"""

from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np
from scipy import stats

from experiments.theory.outcome import Outcome
from icl_causal import constructions
from icl_causal import graphs
from icl_causal import priors
from icl_causal import running
from icl_causal import sampling
from icl_causal.config import build
from icl_causal.config import fields

FIELDS = {
  "S": fields.at_least(2),
  # (alpha, k, order)
  "cases": fields.tuple_of(
    (fields.ALPHA, fields.at_least(2), fields.at_least(1))
  ),
  "lengths": fields.tuple_of(fields.at_least(4)),
  "num_blocks": fields.at_least(3),
  "batch_size": fields.at_least(1),
  "num_kernels": fields.at_least(2),
}
PARTS = ("skip", "rest")
HEADER = (
  *("task", "alpha", "k", "order", "T", "excess", "error"),
  *(name for part in PARTS for name in (part, f"error of {part}")),
)
_MATCH = 30.0  # exp(-30) is small beside 1 / T; a larger one changes nothing
_LEAST = 1e-9  # of the probabilities of a kernel: its stationary law is unique


def _fits(config: build.Config) -> str | None:
  for alpha, k, order in config.cases:
    if order >= k:
      return f"cases: {(alpha, k, order)} must have order < k"
    if k >= min(config.lengths) / 2:
      return f"cases: k = {k} must be less than half of {min(config.lengths)}"
  return None


NEEDS = (_fits,)


class Gradients(NamedTuple):
  """Gradients of B batches, and the excess loss of each.

  Attributes:
    of_part: the entries of each part, B x entries.
    excess_B: over the k'-gram posterior mean.
  """

  of_part: dict
  excess_B: np.ndarray


def check(config: build.Config) -> Outcome:
  """Norms of the parts of the gradient by length, and the limit of `skip`."""
  rows = []
  for case in config.cases:
    alpha, k, order = case
    norms = []
    for T in config.lengths:
      found = gradients(config, alpha, k, order, T)
      norm = {part: norm_of(g) for part, g in found.of_part.items()}
      excess = (np.mean(found.excess_B), stats.sem(found.excess_B))
      rows.append(["norm", *case, T, *map(float, excess), *_flat(norm)])
      norms.append(norm)
    if len(config.lengths) > 1:
      power = {
        part: power_of(config.lengths, [norm[part] for norm in norms])
        for part in PARTS
      }
      rows.append(["power", *case, None, None, None, *_flat(power)])
    skip = {"skip": limit(config, alpha, k, order)}
    rows.append(["limit", *case, None, None, None, *_flat(skip)])
  tasks = ("norm", "power", "limit")
  rows.sort(key=lambda row: tasks.index(row[0]))
  return Outcome(list(HEADER), rows, None)


def gradients(
  config: build.Config, alpha: float, k: int, order: int, T: int
) -> Gradients:
  """The gradients at the k'-gram predictor, k' = `order`, on order k."""
  S, graph = config.S, graphs.kgram(T, k)
  model, params = constructions.kgram(order, S, T, k, _MATCH)
  prior = priors.dirichlet(alpha, "uniform")

  def loss(params, prompt):
    _, out = model.apply({"params": params}, prompt.x_T)
    logits_TxS: Any = out["logits_TxS"]
    p_TxS = jnp.maximum(logits_TxS, 0.0)
    p_TxS /= p_TxS.sum(axis=1, keepdims=True)
    f_TxS = (1 - 1 / T) * p_TxS + 1 / (S * T)
    loss_T = -special.xlogy(prompt.y_S, f_TxS).sum(axis=1)
    return loss_T[T // 2 :].mean()

  def line(prompt):
    law_TxS = running.edge_posterior(
      prompt.x_T, graphs.kgram(T, order), alpha, S
    )
    loss_T = -special.xlogy(prompt.y_S, law_TxS).sum(axis=1)
    return loss_T[T // 2 :].mean()

  def of_batch(params, key):
    batch = sampling.sample_batch(key, graph, prior, S, config.batch_size, True)

    def mean(params):
      return jax.vmap(lambda p: loss(params, p))(batch).mean()

    value, gradient = jax.value_and_grad(mean)(params)
    return value - jax.vmap(line)(batch).mean(), gradient

  keys = jax.random.split(jax.random.key(config.seed + T), config.num_blocks)
  excess_B, gradient = jax.jit(
    lambda params: jax.lax.map(lambda key: of_batch(params, key), keys)
  )(params)
  del gradient["W"]
  gradient = {name: np.asarray(g, float) for name, g in gradient.items()}
  token = constructions.kgram_tokens(S, k)
  block = (slice(None), 0, token[order], token[0])
  skip = gradient["A2"][block].copy()
  gradient["A2"][block] = 0.0
  flat = {"skip": [skip], "rest": list(gradient.values())}
  return Gradients(
    {
      part: np.concatenate([g.reshape(len(g), -1) for g in of_part], axis=1)
      for part, of_part in flat.items()
    },
    np.asarray(excess_B),
  )


def norm_of(gradient_BxE: np.ndarray) -> tuple[float, float]:
  """The norm of the mean gradient and its error, without bias.

  The square is the mean of the products of different batches.
  """
  B = len(gradient_BxE)
  product_BxB = gradient_BxE @ gradient_BxE.T
  np.fill_diagonal(product_BxB, 0.0)
  total, of_B = product_BxB.sum(), product_BxB.sum(axis=1)
  square = total / (B * (B - 1))
  without_B = (total - 2 * of_B) / ((B - 1) * (B - 2))
  error = np.sqrt((B - 1) / B * ((without_B - without_B.mean()) ** 2).sum())
  norm = np.sqrt(max(square, 0.0))
  return float(norm), float(error / (2 * norm) if norm else np.sqrt(error))


def power_of(lengths, norms) -> tuple[float | None, float | None]:
  """The slope of log norms against log T, and its error; None if one is 0."""
  if not all(norm for norm, _ in norms):
    return None, None
  x = np.log(lengths) - np.mean(np.log(lengths))
  weight = x / (x**2).sum()
  logs = [np.log(norm) for norm, _ in norms]
  errors = [error / norm for norm, error in norms]
  return float(weight @ logs), float(np.hypot.reduce(weight * errors))


def limit(
  config: build.Config, alpha: float, k: int, order: int
) -> tuple[float, float]:
  """The norm of the block `skip` for long prompts, and its error."""
  S, batches = config.S, 16
  rng = np.random.default_rng(config.seed)
  size = -(-config.num_kernels // batches)
  block_BxE = np.stack(
    [
      np.mean(
        [
          dependence(_kernel(rng, alpha, S, k), order).ravel()
          for _ in range(size)
        ],
        axis=0,
      )
      for _ in range(batches)
    ]
  )
  return norm_of(block_BxE)


def _kernel(rng, alpha: float, S: int, k: int) -> np.ndarray:
  """A kernel of order k, (S, .., S): the tokens in order, the next one last."""
  log_gamma = np.log(rng.gamma(alpha + 1, size=(S,) * (k + 1)))
  log_gamma += np.log(rng.random((S,) * (k + 1))) / alpha
  law = np.exp(log_gamma - log_gamma.max(axis=-1, keepdims=True))
  law /= law.sum(axis=-1, keepdims=True)
  return (1 - S * _LEAST) * law + _LEAST


def dependence(kernel: np.ndarray, order: int) -> np.ndarray:
  """P(x = a, y = b) - E[P(x = a | c) P(y = b | c)] in the stationary chain.

  Here c are the last `order` tokens, x is the token before them, and y is the
  next token. 0 if the chain has this order.

  Args:
    kernel: of order k > `order`: axes are k tokens in order, and the next one.
    order: number of tokens in c.

  Returns:
    S x S.
  """
  S, k = kernel.shape[0], kernel.ndim - 1
  joint = stationary_law(kernel)[..., None] * kernel
  joint_AxCxB = joint.sum(axis=tuple(range(k - order - 1))).reshape(S, -1, S)
  x_AxC, y_CxB = joint_AxCxB.sum(axis=2), joint_AxCxB.sum(axis=0)
  return joint_AxCxB.sum(axis=1) - (x_AxC / x_AxC.sum(axis=0)) @ y_CxB


def stationary_law(kernel: np.ndarray) -> np.ndarray:
  """The law of k successive tokens in the long run, with k axes."""
  S, k = kernel.shape[0], kernel.ndim - 1
  num = S**k
  context, y = np.arange(num)[:, None], np.arange(S)[None]
  equations = -np.eye(num)
  np.add.at(equations, (context * S % num + y, context), kernel.reshape(num, S))
  equations[-1] = 1.0
  return np.linalg.solve(equations, np.eye(num)[-1]).reshape((S,) * k)


def _flat(parts: dict) -> list:
  return [number for part in PARTS for number in parts.get(part, (None, None))]
