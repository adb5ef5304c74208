"""The loss, its standard error, and the metrics of a run."""

from collections.abc import Mapping
import math

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np

from icl_causal import bayes
from icl_causal.analysis.recovery import Recovery
from icl_causal.graphs import Graph
from icl_causal.priors import RootLaw

# Below this effective sample size the exact-posterior loss is not reported: its
# error may exceed .005 nats, as measured on pairs and forests.
MIN_EFFECTIVE_SAMPLES = 8.0


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
  """The loss in nats of the baselines in `bayes` on each prompt, by name.

  Args:
    x_BxT: the tokens of the prompts.
    y_BxS: the targets of the prompts.
    graph: of the prompts.
    alpha: concentration of the prior.

  Returns:
    Arrays of shape B under `uniform`, `unigram`, `edge_posterior`, `entropy`.
  """
  S = y_BxS.shape[-1]
  baselines = {
    "uniform": lambda x_T: bayes.uniform(S),
    "unigram": lambda x_T: bayes.unigram(x_T, S),
    "edge_posterior": lambda x_T: bayes.edge_posterior(x_T, graph, alpha, S),
  }
  losses = {
    name: jax.vmap(lambda x_T, y_S, f=f: loss(f(x_T), y_S))(x_BxT, y_BxS)
    for name, f in baselines.items()
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
  """The loss in nats of the exact posterior on each prompt.

  Args:
    key_B: a typed key for each prompt.
    x_BxT: the tokens of the prompts.
    y_BxS: the targets of the prompts.
    graph: of the prompts.
    alpha: concentration of the prior.
    num_samples: as for `bayes.exact_posterior`.
    root_law: of the prior.

  Returns:
    (loss_B, effective_sample_size_B).
  """

  def one(prompt):
    key, x_T, y_S = prompt
    f_S, effective = bayes.exact_posterior(
      key, x_T, graph, alpha, y_S.size, num_samples, root_law
    )
    return loss(f_S, y_S), effective

  return jax.lax.map(one, (key_B, x_BxT, y_BxS))


def mean_and_standard_error(values_N) -> tuple[float, float]:
  """The mean of independent values and its standard error, as floats."""
  values_N = jnp.asarray(values_N)
  return float(values_N.mean()), float(
    values_N.std(ddof=1) / values_N.size**0.5
  )


def measures(loss_N, edges: Recovery, baselines: Mapping) -> dict:
  """The metrics of an evaluation; losses in nats.

  Args:
    loss_N: of the model on the test set.
    edges: recovered by the attention of layer 1.
    baselines: losses of the baselines on the test set, by name.
  """
  loss, error = mean_and_standard_error(loss_N)
  excess, excess_error = mean_and_standard_error(
    loss_N - baselines["edge_posterior"]
  )
  scores = edges.edge_scores
  return {
    "loss": loss,
    "loss_standard_error": error,
    "excess_loss": excess,
    "excess_loss_standard_error": excess_error,
    "edges": edges.edges,
    "edges_recovered": edges.recovered,
    "false_parents": edges.false_parents,
    "parent_attention_mean": float(np.mean(scores)) if scores else None,
    "parent_attention_min": min(scores, default=None),
  }


def reference_losses(baselines: Mapping) -> dict:
  """The mean loss of each baseline in nats, by name."""
  return {
    name if name == "entropy" else f"{name}_loss": float(jnp.mean(loss_N))
    for name, loss_N in baselines.items()
  }


def excess_over_exact(row: Mapping, baselines: Mapping, exact) -> dict:
  """The loss of the exact posterior, and the excess of the model over it.

  The exact posterior is computed on the first prompts of the test set only. Its
  loss on the whole test set is estimated by the mean loss of the edge posterior
  on the whole test set minus the mean gain over it on the first prompts.

  Args:
    row: the `measures` of a model.
    baselines: losses of the baselines on the whole test set, by name.
    exact: (losses, effective sample sizes) on the first prompts, or None.

  Returns:
    Losses in nats, standard errors and the harmonic mean of the effective
    sample sizes, by name. All losses are None if that mean is below
    `MIN_EFFECTIVE_SAMPLES`; all values are None without `exact`.
  """
  names = (
    "exact_posterior_loss",
    "exact_posterior_loss_standard_error",
    "excess_over_exact",
    "excess_over_exact_standard_error",
    "exact_posterior_effective_samples",
  )
  if exact is None:
    return dict.fromkeys(names)
  loss_M, effective_M = map(np.asarray, exact)
  edge_N = np.asarray(baselines["edge_posterior"])
  gain, error = mean_and_standard_error(edge_N[: len(loss_M)] - loss_M)
  effective = float(1 / np.mean(1 / effective_M))
  excess_error = math.hypot(error, row["excess_loss_standard_error"])
  values = (
    float(edge_N.mean()) - gain,
    error,
    row["excess_loss"] + gain,
    excess_error,
  )
  if not effective >= MIN_EFFECTIVE_SAMPLES or not np.isfinite(values).all():
    values = (None,) * len(values)
  reported = effective if math.isfinite(effective) else None
  return dict(zip(names, (*values, reported), strict=True))


def failure(loss_N, gradient_norm_N, before: int) -> dict | None:
  """The record of the first step that is not finite, or None.

  Args:
    loss_N: of N steps of a run.
    gradient_norm_N: of the same steps.
    before: the number of steps before them.
  """
  loss_N, norm_N = np.asarray(loss_N), np.asarray(gradient_norm_N)
  finite_N = np.isfinite(loss_N) & np.isfinite(norm_N)
  if finite_N.all():
    return None
  bad = int(np.argmin(finite_N))
  recent = slice(max(0, bad - 7), bad + 1)
  what = "gradient" if np.isfinite(loss_N[bad]) else "loss"
  return {
    "step": before + bad + 1,
    "what": f"the {what} is not finite",
    "last_losses": [f"{value:.6g}" for value in loss_N[recent]],
    "last_gradient_norms": [f"{value:.6g}" for value in norm_N[recent]],
  }
