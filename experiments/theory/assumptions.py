"""The assumptions of the theory on the prior, for floored Dirichlet priors.

The theory assumes a lower bound gamma / S on all entries, non-degeneracy,
symmetry under relabelling of the states, and a constant mean. A floored
Dirichlet prior satisfies the bound, symmetry and constant mean by construction.
The exact form of non-degeneracy in the paper is not known to us. We test this
reading: the Frobenius norm of pi - 1 mu^T is at least gamma for every kernel.
No floored Dirichlet prior with gamma > 0 satisfies it, since kernels close to
rank one have positive density. The share of kernels that violate it depends on
S, alpha and gamma. At gamma = 1 every kernel is degenerate. A few seconds.
"""

import jax
from jax import numpy as jnp
import numpy as np

from experiments.theory.outcome import Outcome
from icl_causal import priors
from icl_causal.config import build
from icl_causal.config import fields

FIELDS = {
  # (S, alpha, gamma)
  "cases": fields.tuple_of(
    (fields.at_least(2), fields.ALPHA, fields.BELOW_ONE)
  ),
  "num_kernels": fields.at_least(2),
}


def check(config: build.Config) -> Outcome:
  """Bound, mean and distance from rank one, over kernels of each prior."""
  rows = []
  keys = jax.random.split(jax.random.key(config.seed), config.num_kernels)
  for S, alpha, gamma in config.cases:
    prior = priors.floored_dirichlet(alpha, gamma)
    kernels = jax.jit(jax.vmap(lambda key, prior=prior, S=S: prior(key, S, 1)))(
      keys
    )
    pi_NxSxS, norm_N = kernels[:, :S], distance(kernels)
    mean, error = _mean(pi_NxSxS)
    share, share_error = _mean(norm_N < gamma)
    rows.append(
      [
        *(S, alpha, gamma, len(keys), float(S * pi_NxSxS.min())),
        float(np.abs((mean - 1 / S) / error).max()),
        *(float(norm_N.mean()), float(norm_N.min())),
        *(float(share), float(share_error)),
      ]
    )
  header = ["S", "alpha", "gamma", "kernels", "least entry times S"]
  header += ["mean entry, largest |z|", "mean norm", "least norm"]
  return Outcome([*header, "share below gamma", "std. error"], rows, None)


def distance(kernels):
  """The Frobenius norm of pi - 1 mu^T of each kernel, N x (S+1) x S."""
  return jnp.linalg.norm(kernels[:, :-1] - kernels[:, -1:], axis=(1, 2))


def _mean(values):
  """Mean and standard error over the first axis."""
  values = np.asarray(values, np.float64)
  return values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5
