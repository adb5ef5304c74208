"""The law of a prompt by enumeration of all sequences (Task 2.4)."""

import itertools

import numpy as np


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
