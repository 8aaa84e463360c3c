"""Which tokens stand in which row: windows of the stream, or documents packed and kept apart."""

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tfm.data.store import Split

Ints = NDArray[np.int64]


class Rows(NamedTuple):
  """int32 [b, window] each: token ids, document numbers from 1 (0 is padding), positions within the
  document.
  """

  tokens: NDArray[np.int32]
  segments: NDArray[np.int32]
  positions: NDArray[np.int32]


class Layout(Protocol):
  """A numbering of rows; training may start all of its rows `phase` tokens later, so that epochs
  cut differently.
  """

  @property
  def train_rows(self) -> int: ...

  @property
  def eval_rows(self) -> int: ...

  @property
  def phases(self) -> int: ...

  def rows(self, index: Ints, phase: Ints) -> Rows:
    """The rows numbered `index`, each shifted by its `phase` in [0, phases)."""
    ...


@dataclasses.dataclass(frozen=True)
class Stream:
  """Row i is tokens [i * stride, i * stride + window): every row one segment, documents run
  through.
  """

  split: Split
  window: int
  overlap: int

  @property
  def stride(self) -> int:
    return self.window - self.overlap

  @property
  def train_rows(self) -> int:
    """Rows that are whole at every phase (at phase 0 only, where the text is short)."""
    whole = (len(self.split.tokens) - self.window) // self.stride + 1
    return max(min(whole, 1), whole - 1)

  @property
  def eval_rows(self) -> int:
    return max(0, -(-(len(self.split.tokens) - self.overlap) // self.stride))

  @property
  def phases(self) -> int:
    slack = len(self.split.tokens) - self.window - (self.train_rows - 1) * self.stride
    return max(1, min(self.stride, slack + 1))

  def rows(self, index: Ints, phase: Ints) -> Rows:
    offset = np.arange(self.window)
    at = (index * self.stride + phase)[:, None] + offset
    inside = at < len(self.split.tokens)
    tokens = np.where(
      inside, self.split.tokens[np.minimum(at, len(self.split.tokens) - 1)], 0
    ).astype(np.int32)
    return Rows(tokens, inside.astype(np.int32), np.where(inside, offset, 0).astype(np.int32))


@dataclasses.dataclass(frozen=True)
class Packed:
  """Rows of whole documents; one longer than a window is cut into pieces that overlap as windows
  do.

  Best fit decreasing (Ding et al. 2024): pieces are placed from the longest to the shortest, each
  into the row with the least room that holds it. Where an end token precedes a document and rows
  overlap, the document begins with it, so its first token is predicted too. A document with a begin
  token starts with that."""

  split: Split
  window: int
  overlap: int
  first: Ints = dataclasses.field(init=False)
  start: Ints = dataclasses.field(init=False)
  length: Ints = dataclasses.field(init=False)
  phases: int = 1

  def __post_init__(self) -> None:
    start, length = pieces(self.split.starts, self.window, self.overlap)
    order, first = pack(length, self.window)
    for name, value in (('first', first), ('start', start[order]), ('length', length[order])):
      object.__setattr__(self, name, value)

  @property
  def train_rows(self) -> int:
    return len(self.first) - 1

  @property
  def eval_rows(self) -> int:
    return len(self.first) - 1

  def rows(self, index: Ints, phase: Ints) -> Rows:
    del phase
    count = self.first[index + 1] - self.first[index]
    nth = _ranges(count)
    piece = np.repeat(self.first[index], count) + nth
    length, row = self.length[piece], np.repeat(np.arange(len(index)), count)
    begin = np.cumsum(length) - length
    column = begin - np.repeat(begin[np.cumsum(count) - count], count)
    position = _ranges(length)
    flat = np.repeat(row * self.window + column, length) + position
    out = np.zeros((3, len(index) * self.window), np.int32)
    out[0, flat] = self.split.tokens[np.repeat(self.start[piece], length) + position]
    out[1, flat] = np.repeat(nth + 1, length)
    out[2, flat] = position
    return Rows(*out.reshape(3, len(index), self.window))


@dataclasses.dataclass(frozen=True)
class Pieces:
  """Every document cut into windows, each a row of its own; the last of each is filled up with
  padding.

  The end token that a store puts around documents belongs to none of them.
  """

  split: Split
  window: int
  phases: int = 1
  start: Ints = dataclasses.field(init=False)
  length: Ints = dataclasses.field(init=False)
  #: The number of the document that a row is of.
  document: Ints = dataclasses.field(init=False)

  def __post_init__(self) -> None:
    starts = self.split.starts
    sizes = np.diff(starts) - starts[0]
    count = np.maximum(-(-sizes // self.window), 1)
    start = np.repeat(starts[:-1], count) + _ranges(count) * self.window
    end = np.repeat(starts[:-1] + sizes, count)
    for name, value in (('start', start), ('length', np.minimum(end - start, self.window))):
      object.__setattr__(self, name, value)
    object.__setattr__(self, 'document', np.repeat(np.arange(len(count)), count))

  @property
  def train_rows(self) -> int:
    return len(self.start)

  @property
  def eval_rows(self) -> int:
    return len(self.start)

  def rows(self, index: Ints, phase: Ints) -> Rows:
    del phase
    offset = np.arange(self.window)
    inside = offset < self.length[index][:, None]
    at = np.where(inside, self.start[index][:, None] + offset, 0)
    tokens = np.where(inside, self.split.tokens[at], 0).astype(np.int32)
    return Rows(tokens, inside.astype(np.int32), np.where(inside, offset, 0).astype(np.int32))


def pieces(starts: Ints, window: int, overlap: int) -> tuple[Ints, Ints]:
  """Return start and length of every piece, in order, without those that would predict nothing.

  Tokens before the first document are end tokens, which then precede every document.
  """
  begin, end = starts[:-1] - min(overlap, starts[0]), starts[1:]
  stride = window - overlap
  count = np.maximum(-(-(end - begin - overlap) // stride), 0)
  start = np.repeat(begin, count) + _ranges(count) * stride
  return start, np.minimum(np.repeat(end, count) - start, window)


def pack(length: Ints, window: int) -> tuple[Ints, Ints]:
  """`(order, first)`: row r holds the pieces `order[first[r]:first[r + 1]]`, of at most `window`
  tokens together.
  """
  descending = np.argsort(-length, kind='stable')
  row_of = np.empty(len(length), np.int64)
  whole = int(np.searchsorted(-length[descending], -window, 'right'))
  row_of[descending[:whole]] = np.arange(whole)
  open_rows: list[list[int]] = [[] for _ in range(window + 1)]
  rows, rooms = whole, 0  # bit s of `rooms`: some row has room for exactly s more tokens
  for piece in descending[whole:].tolist():
    need = int(length[piece])
    if fitting := rooms >> need:
      room = need + (fitting & -fitting).bit_length() - 1
      row = open_rows[room].pop()
      if not open_rows[room]:
        rooms ^= 1 << room
    else:
      row, room, rows = rows, window, rows + 1
    row_of[piece] = row
    if left := room - need:
      open_rows[left].append(row)
      rooms |= 1 << left
  order = np.argsort(row_of, kind='stable')
  return order, np.searchsorted(row_of[order], np.arange(rows + 1))


def _ranges(counts: NDArray[Any]) -> Ints:
  """0..c-1 for every count c, end to end."""
  total = int(counts.sum())
  return np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
