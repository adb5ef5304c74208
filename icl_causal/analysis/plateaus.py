"""Plateaus of a loss curve, which a training leaves again."""

from typing import NamedTuple

import chex
import numpy as np


class Plateau(NamedTuple):
  """A stretch of a training in which the loss hardly falls.

  Attributes:
    first: the number of its first measurement.
    last: the number of its last measurement.
    level: the mean loss of its measurements, in nats.
  """

  first: int
  last: int
  level: float


def plateaus(
  steps_N, loss_N, fall: float = 0.02, ratio: float = 3.0
) -> list[Plateau]:
  """The plateaus of a loss curve that the training leaves again (ours).

  A plateau has steps a to b with b >= ratio * a, and losses within `fall` of
  each other. Later the loss is lower than all of them by `fall` or more, so the
  end of a training is none. The search goes from left to right and takes the
  longest stretch from each step. Plateaus do not overlap. Not traceable.

  Args:
    steps_N: the steps at which the loss is measured, in ascending order. Step
      0, which has no place on a logarithmic axis, starts no plateau.
    loss_N: in nats.
    fall: in nats.
    ratio: more than 1.
  """
  steps_N, loss_N = np.asarray(steps_N), np.asarray(loss_N, float)
  chex.assert_equal_shape([steps_N, loss_N])
  found, first, num = [], 0, len(steps_N)
  while first < num:
    last = first
    while last + 1 < num and np.ptp(loss_N[first : last + 2]) < fall:
      last += 1
    stretch_M, later_M = loss_N[first : last + 1], loss_N[last + 1 :]
    is_long = 0 < ratio * steps_N[first] <= steps_N[last]
    if is_long and (later_M <= stretch_M.min() - fall).any():
      found.append(Plateau(first, last, float(stretch_M.mean())))
      first = last
    first += 1
  return found
