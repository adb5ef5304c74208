"""A run directory with random outputs of a model, written without training."""

import pathlib

import numpy as np

from configs import single_parent
from icl_causal import runs
from icl_causal import training
from icl_causal.config import build
from tests.support import records

STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
EVERY = 8


def write(
  workdir: pathlib.Path, T: int, S: int, heads: int, name: str = "chain"
) -> pathlib.Path:
  """A finished run on a graph without other fields than T."""
  config = single_parent.get_config("chain")
  config.graph.update(name=name, T=T)
  config.prior.S, config.model.heads = S, (heads, 1)
  config.train.update(steps=STEPS[-1], eval_every=EVERY)
  config.eval.update(test_size=64, batch_size=16, posterior_prompts=0)
  graph = build.graph(config)
  num_edges = int((np.asarray(graph.parents_TxK) >= 0).sum())
  runs.prepare(workdir, config.to_dict(), overwrite=False)
  rng = np.random.default_rng(0)

  def maps(*shape):
    weights = rng.gamma(0.3, size=(*shape, T, T)) * np.tri(T)
    return weights / weights.sum(-1, keepdims=True)

  for step in STEPS:
    prompts = {
      "law": rng.dirichlet(np.ones(S), size=4),
      "attention_1": maps(4, heads),
      "attention_2": maps(4, 1)[:, :, -1],
    }
    loss = 2 / (1 + step)
    snapshot = runs.Snapshot(loss, maps(heads), prompts, records.phase(step))
    runs.append_snapshot(workdir, step, snapshot)
    if step % EVERY == 0:
      row = records.row(step, loss=loss, edges=num_edges, false_parents=0)
      runs.append_metrics(workdir, row)
  params = {"A1": np.zeros((heads, S + T, S + T), np.float32)}
  width = (S + T) * (1 + heads)
  params |= {"A2": np.zeros((1, width, width), np.float32)}
  params |= {"W": np.zeros((2 * width, S), np.float32)}
  state = training.TrainState(params, (), np.int32(STEPS[-1]))
  runs.save_state(workdir, STEPS[-1], state)
  result = records.result(
    steps=STEPS[-1],
    edges=num_edges,
    edge_posterior_loss=0.04,
    unigram_loss=1.9,
    uniform_loss=2.0,
    entropy=0.01,
  )
  runs.write_result(workdir, result)
  return workdir
