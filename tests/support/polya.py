"""Prompts of independent Dirichlet(alpha) rows: closed forms, in numpy.

With the rows integrated out, the probability of a prompt is a product over the
rows of the kernel of Dirichlet-multinomial probabilities,

    Gamma(S alpha) / Gamma(S alpha + n) prod_s Gamma(alpha + n_s) / Gamma(alpha)

where n_s counts the tokens s whose parents select the row. The row of a root is
such a row too under the root law `dirichlet`, and uniform under `uniform`. The
query is uniform.
"""

import collections

import numpy as np
from scipy import special


def log_probability(x_T, graph, alpha, S, root_law):
  """The log-probability of a prompt given its graph."""
  parents_TxK = np.asarray(graph.parents_TxK)
  return _log_probability(
    x_T, parents_TxK, alpha, S, root_law, _query(parents_TxK)
  )


def conditional_laws(x_T, graph, alpha, S, root_law):
  """The law of each next token given those before it, T x S."""
  parents_TxK = np.asarray(graph.parents_TxK)
  query = _query(parents_TxK)
  next_TxK = np.concatenate([parents_TxK, np.asarray(graph.target_K)[None]])
  laws_TxS = np.zeros((len(x_T), S))
  for t in range(len(x_T)):
    for s in range(S):
      tokens = [*x_T[: t + 1], s]
      laws_TxS[t, s] = _log_probability(
        tokens, next_TxK, alpha, S, root_law, query
      )
    laws_TxS[t] = special.softmax(laws_TxS[t])
  return laws_TxS


def _query(parents_TxK):
  """The position of the query, or None."""
  return len(parents_TxK) - 1 if parents_TxK[-1].max() < 0 else None


def _log_probability(tokens, parents_TxK, alpha, S, root_law, query):
  total, counts = 0.0, collections.defaultdict(lambda: np.zeros(S))
  for i, token in enumerate(tokens):
    row = tuple(None if p < 0 else int(tokens[p]) for p in parents_TxK[i])
    is_root = set(row) == {None}
    if i == query or (is_root and root_law == "uniform"):
      total -= np.log(S)
    else:
      counts[row][token] += 1
  return total + sum(
    special.gammaln(S * alpha)
    - special.gammaln(S * alpha + n_S.sum())
    + (special.gammaln(alpha + n_S) - special.gammaln(alpha)).sum()
    for n_S in counts.values()
  )
