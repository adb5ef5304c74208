"""Sampling of prompts from a causal graph and a prior (Task 2.4)."""

from typing import NamedTuple

import chex
import jax
from jax import core
from jax import numpy as jnp
import numpy as np

from icl_causal import checks
from icl_causal import graphs
from icl_causal import tokens
from icl_causal.graphs import Graph
from icl_causal.priors import IndependentRows
from icl_causal.priors import Prior

# Rows of the table per token from which on a prompt draws the rows that it
# visits. `experiments.benchmark --parts=parents` measures the gain.
_MANY_ROWS = 3
# Ends the message of a model with absolute positions.
OTHER_LENGTHS = (
  ": this model has parameters for each position; models.Relative has none and "
  "applies to prompts of any length"
)


class Prompt(NamedTuple):
  """One prompt, or a batch of prompts along a leading axis.

  Attributes:
    x_T: int32, the tokens s_1, .., s_T.
    y_S: the law of s_{T+1} given its parents; the soft target. With `every`,
      y_TxS, the law of the token after each position.
    kernel: (S+1,)*K + (S,), the kernel from which the tokens are drawn.
  """

  x_T: jax.Array
  y_S: jax.Array
  kernel: jax.Array


class LatentPrompt(NamedTuple):
  """A `Prompt` whose graph is drawn from a list.

  Attributes:
    x_T: as in `Prompt`.
    y_S: as in `Prompt`.
    kernel: as in `Prompt`.
    graph_index: int32, of the graph in the list.
  """

  x_T: jax.Array
  y_S: jax.Array
  kernel: jax.Array
  graph_index: jax.Array


class InterventionalPrompt(NamedTuple):
  """A `Prompt` in which some tokens are set: an intervention, do(s_i = a).

  Attributes:
    x_T: as in `Prompt`.
    y_S: as in `Prompt`.
    kernel: as in `Prompt`.
    is_set_T: whether the token is set: the intervention targets.
  """

  x_T: jax.Array
  y_S: jax.Array
  kernel: jax.Array
  is_set_T: jax.Array


def sample_prompt(
  key, graph: Graph, prior: Prior, S: int, every: bool = False
) -> Prompt:
  """Draws a kernel from the prior, then the tokens along the graph.

  s_i ~ kernel[s_{p_1(i)}, .., s_{p_K(i)}], with index S for an absent parent. A
  last position without parents is the query, uniform on the states. Covers both
  tasks of the paper, with one parent and with several. A kernel with many rows
  is drawn row by row, where the prompt visits it (`visits_rows`).

  Args:
    key: a typed key.
    graph: over T positions.
    prior: (key, S, K) -> kernel.
    S: number of states, at least 2.
    every: whether the prompt has a target at every position.
  """
  _check(graph, S)
  return _draw(key, graph, prior, S, graphs.is_query(graph), every)


def sample_interventional(
  key, graph: Graph, prior: Prior, S: int, share
) -> InterventionalPrompt:
  """Draws a prompt in which some tokens are set, independently of each other.

  A set token is uniform on the states and independent of all earlier tokens:
  the edges into it are cut. Its children follow the kernel from it. Given the
  set positions I, the law of the tokens is the truncated factorisation (Pearl,
  2009) with a uniform law of the set tokens, a stochastic intervention:

    P(x_T) = S^-|I| prod_{i not in I} kernel[s_{p_1(i)}, .., s_{p_K(i)}, s_i].

  The query is never set; it is uniform already. The target keeps its law.

  Args:
    key: a typed key.
    graph: over T positions.
    prior: (key, S, K) -> kernel.
    S: number of states, at least 2.
    share: the probability that a token is set; a number, or one for each
      position. Zeros and ones are a fixed mask.
  """
  _check(graph, S)
  T = graph.parents_TxK.shape[0]
  share_T = jnp.broadcast_to(jnp.asarray(share, float), (T,))
  checks.require(
    ((share_T >= 0) & (share_T <= 1)).all(),
    f"share must be from 0 to 1, got {share}",
  )
  set_key, prompt_key = jax.random.split(key)
  is_query_T = graphs.is_query(graph)
  is_set_T = jax.random.bernoulli(set_key, share_T) & ~is_query_T
  prompt = _draw(prompt_key, graph, prior, S, is_query_T | is_set_T)
  return InterventionalPrompt(*prompt, is_set_T)


def sample_latent(
  key, graphs_M: Graph, prior: Prior, S: int, every: bool = False
) -> LatentPrompt:
  """Draws a graph of a list uniformly, then a prompt on it.

  Args:
    key: a typed key.
    graphs_M: M graphs of one size along a leading axis, such as `graphs.lags`.
    prior: (key, S, K) -> kernel.
    S: number of states, at least 2.
    every: as for `sample_prompt`.

  Returns:
    The prompt, with the index of its graph.
  """
  chex.assert_rank(list(graphs_M), [3, 2])
  graph_key, prompt_key = jax.random.split(key)
  index = jax.random.randint(graph_key, (), 0, len(graphs_M.target_K))
  graph = jax.tree.map(lambda a: a[index], graphs_M)
  prompt = sample_prompt(prompt_key, graph, prior, S, every)
  return LatentPrompt(*prompt, index)


def sample_batch(
  key, graph: Graph, prior: Prior, S: int, batch_size: int, every: bool = False
) -> Prompt:
  """`batch_size` independent prompts on one graph, along a leading axis."""
  keys_B = jax.random.split(key, batch_size)
  return jax.vmap(lambda key: sample_prompt(key, graph, prior, S, every))(
    keys_B
  )


