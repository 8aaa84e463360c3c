"""Divide an endless sequence of examples among parts, in exact proportions."""

import bisect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# Weights become integers with about this sum, so that all counts are exact.
_SUM = 1 << 32


class _Phase(NamedTuple):
  """Examples with constant weights.

  Attributes:
    start: The number of its first example.
    weights: The integer weight of each part. 0 if the part gets no more examples.
    before: The examples that each part had before `start`.
  """

  start: int
  weights: tuple[int, ...]
  before: tuple[int, ...]


class Interleaving:
  """A division of the examples 0, 1, 2, ... among parts, without state.

  Part 0 has floor(n w_0 / sum(w)) of the first n examples, and the other parts divide the rest in
  the same way. So each count differs from its share by a small constant, at every n. A part that
  reaches its limit gets no more examples, and the others keep their proportions.

  Args:
    weights: The weight of each part. Not negative, and not all 0.
    limits: The most examples of each part. None is no limit.

  Attributes:
    end: The number of examples until all parts reach their limits. None if that never happens.
  """

  def __init__(self, weights: Sequence[float], limits: Sequence[int | None]):
    total = sum(weights)
    whole = lambda w: max(1, round(w / total * _SUM)) if w else 0
    exact = list(map(whole, weights))
    start, before = 0, [0] * len(exact)
    self._phases: list[_Phase] = []
    self.end: int | None = None
    while any(exact):
      self._phases.append(_Phase(start, tuple(exact), tuple(before)))
      length = _until_limit(exact, before, limits)
      if length is None:
        return
      start += length
      before = [b + n for b, n in zip(before, _counts(exact, length), strict=True)]
      for part, limit in enumerate(limits):
        if limit is not None and before[part] >= limit:
          exact[part] = 0
    self.end = start

  def assign(self, start: int, count: int) -> tuple[Ints, Ints]:
    """Return the parts of the examples from `start` on.

    Args:
      start: The number of the first example.
      count: The number of examples, all before `end`.

    Returns:
      The part of each example, and its number among the examples of that part, int64 [count].
    """
    pieces = [_divide(phase, first, n) for phase, first, n in self._within(start, start + count)]
    part, index = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    return part, index

  def _within(self, start: int, stop: int) -> Iterator[tuple[_Phase, int, int]]:
    """Yield each phase in [start, stop), with its first example there and their number."""
    ends = [phase.start for phase in self._phases[1:]] + [stop]
    for phase, end in zip(self._phases, ends, strict=True):
      first, last = max(start, phase.start), min(stop, end)
      if first < last:
        yield phase, first - phase.start, last - first


def _counts(weights: Sequence[int], n: int) -> list[int]:
  """Return how many of the first `n` examples each part has."""
  counts, left = [], sum(weights)
  for weight in weights:
    counts.append(n * weight // left if left else 0)
    n, left = n - counts[-1], left - weight
  return counts


def _until_limit(
  weights: Sequence[int], before: Sequence[int], limits: Sequence[int | None]
) -> int | None:
  """Return the number of examples until a part reaches its limit, None if none ever does."""
  lengths = []
  for part, limit in enumerate(limits):
    if limit is None or not weights[part]:
      continue
    need, high = limit - before[part], 1
    had = lambda n, part=part: _counts(weights, n)[part]
    while had(high) < need:
      high *= 2
    lengths.append(bisect.bisect_left(range(high), need, key=had))
  return min(lengths, default=None)


def _divide(phase: _Phase, first: int, count: int) -> tuple[Ints, Ints]:
  """Return the part and the index of `count` examples of a phase, from its example `first` on."""
  part, index = np.empty(count, np.int64), np.empty(count, np.int64)
  rows, left = np.arange(count), sum(phase.weights)
  for p, weight in enumerate(phase.weights):
    if not weight:
      continue
    before, rest = divmod(first * weight, left)
    taken = (rest + np.arange(len(rows) + 1) * weight) // left
    takes = np.diff(taken) > 0
    part[rows[takes]] = p
    index[rows[takes]] = phase.before[p] + before + taken[:-1][takes]
    rows, first, left = rows[~takes], first - before, left - weight
  return part, index
