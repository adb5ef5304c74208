"""What a run is judged by: the loss, defined once, and its error."""

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special

from icl_causal import bayes
from icl_causal.graphs import Graph
from icl_causal.priors import RootLaw


def loss(f_S, y_S, epsilon=0.0) -> jax.Array:
  """-sum_s y_s log(f_s + epsilon), in nats (section 2 of the paper).

  Args:
    f_S: the predicted law.
    y_S: the soft target pi(. | s_T).
    epsilon: keeps the logarithm finite for models whose f_S may be 0.
  """
  chex.assert_rank([f_S, y_S], 1)
  chex.assert_equal_shape([f_S, y_S])
  return -special.xlogy(y_S, f_S + epsilon).sum()


def predictor_losses(x_BxT, y_BxS, graph: Graph, alpha) -> dict:
  """The loss of each predictor of `bayes` on each prompt, by its name.

  Args:
    x_BxT: the tokens of prompts.
    y_BxS: their targets.
    graph: that they were drawn from.
    alpha: concentration of their prior.

  Returns:
    Arrays of shape B under `uniform`, `unigram`, `edge_posterior`, `entropy`.
  """
  S = y_BxS.shape[-1]
  predictors = {
    "uniform": lambda x_T: bayes.uniform(S),
    "unigram": lambda x_T: bayes.unigram(x_T, S),
    "edge_posterior": lambda x_T: bayes.edge_posterior(x_T, graph, alpha, S),
  }
  losses = {
    name: jax.vmap(lambda x_T, y_S, f=f: loss(f(x_T), y_S))(x_BxT, y_BxS)
    for name, f in predictors.items()
  }
  return losses | {"entropy": bayes.entropy(y_BxS)}


def exact_posterior_losses(
  key_B,
  x_BxT,
  y_BxS,
  graph: Graph,
  alpha,
  num_samples: int,
  root_law: RootLaw | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The loss of the exact posterior on each prompt, and its effective samples.

  Args:
    key_B: a typed key for each prompt.
    x_BxT: the tokens of prompts.
    y_BxS: their targets.
    graph: that they were drawn from.
    alpha: concentration of their prior.
    num_samples: as for `bayes.exact_posterior`.
    root_law: of their prior.
  """

  def one(prompt):
    key, x_T, y_S = prompt
    f_S, effective = bayes.exact_posterior(
      key, x_T, graph, alpha, y_S.size, num_samples, root_law
    )
    return loss(f_S, y_S), effective

  return jax.lax.map(one, (key_B, x_BxT, y_BxS))


def mean_and_standard_error(values_N) -> tuple[float, float]:
  """Of independent values, as floats."""
  values_N = jnp.asarray(values_N)
  return float(values_N.mean()), float(
    values_N.std(ddof=1) / values_N.size**0.5
  )
