"""The loss, its standard error, and the metrics of a run."""

from collections.abc import Callable, Mapping
import math
from typing import NamedTuple

import chex
import jax
from jax import numpy as jnp
from jax.scipy import special
import numpy as np

from icl_causal import bayes
from icl_causal import priors
from icl_causal import running
from icl_causal.analysis.recovery import Recovery
from icl_causal.graphs import Graph
from icl_causal.mixtures import mixture_weights as mixture_weights

# The loss of the exact posterior is reported only from this effective sample
# size on, and only if the bias that is subtracted is at most MAX_BIAS nats.
MIN_EFFECTIVE_SAMPLES = 8.0
MAX_BIAS = 0.002


def loss(f_S, y_S, epsilon=0.0) -> jax.Array:
  """-sum_s y_s log(f_s + epsilon), in nats (section 2 of the paper).

  Args:
    f_S: the predicted law; or f_TxS at every position, whose losses are
      averaged.
    y_S: the soft target pi(. | s_T), or y_TxS.
    epsilon: keeps the logarithm finite for models whose f_S may be 0.
  """
  chex.assert_rank([f_S, y_S], {1, 2})
  chex.assert_equal_shape([f_S, y_S])
  if f_S.ndim == 2:
    return jax.vmap(loss, (0, 0, None))(f_S, y_S, epsilon).mean()
  return -special.xlogy(y_S, f_S + epsilon).sum()


def predictor_laws(
  x_BxT,
  graph: Graph,
  alpha,
  S: int,
  root_law: priors.RootLaw = "uniform",
  every: bool = False,
) -> dict:
  """The laws of the baselines in `bayes` on each prompt, by name.

  Args:
    x_BxT: the tokens of the prompts.
    graph: of the prompts; or the graph of each prompt along a leading axis.
    alpha: concentration of the prior.
    S: number of states.
    root_law: of the prior; used with `every` only.
    every: whether to return the laws at every position, those in `running`.

  Returns:
    Arrays B x S, or B x T x S, under `uniform`, `unigram`, `edge_posterior`.
  """
  T = x_BxT.shape[1]

  def laws(x_T, graph):
    if every:
      return {
        "uniform": running.uniform(T, S),
        "unigram": running.unigram(x_T, S),
        "edge_posterior": running.edge_posterior(
          x_T, graph, alpha, S, root_law
        ),
      }
    return {
      "uniform": bayes.uniform(S),
      "unigram": bayes.unigram(x_T, S),
      "edge_posterior": bayes.edge_posterior(x_T, graph, alpha, S),
    }

  graph_axis = 0 if graph.parents_TxK.ndim == 3 else None
  found = jax.vmap(laws, (0, graph_axis))(x_BxT, graph)
  return {
    name: found[name] for name in ("uniform", "unigram", "edge_posterior")
  }


def predictor_losses(
  x_BxT, y_BxS, graph: Graph, alpha, root_law: priors.RootLaw = "uniform"
) -> dict:
  """The loss in nats of the baselines in `bayes` on each prompt, by name.

  Args:
    x_BxT: the tokens of the prompts.
    y_BxS: the targets of the prompts; or y_BxTxS, at every position, over which
      the losses are averaged.
    graph: as for `predictor_laws`.
    alpha: concentration of the prior.
    root_law: of the prior.

  Returns:
    Arrays of shape B under `uniform`, `unigram`, `edge_posterior`, `entropy`.
  """
  every, S = y_BxS.ndim == 3, y_BxS.shape[-1]
  laws = predictor_laws(x_BxT, graph, alpha, S, root_law, every)
  losses = {name: jax.vmap(loss)(law, y_BxS) for name, law in laws.items()}
  entropy = bayes.entropy(y_BxS)
  return losses | {"entropy": entropy.mean(axis=1) if every else entropy}


class ExactLosses(NamedTuple):
  """The exact posterior on M prompts; losses in nats.

  Attributes:
    loss_M: of the estimate from all samples.
    half_loss_M: the mean over the two halves of the samples.
    effective_M: the effective sample sizes.
    law_MxS: the estimate from all samples, at the last position; None if it is
      not kept.
  """

  loss_M: jax.Array
  half_loss_M: jax.Array
  effective_M: jax.Array
  law_MxS: jax.Array | None = None


