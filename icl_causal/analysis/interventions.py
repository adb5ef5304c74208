"""Interventions: what prompts with set tokens say about the edges.

In a prompt of `sampling.sample_interventional` each token is set, that is,
uniform and independent of its parent, with probability q, the share. With the
order of the positions known, prompts without set tokens identify every edge
already, so set tokens can change only the number of prompts that are needed.

A set token says nothing about its own parent. A set candidate does: it is
independent of the other candidates. Averaged over which tokens are set, the
tokens of a prompt have the law of a prompt without set tokens and the kernel

  (1 - q) pi + q / S,

so laws of pairs are exact given the kernel, without a sum over the 2**T sets.
Everything in this module is for single parents and conditional on the kernel.
Ours.
"""

import chex
import jax
from jax import numpy as jnp

from icl_causal.analysis import information
from icl_causal.analysis import likelihood
from icl_causal.graphs import Graph


def drop_set_rows(score_TxT, is_set_T) -> jax.Array:
  """A score of one prompt, with zeros in the rows of set tokens.

  The law of a set token does not depend on its parent, so the likelihood of a
  prompt has no factor for it. With `likelihood.likelihood_score` this is the
  log likelihood of the parents given which tokens are set.

  Args:
    score_TxT: additive over prompts.
    is_set_T: whether the token is set.
  """
  chex.assert_rank([score_TxT, is_set_T], [2, 1])
  return jnp.where(is_set_T[:, None], 0, score_TxT)


def mixed_kernel(kernel, share, root_share=None) -> jax.Array:
  """(1 - q) pi + q / S: the kernel averaged over whether a token is set.

  If the tokens are set independently of each other, this is the kernel of the
  tokens for someone who does not know which ones are set.

  Args:
    kernel: (S+1, S).
    share: q, the probability that a token is set.
    root_share: the same for a token without a parent; by default `share`.
  """
  S = kernel.shape[-1]
  chex.assert_shape(kernel, (S + 1, S))
  root_share = share if root_share is None else root_share
  share_Mx1 = jnp.where(jnp.arange(S + 1)[:, None] == S, root_share, share)
  return (1 - share_Mx1) * kernel + share_Mx1 / S


def pair_laws(graph: Graph, kernel, share, root_share=None) -> jax.Array:
  """`information.pair_laws`, averaged over which tokens are set.

  Args:
    graph: with single parents.
    kernel: (S+1, S).
    share: q, the probability that a token is set.
    root_share: the same for a token without a parent; by default `share`.

  Returns:
    P_TxTxSxS, as there.
  """
  tokens = mixed_kernel(kernel, share, root_share)
  return information.pair_laws(graph, tokens)


def affinity(P_TxTxSxS, kernel, share) -> jax.Array:
  """`information.bhattacharyya` of prompts with set tokens, known which.

    B_jk = q + (1 - q) sum_ab P(s_j = a, s_k = b) sum_c sqrt(pi(c|a) pi(c|b)).

  Averaged over kernels, it bounds the error of the best possible method
  (`bounds.most_error`). For share 0 it is `information.bhattacharyya`.

  Args:
    P_TxTxSxS: from `pair_laws`.
    kernel: (S+1, S).
    share: q, the probability that the child of j or k is set.

  Returns:
    B_TxT, as there.
  """
  S = kernel.shape[-1]
  chex.assert_shape([P_TxTxSxS, kernel], [(None, None, S, S), (S + 1, S)])
  root_SxS = jnp.sqrt(kernel[:S])
  affinity_SxS = root_SxS @ root_SxS.T
  return share + (1 - share) * _expected(P_TxTxSxS, affinity_SxS)


def margin(P_TxTxSxS, kernel, share) -> jax.Array:
  """How far the log likelihood of the parent is above that of a rival.

    m_jk = (1 - q) sum_ab P(s_j = a, s_k = b) KL(pi(. | a), pi(. | b))

  for the parent j, the rival k and one prompt, with known kernel and set
  tokens. It does not depend on the child.

  Args:
    P_TxTxSxS: from `pair_laws`.
    kernel: (S+1, S); in logarithms at least `likelihood.FLOOR`.
    share: q, the probability that the child is set.

  Returns:
    m_TxT in nats, at least 0. The row of the query has no meaning.
  """
  S = kernel.shape[-1]
  chex.assert_shape([P_TxTxSxS, kernel], [(None, None, S, S), (S + 1, S)])
  log_SxS = jnp.log(jnp.maximum(kernel[:S], likelihood.FLOOR))
  same_S = (kernel[:S] * log_SxS).sum(axis=1)
  divergence_SxS = same_S[:, None] - kernel[:S] @ log_SxS.T
  return (1 - share) * _expected(P_TxTxSxS, divergence_SxS)


def _expected(P_TxTxSxS, value_SxS):
  """E value(s_j, s_k) for each pair (j, k)."""
  return jnp.einsum("jkab,ab->jk", P_TxTxSxS, value_SxS)