def sample_latent_batch(
  key,
  graphs_M: Graph,
  prior: Prior,
  S: int,
  batch_size: int,
  every: bool = False,
) -> LatentPrompt:
  """`batch_size` independent prompts, each on its own graph of the list."""
  keys_B = jax.random.split(key, batch_size)
  return jax.vmap(lambda key: sample_latent(key, graphs_M, prior, S, every))(
    keys_B
  )


def next_laws(x_T, graph: Graph, kernel) -> jax.Array:
  """The law of the token after each position, given its parents: T x S.

  The law of the query is uniform.

  Args:
    x_T: tokens.
    graph: over T positions.
    kernel: (S+1,)*K + (S,).
  """
  S = kernel.shape[-1]
  rows_T = tokens.table_row(x_T, graphs.next_parents(graph), S)
  y_TxS = kernel.reshape(-1, S)[rows_T]
  is_query_T = jnp.append(graphs.is_query(graph)[1:], False)
  return jnp.where(is_query_T[:, None], 1 / S, y_TxS)


def sample_interventional_batch(
  key, graph: Graph, prior: Prior, S: int, batch_size: int, share
) -> InterventionalPrompt:
  """`batch_size` independent prompts with set tokens, along a leading axis."""
  keys_B = jax.random.split(key, batch_size)
  return jax.vmap(
    lambda key: sample_interventional(key, graph, prior, S, share)
  )(keys_B)


def visits_rows(prior: Prior, S: int, T: int, K: int) -> bool:
  """Whether a prompt draws only the rows that it visits, not a whole kernel.

  So it is for independent rows if the kernel has three or more for each token.
  The law of prompts is the same.
  """
  return (
    isinstance(prior, IndependentRows)
    and prior.law_of_roots(K) != "stationary"
    and (S + 1) ** K >= _MANY_ROWS * T
  )


def resample(key, prompts: Prompt, batch_size: int, num_prompts=None) -> Prompt:
  """`batch_size` prompts drawn with replacement from a fixed batch.

  A training set of N prompts, over which a training runs again and again.

  Args:
    key: a typed key.
    prompts: along a leading axis.
    batch_size: of the result.
    num_prompts: only the first ones are drawn, by default all; may be traced.
  """
  N = len(prompts.x_T) if num_prompts is None else num_prompts
  drawn_B = jax.random.randint(key, (batch_size,), 0, N)
  return jax.tree.map(lambda a: a[drawn_B], prompts)


def check_tokens(x_T, S: int, T: int | None = None, hint: str = ""):
  """Raises ValueError unless tokens are integers from 0 to S - 1.

  With T, there must be T of them. The values of traced tokens are not checked.

  Args:
    x_T: of one prompt.
    S: number of states.
    T: number of tokens, or None for any.
    hint: ends the message about another number of tokens.
  """
  if T is not None and x_T.shape != (T,):
    raise ValueError(f"expected {T} tokens, got shape {x_T.shape}{hint}")
  if not jnp.issubdtype(x_T.dtype, jnp.integer):
    raise ValueError(f"tokens must be integers, got {x_T.dtype}")
  if not isinstance(x_T, core.Tracer):
    values = np.asarray(x_T)
    outside = values[(values < 0) | (values >= S)]
    if outside.size:
      raise ValueError(
        f"tokens must be from 0 to S - 1 = {S - 1}, got {outside[0]}"
      )


def _check(graph: Graph, S: int):
  chex.assert_rank(list(graph), [2, 1])
  if S < 2:
    raise ValueError(f"S must be at least 2, got {S}")


def _draw(
  key, graph: Graph, prior: Prior, S: int, is_uniform_T, every: bool = False
) -> Prompt:
  """A prompt whose tokens are uniform on the states where `is_uniform_T`."""
  T, K = graph.parents_TxK.shape
  if visits_rows(prior, S, T, K):
    assert isinstance(prior, IndependentRows)
    return _draw_visited(key, graph, prior, S, is_uniform_T, every)
  kernel_key, token_key = jax.random.split(key)
  kernel = prior(kernel_key, S, K)
  chex.assert_shape(kernel, (S + 1,) * K + (S,))
  x_T = tokens.along_graph(token_key, graph, kernel, is_uniform_T)
  if every:
    return Prompt(x_T, next_laws(x_T, graph, kernel), kernel)
  y_S = kernel.reshape(-1, S)[tokens.table_row(x_T, graph.target_K, S)]
  return Prompt(x_T, y_S, kernel)


def _draw_visited(
  key, graph: Graph, prior: IndependentRows, S: int, is_uniform_T, every: bool
) -> Prompt:
  """`_draw`, with the rows that the prompt visits drawn first.

  A prompt visits at most T + 1 rows. Each gets the next of T + 1 independent
  draws when the first token visits it, so prompts have the same law. The other
  rows of the kernel are drawn last: a compiled program that does not use the
  kernel does not draw them.
  """
  T, K = graph.parents_TxK.shape
  row_key, token_key, kernel_key = jax.random.split(key, 3)
  parents_NxK = jnp.concatenate(
    [graph.parents_TxK[:1], graphs.next_parents(graph)]
  )
  is_uniform_N = jnp.append(is_uniform_T, False)
  if prior.law_of_roots(K) == "uniform":
    is_uniform_N |= (parents_NxK < 0).all(axis=1)
  rows_NxS = prior.draw_rows(row_key, T + 1, S)
  x_N, laws_NxS, row_N = tokens.visiting(
    token_key, parents_NxK, rows_NxS, is_uniform_N
  )
  kernel = prior(kernel_key, S, K)
  rows_MxS = kernel.reshape(-1, S).at[row_N].set(laws_NxS, mode="drop")
  y = laws_NxS[1:] if every else laws_NxS[-1]
  return Prompt(x_N[:T], y, rows_MxS.reshape(kernel.shape))
