"""The table of parts, and parts that a user registers."""

import inspect
from typing import Any

from flax import linen as nn
import jax
from jax import numpy as jnp
import numpy as np
import optax
import pytest

from configs import single_parent
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from icl_causal import blocks
from icl_causal import config as configs
from icl_causal import graphs
from icl_causal import models
from icl_causal import runs
from icl_causal.config import ConfigError
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.config import parts
from icl_causal.report import run as report

# A valid value of each field, and the arguments that every part of a kind gets.
VALUES: dict[str, Any] = {
  "T": 8,
  "seed": 2**32 - 1,
  "root_probability": 0.5,
  "k": 2,
  "parents": (-1, 0, -1),
  "target": (),
  "lags": (1, 3),
  "num_examples": 2,
  "length": 3,
  "gamma": 0.1,
  "num_kernels": 4,
  "kernel": ((0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.25, 0.25, 0.5)),
  "heads": (1, 1),
  "noise": 0.1,
  "period": 2,
  "reach": 4,
  "read_out": "mixture",
  "strict": True,
  "beta0": 0.5,
  "width": 16,
  "mlp": "residual",
  "norm": True,
  "scaled": True,
  "orthonormal": True,
  "sinks": (8.0, 2.0),
  "scaled_biases": True,
  "schedule": "cosine",
  "weight_decay": 0.1,
  "b2": 0.9,
  "max_norm": 1.0,
  "phase_steps": 2,
  "joint_steps": 2,
  "max_step": 0.5,
  "second_learning_rate": 1.0,
  "first_steps": 2,
  "stop": 0.9,
  "rescale_rows": True,
}
GIVEN = {
  "graph": {},
  "prior": {"alpha": 0.1, "root_law": "stationary"},
  "model": {"S": 3, "T": 8},
  "optimizer": {
    "model": models.Disentangled(3, 8, (1, 1)),
    "steps": 16,
    "learning_rate": 0.1,
  },
}
BUILT_IN = [
  (kind, name) for kind in parts.KINDS for name in parts.KINDS[kind].table
]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_make_takes_exactly_the_fields(kind, name):
  part = parts.KINDS[kind].table[name]
  for field, allowed in part.fields.items():
    assert fields.holds(allowed, VALUES[field]), field
  arguments = {field: VALUES[field] for field in part.fields}
  part.make(**GIVEN[kind], **arguments)
  with pytest.raises(TypeError):
    part.make(**GIVEN[kind], **arguments, banana=1)
  signature = inspect.signature(part.make).parameters
  for field in arguments:
    if (
      field in signature
      and signature[field].default is not inspect.Parameter.empty
    ):
      continue  # a default of the library, which a config never uses
    others = {n: v for n, v in arguments.items() if n != field}
    with pytest.raises(TypeError):
      part.make(**GIVEN[kind], **others)


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_chosen_reads_the_fields_of_the_part(kind, name):
  part = parts.KINDS[kind].table[name]
  arguments = {field: VALUES[field] for field in part.fields}
  group, choice = parts.KINDS[kind].group, parts.KINDS[kind].choice
  config = {group: {choice: name, **arguments, "of_another_part": 1}}
  assert parts.chosen(config, kind) == (part, arguments)


@pytest.mark.parametrize(
  ("name", "more", "moves"),
  [
    # Phases of 2 steps, with 1 joint step after each.
    ("staged_heads", {"max_step": 0.5}, [False, False, True]),
    # 1 joint step, then a phase of 2 steps.
    ("first_layer_phase", {}, [True, False, False, True]),
  ],
)
def test_phases_have_the_numbers_of_steps_of_the_config(name, more, moves):
  """Whether W moves in each step, with a gradient of ones."""
  model = models.Disentangled(2, 3, (1, 1))
  optimizer = parts.OPTIMIZERS[name].make(
    model=model,
    steps=8,
    learning_rate=0.1,
    schedule="constant",
    weight_decay=0.0,
    b2=0.999,
    phase_steps=2,
    joint_steps=1,
    **more,
  )
  params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(3, int))
  params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params["params"])
  state, step = optimizer.init(params), jax.jit(optimizer.update)
  for moves_now in moves:
    updates, state = step(params, state, params)
    assert bool((updates["W"] != 0).any()) == moves_now