def exact_posterior_losses(
  posterior: Callable[[jax.Array, jax.Array], bayes.Posterior],
  key_M,
  x_MxT,
  y_MxS,
) -> ExactLosses:
  """The exact posterior and its losses on each prompt.

  Args:
    posterior: maps (key, x_T) to an estimate, such as
      `bayes.dirichlet_posterior` of a graph.
    key_M: a typed key for each prompt.
    x_MxT: the tokens of the prompts.
    y_MxS: the targets of the prompts; or y_MxTxS, with estimates at every
      position.
  """

  def one(prompt):
    key, x_T, y_S = prompt
    estimate = posterior(key, x_T)
    half_loss_2 = jax.vmap(loss, (0, None))(estimate.halves_2xS, y_S)
    return ExactLosses(
      loss(estimate.f_S, y_S),
      half_loss_2.mean(),
      estimate.effective,
      jnp.atleast_2d(estimate.f_S)[-1],
    )

  return jax.lax.map(one, (key_M, x_MxT, y_MxS))


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
    baselines: losses of the baselines on the test set, by name. Without
      `edge_posterior`, the excess over it is None.
  """
  loss, error = mean_and_standard_error(loss_N)
  excess = excess_error = None
  if "edge_posterior" in baselines:
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
  """The mean loss of each baseline in nats, by name.

  `edge_posterior_loss` is None if it is no baseline of the prior.
  """
  return {"edge_posterior_loss": None} | {
    name if name == "entropy" else f"{name}_loss": float(jnp.mean(loss_N))
    for name, loss_N in baselines.items()
  }


def excess_over_exact(
  loss_N, baselines: Mapping, exact: ExactLosses | None
) -> dict:
  """The loss of the exact posterior, and the excess of the model over it.

  The exact posterior is computed on the first prompts of the test set only, so
  the edge posterior serves as a control variate: the loss on the whole test set
  is the mean loss of the edge posterior minus the mean gain over it on the
  first prompts. The loss of an estimate of the exact posterior is biased
  upwards. The bias, estimated from the halves of the samples, is subtracted.

  Args:
    loss_N: of the model on the test set.
    baselines: losses of the baselines on the test set, by name.
    exact: on the first prompts, or None.

  Returns:
    By name: losses in nats and their standard errors over prompts, the bias
    that is subtracted, the gain over the edge posterior, and the harmonic mean
    of the effective sample sizes. All losses are None if that mean is below
    `MIN_EFFECTIVE_SAMPLES`, or if the bias may exceed `MAX_BIAS`, at two
    standard errors. All values are None without `exact`.
  """
  losses = ("exact_posterior_loss", "exact_gain", "excess_over_exact")
  values: dict[str, float | None] = dict.fromkeys(
    [name + end for name in losses for end in ("", "_standard_error")]
  )
  values["exact_posterior_bias"] = None
  values["exact_posterior_effective_samples"] = None
  if exact is None:
    return values
  loss_M, half_loss_M, effective_M = map(np.asarray, exact[:3])
  effective = _harmonic_mean(effective_M)
  if math.isfinite(effective):
    values["exact_posterior_effective_samples"] = effective
  bias_M = half_loss_M - loss_M
  edge_N = np.asarray(edge_losses(baselines))
  gain_M = edge_N[: len(loss_M)] - (loss_M - bias_M)
  exact_loss = _mean_with_correction(edge_N, -gain_M)
  gain = mean_and_standard_error(gain_M)
  excess = _mean_with_correction(np.asarray(loss_N) - edge_N, gain_M)
  is_finite = np.isfinite([*exact_loss, *gain, *excess]).all()
  if is_finite and (bias := small_bias(bias_M, effective_M)) is not None:
    values["exact_posterior_bias"] = bias
    for name, (mean, error) in zip(
      losses, (exact_loss, gain, excess), strict=True
    ):
      values |= {name: mean, f"{name}_standard_error": error}
  return values


def small_bias(biases, effective_samples) -> float | None:
  """The bias of the loss of the exact posterior, or None if it is too large.

  Args:
    biases: independent estimates, in nats.
    effective_samples: of the prompts.

  Returns:
    The mean of the biases; None if it may exceed `MAX_BIAS`, at two standard
    errors, or if the harmonic mean of the effective sample sizes is below
    `MIN_EFFECTIVE_SAMPLES`.
  """
  bias, error = mean_and_standard_error(biases)
  effective = _harmonic_mean(effective_samples)
  if effective >= MIN_EFFECTIVE_SAMPLES and bias + 2 * error <= MAX_BIAS:
    return bias
  return None


def edge_losses(baselines: Mapping):
  """The losses of the edge posterior, also if it is no baseline of the prior.

  Args:
    baselines: with `edge_posterior`, or with `dirichlet_edge_posterior` if the
      prior is another one.
  """
  if "edge_posterior" in baselines:
    return baselines["edge_posterior"]
  return baselines["dirichlet_edge_posterior"]


def _harmonic_mean(values) -> float:
  with np.errstate(divide="ignore"):  # infinite, if all values are
    return float(1 / np.mean(1 / np.asarray(values)))


def _mean_with_correction(values_N, corrections_M) -> tuple[float, float]:
  """mean(values) + mean(corrections), and its standard error.

  The corrections belong to the first M of N independent prompts.
  """
  N, M = len(values_N), len(corrections_M)
  first_M = values_N[:M] / N + corrections_M / M
  variance = M * np.var(first_M, ddof=1)
  if N > M:
    variance += (N - M) * np.var(values_N / N, ddof=1)
  return float(values_N.mean() + corrections_M.mean()), float(variance**0.5)


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
  what = "gradient" if np.isfinite(loss_N[bad]) else "loss"
  return {
    "step": before + bad + 1,
    "what": f"the {what} is not finite",
    **last_steps(loss_N[: bad + 1], norm_N[: bad + 1]),
  }


def last_steps(loss_N, gradient_norm_N) -> dict:
  """The metrics of the last 8 of N steps as text, since they may be NaN."""
  losses, norms = (
    [f"{value:.6g}" for value in np.asarray(values_N)[-8:]]
    for values_N in (loss_N, gradient_norm_N)
  )
  return {"last_losses": losses, "last_gradient_norms": norms}
