"""Reference versions of the task and the model: plain, dense, and slow.

Tests and the benchmark compare the library with them. Every position of every
layer is computed from concatenated one-hots. Kernels come from
`jax.random.dirichlet`, the stationary law from an SVD, and each token from
`jax.random.choice`.
"""

import jax
from jax import numpy as jnp


def disentangled(params, x_T, S: int):
  """The disentangled transformer: (f_S, the attention maps H x T x T)."""
  T = len(x_T)
  h_TxD = jnp.concatenate([jax.nn.one_hot(x_T, S), jnp.eye(T)], axis=1)
  mask_TxT = jnp.tril(jnp.ones((T, T), bool))
  maps = []
  for layer in range(1, len(params)):
    A_HxDxD = params[f"A{layer}"]
    scores = jnp.einsum("id,hde,je->hij", h_TxD, A_HxDxD, h_TxD)
    att = jax.nn.softmax(jnp.where(mask_TxT[None], scores, -jnp.inf))
    heads = jnp.einsum("hij,jd->hid", att, h_TxD)
    h_TxD = jnp.concatenate([h_TxD, *heads], axis=1)
    maps.append(att)
  return jax.nn.softmax(h_TxD[-1] @ params["W"]), maps


def sample_prompt(key, parents_T, alpha, S: int):
  """Task 2.4 for a single parent: (x_T, y_S)."""
  kernel_key, token_key = jax.random.split(key)
  pi_SxS = jax.random.dirichlet(kernel_key, jnp.full(S, alpha), (S,))
  _, _, v_SxS = jnp.linalg.svd(pi_SxS.T - jnp.eye(S))
  mu_S = jnp.abs(v_SxS[-1]) / jnp.abs(v_SxS[-1]).sum()
  last = len(parents_T) - 1

  def draw(i, x_T):
    law_S = jnp.where(parents_T[i] < 0, mu_S, pi_SxS[x_T[parents_T[i]]])
    law_S = jnp.where(i == last, 1 / S, law_S)
    token = jax.random.choice(jax.random.fold_in(token_key, i), S, p=law_S)
    return x_T.at[i].set(token)

  x_T = jax.lax.fori_loop(0, last + 1, draw, jnp.zeros(last + 1, jnp.int32))
  return x_T, pi_SxS[x_T[last]]