@pytest.mark.parametrize("kind", list(parts.KINDS))
def test_fields_of_a_part_differ_from_the_fields_of_all_parts(kind):
  table, _, choice, common = parts.KINDS[kind]
  for part in table.values():
    assert not {choice, *common} & set(part.fields)


def _register(monkeypatch, kind, name, part):
  """`config.register`, undone at the end of the test."""
  monkeypatch.setitem(parts.KINDS[kind].table, name, None)
  configs.register(kind, name, part)


def _star(T, hub):
  """Every token after the hub has the hub as its parent."""
  if hub >= T - 1:
    raise ValueError(f"the hub must be below {T - 1}, got {hub}")
  return graphs.from_parents([-1] * (hub + 1) + [hub] * (T - hub - 2) + [-1])


def _copying(alpha, root_law, shift):
  """Roots are uniform; a child is its parent's state plus `shift`."""
  del alpha, root_law

  def prior(key, S, K):
    del key, K
    children = jnp.roll(jnp.eye(S), shift, axis=1)
    return jnp.concatenate([children, jnp.full((1, S), 1 / S)])

  return prior


class _Bigram(nn.Module):
  """f = softmax(scale * W[x_T]): no attention but to the last position."""

  S: int
  T: int
  scale: float
  read_out = "softmax"
  first_layer_heads = 1
  map_entries = 0

  @nn.compact
  def __call__(self, x_T):
    W_SxS = self.param("W", nn.initializers.zeros, (self.S, self.S))
    out = {"attention_1": jnp.eye(self.T)[None]}
    return jax.nn.softmax(self.scale * W_SxS[x_T[-1]]), out

  def parameter_blocks(self, params):
    return [blocks.read_out("W", params["W"], [("token", self.S)])]


def _sign_descent(model, steps, learning_rate, factor):
  del model, steps
  return optax.chain(
    optax.stateless(lambda updates, _: jax.tree.map(jnp.sign, updates)),
    optax.scale(-learning_rate * factor),
  )


def _config(**groups):
  """A small run of two steps, with some groups of the config replaced."""
  config = single_parent.get_config("chain").unlock()
  config.graph.T = 6
  config.prior.S = 3
  config.train.update(steps=2, eval_every=2, batch_size=32)
  config.eval.update(test_size=64, batch_size=64, posterior_prompts=0)
  for name, group in groups.items():
    config[name] = group
  return config


def test_registered_parts_train(monkeypatch, tmp_path):
  """A graph family, a prior, a model and an optimizer from a config file."""
  _register(
    monkeypatch,
    "graph",
    "star",
    parts.Part(_star, {"T": fields.at_least(3), "hub": fields.at_least(0)}),
  )
  _register(
    monkeypatch,
    "prior",
    "copying",
    parts.Part(_copying, {"shift": fields.at_least(0)}),
  )
  _register(
    monkeypatch,
    "model",
    "bigram",
    parts.Part(_Bigram, {"scale": fields.POSITIVE}),
  )
  _register(
    monkeypatch,
    "optimizer",
    "sign_descent",
    parts.Part(_sign_descent, {"factor": fields.POSITIVE}),
  )
  config = _config(
    graph={"name": "star", "T": 6, "hub": 1},
    prior={
      "name": "copying",
      "S": 3,
      "alpha": 0.1,
      "root_law": "uniform",
      "shift": 1,
    },
    model={"name": "bigram", "scale": 2.0},
    train={
      "steps": 2,
      "batch_size": 32,
      "eval_every": 2,
      "optimizer": "sign_descent",
      "learning_rate": 0.25,
      "factor": 2.0,
      "epsilon": 0.0,
    },
  )
  build.check(config)
  graph = build.graph(config)
  workdir = tmp_path / "run"
  runs.prepare(workdir, config.to_dict(), overwrite=False)
  run = grid.Run(config, graph, {}, workdir)
  loop.train_single(run, distributed.this_process())

  run = runs.load(workdir)
  assert isinstance(run.model, _Bigram)
  assert graphs.edges(run.graph) == [(2, 1), (3, 1), (4, 1)]
  x_NxT = np.asarray(run.prompts(64).x_T)
  np.testing.assert_array_equal(
    x_NxT[:, 2:5], np.repeat((x_NxT[:, 1:2] + 1) % 3, 3, axis=1)
  )
  # The target's parent is the query: each step adds .25 * 2 to the entries of
  # the right state and subtracts it from all others.
  W_SxS = np.where(np.roll(np.eye(3), 1, axis=1) > 0, 1.0, -1.0)
  np.testing.assert_allclose(run.newest["W"], W_SxS, atol=1e-6)
  assert run.result is not None
  # The logits of the right state and of the two others are 2 and -2.
  loss = np.log(1 + 2 * np.exp(-4.0))
  assert run.result["loss"] == pytest.approx(loss, abs=1e-5)
  report.write(workdir)
  assert "star" in (workdir / "report.html").read_text()


