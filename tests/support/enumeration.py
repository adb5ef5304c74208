"""The law of a prompt by enumeration of all sequences (Task 2.4)."""

import itertools

import numpy as np
from scipy import special


def row(kernel, tokens, parents):
  """The law of a token given its parents, a row of the kernel."""
  S = kernel.shape[-1]
  return kernel[tuple(S if p < 0 else tokens[p] for p in parents)]


def sequences(graph, kernel):
  """Yields (tokens, probability given the kernel) for all S**T sequences."""
  kernel = np.asarray(kernel, np.float64)
  parents_TxK = np.asarray(graph.parents_TxK)
  S = kernel.shape[-1]
  last = len(parents_TxK) - 1
  for tokens in itertools.product(range(S), repeat=last + 1):
    probability = 1.0
    for i, parents in enumerate(parents_TxK):
      if i == last and max(parents) < 0:
        probability /= S
      else:
        probability *= row(kernel, tokens, parents)[tokens[i]]
    yield np.array(tokens), probability


def pair_laws(graph, kernel):
  """P(s_i = s, s_j = t | kernel), T x T x S x S, summed over all sequences."""
  T, S = len(graph.parents_TxK), kernel.shape[-1]
  P = np.zeros((T, T, S, S))
  positions = np.arange(T)
  for tokens, probability in sequences(graph, kernel):
    P[positions[:, None], positions[None], tokens[:, None], tokens[None]] += (
      probability
    )
  return P


def random_kernel(seed, S, K):
  """A kernel with random rows, all different."""
  table = np.random.default_rng(seed).gamma(1.0, size=(S + 1,) * K + (S,))
  return table / table.sum(-1, keepdims=True)


def prompts(S, T):
  """All S**T prompts."""
  return np.array([*itertools.product(range(S), repeat=T)], np.int32)


def likelihood(tokens, graph, kernel):
  """P(tokens | graph, kernel), of a prompt or its first tokens.

  With a token more than the graph has, the last one is the target.
  """
  S, T = kernel.shape[-1], len(graph.parents_TxK)
  probability = 1.0
  for i, token in enumerate(tokens):
    parents = graph.target_K if i == T else graph.parents_TxK[i]
    if i == T - 1 and max(parents) < 0:
      probability /= S
    else:
      probability *= row(kernel, tokens, np.asarray(parents))[token]
  return probability


def marginal(tokens, graph, alpha, S, root_law):
  """P(tokens | graph) for Dirichlet(alpha) rows: a product over rows.

  The tokens of a row with counts n_s have the Dirichlet-multinomial probability
  G(S alpha) / G(S alpha + n) prod_s G(alpha + n_s) / G(alpha).
  """
  T, counts, uniform = len(graph.parents_TxK), {}, 0
  for i, token in enumerate(tokens):
    parents = np.asarray(graph.target_K if i == T else graph.parents_TxK[i])
    is_root = max(parents) < 0
    if is_root and (i == T - 1 or root_law == "uniform"):
      uniform += 1
    else:
      states = tuple(S if p < 0 else tokens[p] for p in parents)
      counts.setdefault(states, np.zeros(S))[token] += 1
  logs = [
    special.gammaln(S * alpha)
    - special.gammaln(S * alpha + n_S.sum())
    + (special.gammaln(alpha + n_S) - special.gammaln(alpha)).sum()
    for n_S in counts.values()
  ]
  return np.exp(sum(logs)) / S**uniform
