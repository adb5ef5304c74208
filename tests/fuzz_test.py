"""Random input is either refused with a message or gives valid results.

    python -m pytest tests/fuzz_test.py --hypothesis-profile=many

runs 10,000 cases of each kind.
"""

import contextlib
import functools
import json
import math
import numbers

from hypothesis import given
from hypothesis import strategies as st
import jax
from jax import numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from configs import single_parent
from configs import two_stage
from icl_causal import bayes
from icl_causal import graphs
from icl_causal import models
from icl_causal import priors
from icl_causal import sampling
from icl_causal.config import build
from icl_causal.config import record
from icl_causal.config.fields import ConfigError
from icl_causal.graphs import Graph
from icl_causal.runs import records as of_runs
from icl_causal.runs.files import RunError
from tests.support import records


@st.composite
def parent_lists(draw, sizes=(2, 3, 5, 8)):
  """(parents, target) of a valid graph."""
  T = draw(st.sampled_from(sizes))
  K = draw(st.integers(1, 2))
  rows = [
    draw(st.lists(st.integers(0, i - 1), max_size=min(i, K), unique=True))
    if i
    else []
    for i in range(T)
  ]
  target = draw(
    st.lists(st.integers(0, T - 1), min_size=1, max_size=K, unique=True)
  )
  return rows, target


@given(parent_lists())
def test_valid_graphs_are_accepted(lists):
  rows, target = lists
  graph = graphs.from_parents(rows, target)
  assert graphs.edges(graph) == [
    (child, parent) for child, row in enumerate(rows) for parent in sorted(row)
  ]
  adjacency = np.asarray(graphs.adjacency(graph))
  assert not np.triu(adjacency).any()
  assert adjacency.sum() == sum(map(len, rows))
  assert sorted(target) == [p for p in graph.target_K.tolist() if p >= 0]


ODD = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(-3, 9),
  st.floats(),
  st.text(max_size=2),
  st.lists(st.integers(-3, 9), max_size=3),
)


@given(st.one_of(ODD, st.lists(ODD, max_size=6)), ODD)
def test_invalid_graphs_are_refused(parents, target):
  with contextlib.suppress(ValueError):
    _check_graph(graphs.from_parents(parents, target))


def _check_graph(graph: Graph):
  T = graph.parents_TxK.shape[0]
  assert T >= 1
  assert (graph.parents_TxK < np.arange(T)[:, None]).all()
  assert (graph.parents_TxK >= -1).all()
  assert (graph.target_K < T).all()


@functools.cache
def _drawer(S: int, T: int, root_law: str, heads: int):
  """Draws a prompt and applies a model and a baseline to it.

  Compiled once for all graphs of a shape.
  """
  model = models.Disentangled(S, T, (heads, 1), noise=3.0)

  @jax.jit
  def draw(key, graph, alpha, gamma):
    prior = priors.floored_dirichlet(alpha, gamma, root_law)
    prompt = sampling.sample_prompt(key, graph, prior, S)
    params = model.init(key, prompt.x_T)
    f_S, out = model.apply(params, prompt.x_T)
    posterior_S = bayes.edge_posterior(prompt.x_T, graph, alpha, S)
    return prompt, f_S, out["attention_1"], posterior_S

  return draw


def _check_draw(key, graph: Graph, alpha, gamma, S: int, root_law: str):
  """Laws are normalized, nothing is nan, attention is causal."""
  T, K = graph.parents_TxK.shape
  draw = _drawer(S, T, root_law, K)
  prompt, f_S, attention_HxTxT, posterior_S = jax.device_get(
    draw(key, graph, jnp.float32(alpha), jnp.float32(gamma))
  )
  assert ((prompt.x_T >= 0) & (prompt.x_T < S)).all()
  rows = prompt.kernel.reshape(-1, S)
  for law in (rows, prompt.y_S, f_S, posterior_S, attention_HxTxT):
    assert (law >= 0).all()
    np.testing.assert_allclose(law.sum(-1), 1, atol=1e-5)
  assert (rows.min(axis=1)[:-1] >= gamma / S * (1 - 1e-5) - 1e-30).all()
  assert not np.triu(attention_HxTxT, 1).any()
  read = [prompt.x_T[p] if p >= 0 else S for p in graph.target_K]
  np.testing.assert_array_equal(prompt.y_S, prompt.kernel[tuple(read)])


ALPHA = st.floats(math.log(1e-6), math.log(1e6)).map(math.exp)
GAMMA = st.floats(0, 1, width=32)
LAWS = ("stationary", "uniform", "dirichlet")


