"""What edges of layer 1 are worth, in nats.

Layer 1 copies the parents exactly, but for some edges: there it copies another
position in place of the parent. Layer 2 is fitted as in `second_layer`, with an
attention sink. Here the query is what the last row of layer 1 copies, except
that slots whose target is the last position read its own token. The last row
also has the parents of the last position, which may differ from the target's:
such an edge costs more than it gains.

Each row of the table has the excess over the edge posterior, and the loss minus
that of the row above on the same test prompts, within an experiment. Standard
errors are over prompts. If a difference is not significant, the loss does not
determine the edge. Ours.

Takes five minutes on two cores.
"""

import pathlib

import jax

from configs import paper as paper_config
from experiments.harness import grid
from experiments.harness import suite
from experiments.theory import second_layer
from experiments.theory.outcome import Outcome
from icl_causal import metrics
from icl_causal.config import build
from icl_causal.config import fields
from icl_causal.graphs import Graph
from icl_causal.sampling import Prompt

FIELDS = {
  # (experiment, changes), and a change is (child, slot, copied)
  "cases": fields.tuple_of(
    (
      fields.one_of(paper_config.EXPERIMENTS),
      fields.tuple_of((fields.at_least(1), *[fields.at_least(0)] * 2)),
    )
  ),
  "num_prompts": fields.at_least(2),
  "steps": fields.at_least(1),
  "learning_rate": fields.POSITIVE,
}


def _needs_edges(config) -> str | None:
  """Every change is of an edge, to a position that the child can attend to."""
  for name, changes in config.cases:
    parents_TxK = _run(name).graph.parents_TxK
    T, K = parents_TxK.shape
    for child, slot, copied in changes:
      if child >= T or slot >= K or parents_TxK[child, slot] < 0:
        return f"cases: {name} has no parent of {child} in slot {slot}"
      if copied > child:
        return f"cases: {child} cannot copy the later position {copied}"
  return None


NEEDS = (_needs_edges,)


def check(config: build.Config) -> Outcome:
  """Excess and difference by experiment and changes of layer 1."""
  rows = []
  for name in dict.fromkeys(case[0] for case in config.cases):
    run = _run(name)
    train, _ = second_layer.draw(run, config, "fit")
    test, edge_loss_N = second_layer.draw(run, config, "test")
    above_N = None
    for changes in ((), *(case[1] for case in config.cases if case[0] == name)):
      copied_TxK, labels = run.graph.parents_TxK, []
      for child, slot, copied in changes:
        parent = copied_TxK[child, slot]
        labels.append(f"{copied} for {parent} at {child}")
        copied_TxK = copied_TxK.at[child, slot].set(copied)
      loss_N = _fitted(train, test, run.graph, copied_TxK, config)
      excess = metrics.mean_and_standard_error(loss_N - edge_loss_N)
      change = (None, None)
      if above_N is not None:
        change = metrics.mean_and_standard_error(loss_N - above_N)
      above_N = loss_N
      rows.append([name, ", ".join(labels) or "parents", *excess, *change])
  header = ["experiment", "layer 1 copies", "excess", "std. error"]
  header += ["minus the row above", "std. error of the difference"]
  return Outcome(header, rows, None)


def _fitted(
  train: Prompt, test: Prompt, graph: Graph, copied_TxK, config: build.Config
) -> jax.Array:
  """The losses on the test prompts of layer 2, fitted on other prompts."""
  of_train, of_test = (
    second_layer.inputs_of(batch.x_T, batch.y_S, graph, copied_TxK)
    for batch in (train, test)
  )
  params = second_layer.fit(of_train, True, config.steps, config.learning_rate)
  return second_layer.losses(params, of_test)


def _run(name: str) -> grid.Run:
  """The plan of an experiment's first run; nothing is trained."""
  return suite.planned(name, "quick", 1, pathlib.Path())[0]
