"""How pairs of token sequences form rows: one pair in each row, or several packed pairs."""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.data.framing import Framing
from tfm.data.layout import Ints, Sequences, pack, ranges
from tfm.data.store import Split


class Rows(NamedTuple):
  """The pairs of some rows.

  Attributes:
    size: The number of rows.
    pair: The pair of each entry.
    row: The row of each entry, ascending.
    nth: The position of each entry among the pairs of its row, from 0.
  """

  size: int
  pair: Ints
  row: Ints
  nth: Ints


@dataclasses.dataclass(frozen=True)
class Side:
  """The sources or the targets of all pairs.

  Attributes:
    tokens: The tokens of the split.
    start: The first token of each text.
    size: The number of tokens of each text, without special tokens.
    frame: The special tokens around each text.
    window: Tokens of a row.
  """

  tokens: NDArray[np.integer]
  start: Ints
  size: Ints
  frame: Framing
  window: int

  @property
  def room(self) -> int:
    """The most tokens of a text that fit a row with its special tokens."""
    return self.window - len(self.frame.begin) - len(self.frame.end)

  def truncated(self) -> 'Side':
    """Return the side with texts of at most `room` tokens."""
    return dataclasses.replace(self, size=np.minimum(self.size, self.room))

  @property
  def framed(self) -> Ints:
    """The number of tokens of each text, with special tokens."""
    return self.size + (self.window - self.room)

  def sequences(self, rows: Rows) -> Sequences:
    """Return the tokens, segments and positions of rows. Padding is 0 in all of them."""
    size, length = self.size[rows.pair], self.framed[rows.pair]
    begin = np.cumsum(length) - length
    first = np.flatnonzero(rows.nth == 0)
    at = rows.row * self.window + begin - begin[first][rows.row]
    out = np.zeros((3, rows.size * self.window), np.int32)
    text = np.repeat(at + len(self.frame.begin), size) + ranges(size)
    out[0, text] = self.tokens[np.repeat(self.start[rows.pair], size) + ranges(size)]
    for i, token in enumerate(self.frame.begin):
      out[0, at + i] = token
    for i, token in enumerate(reversed(self.frame.end), 1):
      out[0, at + length - i] = token
    inside = np.repeat(at, length) + ranges(length)
    out[1, inside] = np.repeat(rows.nth + 1, length)
    out[2, inside] = ranges(length)
    return Sequences(*out.reshape(3, rows.size, self.window))


class PairRows:
  """A numbering of the rows of a split, for `Corpus`.

  Args:
    split: Texts in the order source, target, source, target, ...
    frames: The special tokens around sources and around targets.
    windows: Tokens of a row of sources, and of a row of targets.
    long: 'truncate' cuts texts that do not fit a row, 'skip' leaves their pairs out.
    packed: Put several pairs into a row. Otherwise a row has one pair.
  """

  phases = 1

  def __init__(
    self,
    split: Split,
    frames: tuple[Framing, Framing],
    windows: tuple[int, int],
    long: Literal['truncate', 'skip'],
    packed: bool,
  ):
    # A store may put end tokens around documents. They are left out.
    size = np.diff(split.starts) - split.starts[0]
    whole = [
      Side(split.tokens, split.starts[i:-1:2], size[i::2], frames[i], windows[i]) for i in (0, 1)
    ]
    fits = (whole[0].size <= whole[0].room) & (whole[1].size <= whole[1].room)
    #: Pairs, and pairs with a text that does not fit a row.
    self.total, self.too_long = len(fits), int((~fits).sum())
    self.source, self.target = whole[0].truncated(), whole[1].truncated()
    self.pair = np.flatnonzero(fits) if long == 'skip' else np.arange(len(fits))
    self.first = np.arange(len(self.pair) + 1)
    if packed:
      # One size for both constraints: the larger share of its row, in units of the wider row.
      unit = max(windows)
      shares = [-(-side.framed[self.pair] * unit // side.window) for side in self.sides]
      order, self.first = pack(np.maximum(*shares), unit)
      self.pair = self.pair[order]

  @property
  def sides(self) -> tuple[Side, Side]:
    """The sources and the targets."""
    return self.source, self.target

  @property
  def train_size(self) -> int:
    return len(self.first) - 1

  @property
  def eval_size(self) -> int:
    return len(self.first) - 1

  @property
  def filled(self) -> float:
    """The share of the tokens of the rows of both sides that are not padding."""
    framed = sum(int(side.framed[self.pair].sum()) for side in self.sides)
    room = sum(side.window for side in self.sides) * self.train_size
    return framed / max(1, room)

  def rows(self, index: Ints) -> Rows:
    """Return the pairs of rows."""
    count = self.first[index + 1] - self.first[index]
    nth = ranges(count)
    pair = self.pair[np.repeat(self.first[index], count) + nth]
    return Rows(len(index), pair, np.repeat(np.arange(len(index)), count), nth)

  def sequences(self, index: Ints, phase: Ints) -> Sequences:
    """Return the sources of rows."""
    del phase
    return self.source.sequences(self.rows(index))
