"""That the tables show the numbers of a result."""

import json
import pathlib

import pytest

from experiments.benchmark import implementations
from experiments.benchmark import measure
from experiments.benchmark import tables

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "benchmark"


def test_growth_is_a_power_of_T():
  rows = [
    {
      "kind": "training step",
      "S": S,
      "T": T,
      "textbook_ms": 1.0,
      "ours_ms": 0.1 * T**power if T > 20 else 100.0,
      "limit_ms": 1.0,
    }
    for S, power in ((3, 1.5), (10, 2.0))
    for T in (20, 64, 256, 512)
  ]
  powers = tables.growth(rows)
  assert powers["power of T at S =  3"] == pytest.approx(1.5)
  assert powers["power of T at S = 10"] == pytest.approx(2.0)


def test_table_and_changes_of_a_result():
  """The result as in memory, and as read from a file with sorted names."""
  columns = ("textbook_ms", "ours_ms", "times_faster", "limit_ms")
  row = {
    "kind": "gradient",
    **implementations.Case(3, 6, 64, (2, 1))._asdict(),
    **{name: value for value, name in enumerate(columns, start=10)},
    "times_limit": 14.0,
    "MiB": 15.0,
  }
  result = {
    "device": "2 x cpu",
    "limits": {"operations": 2e11, "bytes": 3e10},
    "step": [row],
    "sweep": {"side by side": 700.0},
  }
  loaded = json.loads(json.dumps(result, sort_keys=True))
  text = tables.table(loaded)
  assert text == tables.table(result)
  assert "2 x cpu: 200 GFLOP/s, 30 GB/s" in text
  assert "side by side                        700" in text
  line = next(line for line in text.splitlines() if line.startswith("gradient"))
  values = ["gradient", "3", "6", "64", "2,1", *map(str, range(10, 16))]
  assert line.split() == values
  faster = {**loaded, "step": [{**loaded["step"][0], "times_faster": 18}]}
  assert tables.changes(loaded, faster).splitlines()[1].split() == [
    *values[:5],
    "1.50",
    "times",
  ]


def test_the_table_in_docs_is_that_of_its_result():
  result = json.loads((DOCS / "result.json").read_text())
  assert (DOCS / "table.txt").read_text() == tables.table(result)
  assert result["growth"] == pytest.approx(tables.growth(result["sizes"]))
  assert set(measure.PARTS) <= set(result)