@pytest.mark.parametrize("value", [jnp.nan, 0.7])
def test_a_registered_prior_must_draw_laws(monkeypatch, value):
  def make(alpha, root_law):
    del alpha, root_law
    return lambda key, S, K: jnp.full((S + 1,) * K + (S,), value)

  _register(monkeypatch, "prior", "broken", parts.Part(make))
  config = _config(
    prior={"name": "broken", "S": 3, "alpha": 0.1, "root_law": "uniform"}
  )
  message = r"^prior\.name = 'broken': every row of a kernel must have entries"
  with pytest.raises(ConfigError, match=message):
    configs.check(config)


def test_fields_of_a_registered_part_are_checked(monkeypatch):
  config = _config(graph={"name": "star", "T": 6, "hub": 1})
  with pytest.raises(ConfigError, match=r"^graph\.name = 'star': must be "):
    configs.check(config)
  part = parts.Part(_star, {"T": fields.at_least(3), "hub": fields.at_least(0)})
  _register(monkeypatch, "graph", "star", part)
  configs.check(config)
  for changes, message in (
    ({"hub": -1}, "graph.hub = -1: must be an integer of at least 0"),
    ({"spokes": 4}, "graph.spokes is not a field of this experiment"),
  ):
    changed = _config(graph={**config.graph.to_dict(), **changes})
    with pytest.raises(ConfigError, match="^" + message):
      configs.check(changed)
  missing = _config(graph={"name": "star", "T": 6})
  with pytest.raises(ConfigError, match=r"^the config has no graph\.hub"):
    configs.check(missing)


def test_errors_of_a_registered_graph_are_reported(monkeypatch):
  part = parts.Part(_star, {"T": fields.at_least(3), "hub": fields.at_least(0)})
  _register(monkeypatch, "graph", "star", part)
  config = _config(graph={"name": "star", "T": 6, "hub": 9})
  configs.check(config)
  with pytest.raises(
    ConfigError, match=r"^graph: the hub must be below 5, got 9"
  ):
    build.graph(config)


@pytest.mark.parametrize("kind", list(parts.KINDS))
def test_a_broken_need_is_reported(monkeypatch, kind):
  def need(config):
    if config.prior.S != 4:
      return f"prior.S = {config.prior.S}: must be 4 for this part"
    return None

  config = _config()
  group, choice = parts.KINDS[kind].group, parts.KINDS[kind].choice
  part = parts.chosen(config, kind)[0]
  _register(monkeypatch, kind, "custom", part._replace(needs=(need,)))
  configs.check(config)  # which does not use it
  config[group][choice] = "custom"
  config.eval.posterior_prompts = 0
  with pytest.raises(ConfigError, match=r"^prior\.S = 3: must be 4 for this"):
    configs.check(config)
  config.prior.S = 4
  configs.check(config)


def test_register_refuses_built_in_names_and_unknown_kinds(monkeypatch):
  part = parts.Part(graphs.chain, {"T": fields.at_least(2)})
  for kind, name in BUILT_IN:
    before = parts.KINDS[kind].table[name]
    message = f"^{kind} '{name}' is built in: choose another name$"
    with pytest.raises(ConfigError, match=message):
      configs.register(kind, name, part)
    assert parts.KINDS[kind].table[name] is before
  with pytest.raises(ConfigError, match=r"^kind 'loss' must be one of graph, "):
    configs.register("loss", "custom", part)
  # A config file that is imported twice registers its parts twice.
  _register(monkeypatch, "graph", "custom", part)
  again = part._replace(make=graphs.pairs)
  configs.register("graph", "custom", again)
  assert parts.GRAPHS["custom"] is again