@given(
  parent_lists(sizes=(2, 5)),
  st.integers(0, 2**32 - 1),
  ALPHA,
  GAMMA,
  st.sampled_from(LAWS),
)
def test_prompts_of_any_graph_and_prior(lists, seed, alpha, gamma, law):
  S = 2 if len(lists[0]) == 2 else 3  # each pair of sizes is compiled
  graph = graphs.from_parents(*lists)
  if graph.parents_TxK.shape[1] > 1 and law == "stationary":
    law = "uniform"
  _check_draw(jax.random.key(seed), graph, alpha, gamma, S, law)


NUMBERS = (
  *(0, 1, 2, 3, 5, 7, 8, 64, 2**32 - 1, 2**32, -1, -7),
  *(0.0, 0.1, 0.5, 1.0, 1.5, 1e-30, 1e-6, 1e6, 1e30, -0.5),
  *(math.nan, math.inf, -math.inf),
)
ODDITIES = (None, True, False, "", "chain", "reduced", "sgd", "adamw", (), (1,))
ODDITIES += ((1, 1), (2, 1), (1, 0), (-1, 0, 0), (-1, -1), (-1, 1), ("a",), {})
ODDITIES += ((-1, (0, 1), -1), ((), 0, (0, 1), -1), (0.5, 1), [1, 2], "uniform")
ODDITIES += ("dirichlet", "stationary", "floored_dirichlet", "algorithm_1")
# Valid sizes that would take too long.
_LARGE = {"graph.T", "prior.S", "model.heads", "eval.batch_size"}
BASES = [
  (single_parent, "chain"),
  (single_parent, "random"),
  (single_parent, "manual"),
  (two_stage, "forest"),
]
FIELDS = sorted(
  {
    name
    for module, variant in BASES
    for name in record.flatten(module.get_config(variant).to_dict())
  }
  | {"prior.gamma", "graph.seeds", "model"}
)


@given(
  st.sampled_from(BASES),
  st.dictionaries(
    st.sampled_from(FIELDS),
    st.sampled_from(NUMBERS + ODDITIES),
    min_size=1,
    max_size=3,
  ),
  st.integers(0, 2**32 - 1),
)
def test_configs(base, changes, seed):
  module, variant = base
  config = module.get_config(variant)
  if "T" in config.graph:
    config.graph.T = 5
  config.prior.S = 3
  for name, value in changes.items():
    large = isinstance(value, int) and value > 8
    if name in _LARGE and large:
      return
    group, _, field = name.rpartition(".")
    if not isinstance(config.get(group, {}), ConfigDict) and group:
      return  # an earlier change replaced the whole group
    with config.unlocked(), config.ignore_type():
      (config[group] if group else config)[field] = value
  try:
    build.check(config)
    graph = build.graph(config)
    build.model(config, graph)
  except ConfigError as error:
    message = str(error)
  else:
    message = None
  if message is not None:
    assert message
    assert "\n" not in message
    return
  _check_graph(graph)
  law = config.prior.root_law
  gamma = config.prior.get("gamma", 0.0)
  key = jax.random.key(seed)
  _check_draw(key, graph, config.prior.alpha, gamma, config.prior.S, law)
  model = config.model.to_dict()
  T = graph.parents_TxK.shape[0]
  shapes = _shapes(config.prior.S, T, **model)
  assert all(leaf.size for leaf in jax.tree.leaves(shapes))


JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=9), inner, max_size=3)
  ),
  max_leaves=6,
)


@given(st.data())
def test_records(data):
  """A damaged line is refused in one line, or its fields are finite numbers."""
  fields, valid = data.draw(
    st.sampled_from(
      [
        (of_runs.METRICS, records.row(1)),
        (of_runs.RESULT, records.result()),
        (of_runs.FAILURE, {"step": 1, "what": "the loss is not finite"}),
      ]
    )
  )
  names = st.sampled_from([*fields, "checksum", "other"])
  changes = data.draw(st.dictionaries(names, JSON, max_size=2))
  value = valid | changes
  for name in data.draw(st.lists(names, max_size=1)):
    value.pop(name, None)
  line = bytearray(json.dumps(value).encode())
  at = data.draw(st.integers(0, len(line)))
  line[at : at + data.draw(st.integers(0, 9))] = data.draw(
    st.just(b"") | st.binary(max_size=3)
  )
  try:
    found = of_runs.parse(bytes(line), fields, "a line")
  except RunError as error:
    message = str(error)
  else:
    message = None
  if message is not None:
    assert "\n" not in message
    return
  for name, types in fields.items():
    assert isinstance(found[name], types)
    assert not isinstance(found[name], bool)
    if isinstance(found[name], numbers.Number):
      assert math.isfinite(found[name])


@functools.cache
def _shapes(S: int, T: int, name: str, **arguments):
  """The shapes of the parameters of a model."""
  make = {"disentangled": models.Disentangled, "reduced": models.Reduced}[name]
  return jax.eval_shape(
    lambda key: make(S, T, **arguments).init(key, jnp.zeros(T, jnp.int32)),
    jax.random.key(0),
  )
