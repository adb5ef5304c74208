"""The circuit of a run on its page: curves, tables and words."""

import json

import numpy as np
import pytest

from icl_causal import runs
from icl_causal.analysis import patches
from icl_causal.report import circuits
from icl_causal.report import data
from tests.support import recorded_run
from tests.support import records

T, S = 6, 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp("run") / "chain"
  recorded_run.write(path, T=T, S=S, heads=1)
  runs.write_circuits(path, records.circuit(T))
  return runs.load(path)


def test_a_page_without_a_record_has_no_circuit(tmp_path):
  recorded_run.write(tmp_path / "run", T=T, S=S, heads=2)
  assert data.of_run(runs.load(tmp_path / "run"))["circuits"] is None


def test_the_curves_are_those_of_the_maps(run):
  steps = [0, 4, 32]
  found = circuits.curves(run, steps)
  x_PxT = np.asarray(run.prompts(4).x_T)
  for k, step in enumerate(steps):
    snapshot = run.snapshots[step]
    on_parents = [snapshot.attention[0, i, i - 1] for i in range(1, T - 1)]
    assert found["parent"][k] == pytest.approx(np.mean(on_parents))
    masses, shares = [], []
    for x_T, att_T in zip(
      x_PxT, snapshot.prompts["attention_2"][:, 0], strict=True
    ):
      is_match = [x_T[i - 1] == x_T[-1] for i in range(1, T - 1)]
      if any(is_match):
        masses.append(att_T[1 : T - 1][is_match].sum())
        shares.append(np.sum(is_match) / T)
    assert found["matching"][k] == pytest.approx(np.mean(masses))
    assert found["by chance"][k] == pytest.approx(np.mean(shares))


def test_the_data_of_the_page(run):
  found = data.of_run(run)["circuits"]
  json.dumps(found, allow_nan=False)
  # The record has sorted keys; the page has the measured changes first.
  names = (*patches.MEASURED, *patches.PREDICTED)
  assert tuple(found["patches"]) == names
  below = found["patches"]["whole row"]  # the triangle below the diagonal
  assert below[1 + 1] == pytest.approx(0.033)  # of (2, 1)
  assert below[-(T - 1) :] == [None] * (T - 1)
  assert len(below) == T * (T - 1) / 2
  header, *rows = found["agreement"]
  assert header[1:3] == [
    "token alone, edge posterior",
    "token alone, fitted layer 2",
  ]
  assert rows[0] == ["measured (nats)", *["0.5000 +- 0.0100"] * 4]
  assert found["blocks"] == [
    ["W", "token 2.1 > next token", "0.700", "0.900", "3.000"]
  ]
  assert ["parent", "0.5000 +- 0.0100"] in found["scores"]
  assert "On 64 prompts. Layer 1 has 0.5000 +- 0.0100" in found["text"]


def test_a_model_with_scores_alone_says_why():
  record = records.circuit(T) | {"clamp": None, "reason": "there is an MLP"}
  record |= {"patches": {}, "agreement": {}, "blocks": []}
  assert circuits.in_words(record).endswith("There is an MLP. ")
  assert circuits.agreement_table(record) == []
  assert circuits.figure(record, None) is None
  assert [row[0] for row in circuits.score_rows(record)][-1] == "evenness"


def test_small_blocks_outside_the_construction_are_left_out():
  block = {"matrix": "W", "row": "a", "column": "b", "scale": None}
  rows = circuits.block_rows(
    {
      "blocks": [
        block | {"share": share, "cosine": cosine}
        for share, cosine in ((0.009, None), (0.011, None), (0.001, 0.5))
      ]
    }
  )
  assert [row[2] for row in rows] == ["0.011", "0.001"]
