"""Few choices of one level for each factor, in which every two levels that may stand together do."""

from collections.abc import Callable
import itertools
from typing import Any

Level = tuple[str, Any]


def covering(
  levels: dict[str, list],
  apart: Callable[[Level, Level], bool] = lambda a, b: False,
  asked: Callable[[Level, Level], bool] = lambda a, b: True,
  dear: Callable[[Level], float] = lambda a: 0.0,
) -> list[dict]:
  """Rows, chosen greedily, in which every two levels of two factors meet unless they are to be kept
  `apart`.

  Two levels that are not `asked` about may meet or not. What is `dear` makes what it stands with
  dearer too: it is taken for three new pairs more than another level, times how dear it is, and the
  more where others stand already.

  A factor of which nothing goes with the rest of a row is None in it: a model without attention has
  no mask."""
  names = list(levels)
  at = {(name, i): (name, level) for name in names for i, level in enumerate(levels[name])}
  never = {
    (a, b) for a, b in itertools.permutations(at, 2) if a[0] != b[0] and (apart(at[a], at[b]))
  }
  never |= {(b, a) for a, b in never}
  order = {name: i for i, name in enumerate(names)}
  two = ((a, b) for a, b in itertools.combinations(at, 2) if a[0] != b[0] and asked(at[a], at[b]))
  left = {pair for pair in two if pair not in never}
  todo = sorted(
    left, key=lambda pair: (order[pair[0][0]], pair[0][1], order[pair[1][0]], pair[1][1])
  )
  found = []
  for first in todo:
    if first not in left:
      continue
    row = dict(first)
    for name in names:
      if name in row:
        continue
      free = [
        i
        for i in range(len(levels[name]))
        if all(((name, i), other) not in never for other in row.items())
      ]
      if free:
        more = 1 + sum(dear(at[other]) for other in row.items())
        news = [sum(_pair((name, i), other, order) in left for other in row.items()) for i in free]
        worth = [new - 3 * more * dear(at[name, i]) for new, i in zip(news, free, strict=True)]
        row[name] = free[worth.index(max(worth))]
    left -= {_pair(a, b, order) for a, b in itertools.combinations(row.items(), 2)}
    found.append({name: levels[name][row[name]] if name in row else None for name in names})
  return found


def _pair(a, b, order):
  return (a, b) if order[a[0]] < order[b[0]] else (b, a)
