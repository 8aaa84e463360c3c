"""How tokens form sequences: windows of a stream, packed documents, or document pieces."""

import dataclasses
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tfm.data.store import Split

Ints = NDArray[np.int64]

#: How documents fill sequences. 'stream' and 'stream_segments' are windows of all documents one
#: after the other. 'best_fit' packs whole documents, and 'none' puts one into each sequence.
#: Documents can attend to each other in a 'stream' only.
Packing = Literal['stream', 'stream_segments', 'best_fit', 'none']


class Sequences(NamedTuple):
  """A batch of token sequences, int32 [b, window] each.

  Attributes:
    tokens: Token ids.
    segments: Document numbers from 1. 0 is padding.
    positions: Positions within the document.
  """

  tokens: NDArray[np.int32]
  segments: NDArray[np.int32]
  positions: NDArray[np.int32]


class Layout(Protocol):
  """A numbering of the sequences of a split.

  Training may shift all sequences by `phase` tokens, so that epochs have different windows.

  Attributes:
    train_size: The number of sequences of a training epoch.
    eval_size: The number of sequences of an evaluation.
    phases: The number of phases.
    filled: The share of the tokens of training sequences that are not padding.
  """

  @property
  def train_size(self) -> int: ...

  @property
  def eval_size(self) -> int: ...

  @property
  def phases(self) -> int: ...

  @property
  def filled(self) -> float: ...

  def sequences(self, index: Ints, phase: Ints) -> Sequences:
    """Return the sequences `index`, each shifted by its `phase` in [0, phases)."""
    ...


@dataclasses.dataclass(frozen=True)
class Stream:
  """Windows of the whole text: sequence i is tokens [i * stride, i * stride + window).

  Each sequence is one segment, which may span documents.

  Args:
    split: The tokens.
    window: Tokens of a sequence.
    overlap: Tokens that consecutive sequences share.
  """

  split: Split
  window: int
  overlap: int
  filled: float = 1.0

  @property
  def train_size(self) -> int:
    return windows(len(self.split.tokens), self.window, self.overlap).train

  @property
  def eval_size(self) -> int:
    return windows(len(self.split.tokens), self.window, self.overlap).eval

  @property
  def phases(self) -> int:
    return windows(len(self.split.tokens), self.window, self.overlap).phases

  def sequences(self, index: Ints, phase: Ints) -> Sequences:
    offset = np.arange(self.window)
    places = (index * (self.window - self.overlap) + phase)[:, None] + offset
    inside = places < len(self.split.tokens)
    tokens = self.split.tokens[np.minimum(places, len(self.split.tokens) - 1)]
    tokens = np.where(inside, tokens, 0).astype(np.int32)
    return Sequences(tokens, inside.astype(np.int32), np.where(inside, offset, 0).astype(np.int32))


@dataclasses.dataclass(frozen=True)
class SegmentedStream:
  """Windows of the whole text, with a segment for each document.

  Windows are those of `Stream`. A document that continues in the next window is a new segment
  there, with positions from 0. If sequences overlap and an end token precedes a document, the
  document begins with it, so that its first token is predicted too.

  Args:
    split: The tokens.
    window: Tokens of a sequence.
    overlap: Tokens that consecutive sequences share.
  """

  split: Split
  window: int
  overlap: int
  filled: float = 1.0
  #: The start of each document, in the tokens of the split and in the stream.
  begin: Ints = dataclasses.field(init=False)
  start: Ints = dataclasses.field(init=False)

  def __post_init__(self) -> None:
    begin, end = document_bounds(self.split.starts, self.overlap)
    object.__setattr__(self, 'begin', begin)
    object.__setattr__(self, 'start', np.concatenate([[0], np.cumsum(end - begin)]))

  @property
  def train_size(self) -> int:
    return windows(int(self.start[-1]), self.window, self.overlap).train

  @property
  def eval_size(self) -> int:
    return windows(int(self.start[-1]), self.window, self.overlap).eval

  @property
  def phases(self) -> int:
    return windows(int(self.start[-1]), self.window, self.overlap).phases

  def sequences(self, index: Ints, phase: Ints) -> Sequences:
    first = (index * (self.window - self.overlap) + phase)[:, None]
    places = first + np.arange(self.window)
    inside = places < self.start[-1]
    places = np.minimum(places, self.start[-1] - 1)
    document = np.searchsorted(self.start, places, 'right') - 1
    tokens = self.split.tokens[self.begin[document] + places - self.start[document]]
    segments = document - document[:, :1] + 1
    positions = places - np.maximum(self.start[document], first)
    return Sequences(
      *(np.where(inside, x, 0).astype(np.int32) for x in (tokens, segments, positions))
    )


