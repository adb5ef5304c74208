"""The check of circuits: joint training and training with a clamp."""

import numpy as np
import pytest

from configs import phases
from experiments.theory import circuit_pages
from experiments.theory import circuits
from icl_causal import graphs
from icl_causal.config import build
from tests.support import theory_checks

pytestmark = pytest.mark.slow

CONFIG = theory_checks.config(
  "circuits",
  tasks=("forest",),
  seeds=(0, 1),
  steps=4,
  measure_every=2,
  num_prompts=64,
  more_prompts=128,
)


def _small():
  base = phases.get_config("forest").base
  base.graph.parents = (-1, 0, 1, 0, -1)
  base.train.update(steps=4, batch_size=32)
  base.eval.update(test_size=64, batch_size=64)
  return base


def test_a_clamped_layer_1_stays_the_graph_and_the_others_learn():
  base = _small()
  graph = build.graph(base)
  course = circuits.courses(CONFIG, base, graph, *circuits.LAYER_1["clamped"])
  assert course.excess_M.shape == (2, 3)
  A1 = course.params["A1"][:, 0, 3:, 3:]
  np.testing.assert_array_equal(
    A1 > 0, np.asarray(graphs.adjacency(graph))[None].repeat(2, 0)
  )
  for name in ("A2", "W"):
    assert (course.params[name][0] != course.params[name][1]).any()
  free = circuits.courses(
    CONFIG, base, graph, *circuits.LAYER_1["edges clamped"]
  ).params["A1"][:, 0, 3:, 3:]
  children, roots = [1, 2, 3], [0, 4]
  np.testing.assert_array_equal(free[:, children], A1[:, children])
  assert (free[:, roots] != A1[:, roots]).any()
  joint = circuits.courses(CONFIG, base, graph, *circuits.LAYER_1["trained"])
  assert (joint.params["A1"][:, 0, 3:, 3:] != 0).any()
  assert (joint.excess_M[:, 0] != course.excess_M[:, 0]).all()


def test_steps_to_an_excess_by_hand():
  config = theory_checks.config("circuits", thresholds=(0.2, 0.05))
  joint = np.array([[0.5, 0.2, 0.1], [0.5, 0.3, 0.2]])
  clamped = np.array([[0.1, 0.1, 0.3], [0.5, 0.3, 0.0]])
  excess = {"trained": joint, "clamped": clamped}
  found = circuits.pace(config, [0, 8, 16], excess)
  assert found["steps to 0.2, trained"] == [8, 16]
  assert found["steps to 0.2, clamped"] == [0, 16]
  assert found["steps to 0.05, trained"] == [None, None]
  assert found["excess, clamped"] == [0.3, 0.0]
  assert found["excess, clamped minus trained"] == pytest.approx([0.2, -0.2])
  assert "excess, trained minus trained" not in found


def test_the_rows_and_the_figure(monkeypatch):
  monkeypatch.setattr(circuits, "_base", lambda config, task: _small())
  outcome = circuits.check(CONFIG)
  rows = {row["number"]: row for row in theory_checks.table(outcome)}
  assert rows["steps to 0.2, trained"]["task"] == "forest"
  assert 0 < rows["parent"]["mean"] < 1
  assert rows["change of outputs by the gauge"]["largest"] < 1e-6
  block = rows["A2 token > token 1.1: cosine"]
  assert block["least"] <= block["mean"] <= block["largest"] <= 1
  name = "token alone, edge posterior: correlation"
  assert rows[name]["mean"] is not None
  assert rows[f"{name}, more prompts"]["least"] is None
  assert len(outcome.figure.axes) == 1


def test_sizes_must_divide():
  for changes, message in (
    ({"num_prompts": 100}, "num_prompts = 100: must be a multiple of 64"),
    ({"steps": 9}, "steps = 9: must be a multiple of measure_every"),
  ):
    config = theory_checks.config("circuits", **changes)
    (found,) = [need(config) for need in circuits.NEEDS]
    assert found == message


def test_cells_have_two_digits_of_the_error():
  for numbers, text in (
    ([0.02287, 0.00005, 0.0, 1.0], "0.02287 +- 0.00005"),
    ([88.0, 2.667, 80.0, 96.0], "88.0 +- 2.7"),
    ([88.0, 0.0, 88.0, 88.0], "88 +- 0"),
    ([160.0, 20.1, 136.0, 200.0], "160 +- 20"),
    ([4.4e-7, 2e-8, 4e-7, 5e-7], "4.4e-07 +- 2e-08"),
    ([None, None, None, None], "-"),
  ):
    assert circuit_pages._cell(numbers) == text


def test_a_changed_config_has_no_tables():
  assert circuit_pages.shown(None) == {}


def test_a_summary_of_seeds():
  assert circuits._summary([1.0, 3.0]) == [2, 1, 1, 3]
  assert circuits._summary([1.0, None]) == [None] * 4
  assert circuits._summary([1.0]) == [1, None, 1, 1]
