"""Covering arrays: few choices of levels that contain every allowed pair."""

from collections.abc import Callable
import itertools
from typing import Any

Level = tuple[str, Any]


def covering(
  levels: dict[str, list],
  apart: Callable[[Level, Level], bool] = lambda a, b: False,
  required: Callable[[Level, Level], bool] = lambda a, b: True,
  cost: Callable[[Level], float] = lambda a: 0.0,
) -> list[dict]:
  """Choose combinations of levels greedily, until every required pair occurs.

  If no level of a factor is compatible with a combination, the factor is None in it. For example, a
  model without attention has no mask.

  Args:
    levels: levels of each factor.
    apart: whether two levels exclude each other.
    required: whether two levels must occur together.
    cost: cost of a level, which also multiplies the cost of the other levels of the combination. A
      level is chosen over another if it adds three more new pairs per unit of cost.

  Returns:
    A level of each factor per combination.
  """
  names = list(levels)
  at = {(name, i): (name, level) for name in names for i, level in enumerate(levels[name])}
  never = {
    (a, b) for a, b in itertools.permutations(at, 2) if a[0] != b[0] and (apart(at[a], at[b]))
  }
  never |= {(b, a) for a, b in never}
  order = {name: i for i, name in enumerate(names)}
  two = (
    (a, b) for a, b in itertools.combinations(at, 2) if a[0] != b[0] and required(at[a], at[b])
  )
  left = {pair for pair in two if pair not in never}
  todo = sorted(
    left, key=lambda pair: (order[pair[0][0]], pair[0][1], order[pair[1][0]], pair[1][1])
  )

  def best(name: str, row: dict[str, int]) -> int | None:
    """Return the level with the most new pairs, less its cost; None if all are excluded."""
    values = {}
    more = 1 + sum(cost(at[other]) for other in row.items())
    for i in range(len(levels[name])):
      if any(((name, i), other) in never for other in row.items()):
        continue
      new = sum(_pair((name, i), other, order) in left for other in row.items())
      values[i] = new - 3 * more * cost(at[name, i])
    return max(values, key=values.__getitem__) if values else None

  combinations = []
  for first in todo:
    if first not in left:
      continue
    row = dict(first)
    for name in names:
      if name in row:
        continue
      if (i := best(name, row)) is not None:
        row[name] = i
    left -= {_pair(a, b, order) for a, b in itertools.combinations(row.items(), 2)}
    combinations.append(dict.fromkeys(names) | {n: levels[n][i] for n, i in row.items()})
  return combinations


def _pair(a, b, order):
  return (a, b) if order[a[0]] < order[b[0]] else (b, a)