@dataclasses.dataclass(frozen=True)
class Packed:
  """Sequences of whole documents, packed by best-fit decreasing (arXiv:2404.10830).

  Pieces are placed from the longest to the shortest, each into the fullest sequence that has room.
  Documents longer than a window are split into overlapping pieces. If sequences overlap and an end
  token precedes a document, the document begins with it, so that its first token is predicted
  too. A document with a begin token starts with that.

  Args:
    split: The tokens.
    window: Tokens of a sequence.
    overlap: Tokens that consecutive pieces of a document share.
    together: Whether a sequence may hold several pieces. Otherwise it holds one, and padding.
  """

  split: Split
  window: int
  overlap: int
  together: bool = True
  first: Ints = dataclasses.field(init=False)
  start: Ints = dataclasses.field(init=False)
  length: Ints = dataclasses.field(init=False)
  phases: int = 1

  def __post_init__(self) -> None:
    start, length = split_documents(self.split.starts, self.window, self.overlap)
    if self.together:
      order, first = pack(length, self.window)
    else:
      order, first = np.arange(len(length)), np.arange(len(length) + 1)
    for name, value in (('first', first), ('start', start[order]), ('length', length[order])):
      object.__setattr__(self, name, value)

  @property
  def train_size(self) -> int:
    return len(self.first) - 1

  @property
  def eval_size(self) -> int:
    return len(self.first) - 1

  @property
  def filled(self) -> float:
    return float(self.length.sum()) / max(1, self.train_size * self.window)

  def sequences(self, index: Ints, phase: Ints) -> Sequences:
    del phase
    count = self.first[index + 1] - self.first[index]
    nth = ranges(count)
    piece = np.repeat(self.first[index], count) + nth
    length, row = self.length[piece], np.repeat(np.arange(len(index)), count)
    begin = np.cumsum(length) - length
    column = begin - np.repeat(begin[np.cumsum(count) - count], count)
    position = ranges(length)
    flat = np.repeat(row * self.window + column, length) + position
    out = np.zeros((3, len(index) * self.window), np.int32)
    out[0, flat] = self.split.tokens[np.repeat(self.start[piece], length) + position]
    out[1, flat] = np.repeat(nth + 1, length)
    out[2, flat] = position
    return Sequences(*out.reshape(3, len(index), self.window))


