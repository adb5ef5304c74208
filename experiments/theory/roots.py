"""Roots with a false parent after Algorithm 1, by T and by batch size.

For growing T and for 16 times the batch, on the same graphs. Nine minutes.
"""

from configs import two_stage
from experiments.harness import forests
from experiments.theory.outcome import Outcome
from icl_causal.config import build
from icl_causal.config import fields

FIELDS = {
  "T": fields.tuple_of(fields.at_least(2)),
  "batch_size": fields.tuple_of(fields.at_least(1)),
  "priors": fields.tuple_of((fields.ALPHA, fields.SHARE)),
  "num_graphs": fields.at_least(1),
  "S": fields.at_least(2),
}


def check(config: build.Config) -> Outcome:
  """Roots with a false parent; all batch sizes train on the same graphs."""
  rows = []
  shared = min(config.T) - 1
  for alpha, gamma in config.priors:
    for T in config.T:
      before = None
      for batch_size in config.batch_size:
        counts = forests.count(
          forests.train(
            _forest_config(config, alpha, gamma, T, batch_size),
            config.num_graphs,
            at_once=1,
          )
        )
        false = {tuple(edge) for edge in counts["false_edges"]}
        early = sum(counts["false_parents_by_position"][:shared])
        early_roots = sum(counts["roots_by_position"][:shared])
        repeated = "-" if before is None else f"{len(before & false)}"
        rows.append(
          [
            *(alpha, gamma, T, batch_size),
            f"{counts['edges_recovered']} of {counts['edges']}",
            counts["parent_attention_mean"],
            f"{counts['false_parents']} of {counts['roots']}",
            f"{early} of {early_roots}",
            repeated,
          ]
        )
        before = false
  header = ["alpha", "gamma", "T", "batch", "edges", "attention"]
  header += ["false parents", f"of rows < {shared}", "same as above"]
  return Outcome(header, rows, None)


def _forest_config(config: build.Config, alpha, gamma, T: int, batch_size: int):
  """The config of configs/two_stage.py, its stage-1 rate proportional to T."""
  full: build.Config = two_stage.get_config("forest")
  full.seed = full.graph.seed = config.seed
  full.prior.update({"S": config.S, "alpha": alpha})
  full.prior.name, full.prior.gamma = "floored_dirichlet", gamma
  full.eval.posterior_prompts = 0
  full.train.learning_rate *= T / full.graph.T
  full.graph.T, full.train.batch_size = T, batch_size
  # Only layer 1 is measured, and stage 2 does not change it.
  full.train.steps = full.train.eval_every = full.train.first_steps
  full.eval.test_size = full.eval.batch_size
  build.check(full)
  return full
