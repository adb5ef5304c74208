import pytest

from icl_causal.config import fields


@pytest.mark.parametrize(
  ("field", "value", "holds"),
  [
    (fields.at_least(1), 1, True),
    (fields.at_least(1), 0, False),
    (fields.at_least(1), 1.0, False),
    (fields.at_least(1), True, False),  # a bool is an int in Python
    (fields.POSITIVE, 1, True),
    (fields.POSITIVE, True, False),
    (fields.POSITIVE, float("inf"), False),
    (fields.FINITE, float("nan"), False),
    (fields.between(0, 1), 1.0, True),
    (fields.between(0, 1), 1.1, False),
    (fields.FLAG, True, True),
    (fields.FLAG, 1, False),
    (fields.SEED, 2**32, False),
    (fields.one_of(("a", "b")), "b", True),
    (fields.one_of(("a", "b")), "c", False),
    (fields.tuple_of(fields.at_least(1)), (1, 2), True),
    (fields.tuple_of(fields.at_least(1)), (1, 0), False),
    (fields.tuple_of(fields.at_least(1)), (), False),
    (fields.tuple_of(fields.at_least(1)), [1], False),
    (fields.tuple_of((fields.SEED, fields.SHARE)), ((1, 0.5),), True),
    (fields.tuple_of((fields.SEED, fields.SHARE)), ((1,),), False),
  ],
)
def test_types_and_ranges(field, value, holds):
  assert fields.holds(field, value) == holds