@dataclasses.dataclass(frozen=True)
class Pieces:
  """Documents split into windows, each a separate sequence with padding at the end.

  The end tokens that a store puts around documents are left out.

  Args:
    split: The tokens.
    window: Tokens of a sequence.
  """

  split: Split
  window: int
  phases: int = 1
  start: Ints = dataclasses.field(init=False)
  length: Ints = dataclasses.field(init=False)
  #: The document of each sequence.
  document: Ints = dataclasses.field(init=False)

  def __post_init__(self) -> None:
    starts = self.split.starts
    sizes = np.diff(starts) - starts[0]
    count = np.maximum(-(-sizes // self.window), 1)
    start = np.repeat(starts[:-1], count) + ranges(count) * self.window
    end = np.repeat(starts[:-1] + sizes, count)
    for name, value in (('start', start), ('length', np.minimum(end - start, self.window))):
      object.__setattr__(self, name, value)
    object.__setattr__(self, 'document', np.repeat(np.arange(len(count)), count))

  @property
  def train_size(self) -> int:
    return len(self.start)

  @property
  def eval_size(self) -> int:
    return len(self.start)

  @property
  def filled(self) -> float:
    return float(self.length.sum()) / max(1, self.train_size * self.window)

  def sequences(self, index: Ints, phase: Ints) -> Sequences:
    del phase
    offset = np.arange(self.window)
    inside = offset < self.length[index][:, None]
    at = np.where(inside, self.start[index][:, None] + offset, 0)
    tokens = np.where(inside, self.split.tokens[at], 0).astype(np.int32)
    return Sequences(tokens, inside.astype(np.int32), np.where(inside, offset, 0).astype(np.int32))


def layout(packing: Packing, split: Split, window: int, overlap: int) -> Layout:
  """Return the sequences of a split.

  Args:
    packing: How documents fill sequences.
    split: The tokens.
    window: Tokens of a sequence.
    overlap: Tokens that consecutive sequences of a document or stream share.

  Returns:
    The numbered sequences.
  """
  match packing:
    case 'stream':
      return Stream(split, window, overlap)
    case 'stream_segments':
      return SegmentedStream(split, window, overlap)
    case _:
      return Packed(split, window, overlap, together=packing == 'best_fit')


class Windows(NamedTuple):
  """The numbers of windows of a stream.

  Attributes:
    train: Windows that are full at every phase, or at phase 0 if the text is short.
    eval: Windows that cover all tokens. The last one may be short.
    phases: The number of phases.
  """

  train: int
  eval: int
  phases: int


def windows(tokens: int, window: int, overlap: int) -> Windows:
  """Return the numbers of windows of a stream.

  Args:
    tokens: Tokens of the stream.
    window: Tokens of a window.
    overlap: Tokens that consecutive windows share.

  Returns:
    The numbers.
  """
  stride = window - overlap
  whole = (tokens - window) // stride + 1
  train = max(min(whole, 1), whole - 1)
  slack = tokens - window - (train - 1) * stride
  return Windows(train, max(0, -(-(tokens - overlap) // stride)), max(1, min(stride, slack + 1)))


def document_bounds(starts: Ints, overlap: int) -> tuple[Ints, Ints]:
  """Return where documents begin and end.

  Args:
    starts: The start of each document, and the end of the last one. Tokens before the first
      document are end tokens, which then precede every document.
    overlap: Tokens that consecutive sequences share. Documents begin with as many of the end tokens
      before them.

  Returns:
    (begin, end), each int64 [documents].
  """
  return starts[:-1] - min(overlap, starts[0]), starts[1:]


def split_documents(starts: Ints, window: int, overlap: int) -> tuple[Ints, Ints]:
  """Split documents into pieces of at most `window` tokens.

  Pieces without a token to predict are left out.

  Args:
    starts: The start of each document, and the end of the last one.
    window: Tokens of a piece.
    overlap: Tokens that consecutive pieces of a document share.

  Returns:
    The start and the length of every piece, in order.
  """
  begin, end = document_bounds(starts, overlap)
  stride = window - overlap
  count = np.maximum(-(-(end - begin - overlap) // stride), 0)
  start = np.repeat(begin, count) + ranges(count) * stride
  return start, np.minimum(np.repeat(end, count) - start, window)


def pack(length: Ints, window: int) -> tuple[Ints, Ints]:
  """Pack pieces into sequences of at most `window` tokens.

  Args:
    length: The length of each piece.
    window: Tokens of a sequence.

  Returns:
    `(order, first)`: sequence r holds the pieces `order[first[r]:first[r + 1]]`.
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


def ranges(counts: NDArray[Any]) -> Ints:
  """Return 0..c-1 for every count c, concatenated."""
  total = int(counts.sum())
  return np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
