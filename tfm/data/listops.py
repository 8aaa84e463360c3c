"""ListOps: nested operations on lists of digits, made by a generator."""

from collections.abc import Iterator
import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import os
from pathlib import Path
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.core.newfolder import new_folder
from tfm.data import stateless_rng
from tfm.data.base import Data
from tfm.data.dataset import ArraySpec
from tfm.data.progress import Progress
from tfm.data.rows import RowDataset, Rows
from tfm.data.store import default_cache

#: The symbols of an expression. Symbol i has the token id i + 1, because 0 is padding.
SYMBOLS = (*'0123456789', '[MIN', '[MAX', '[MED', '[SM', ']')
_OPERATORS = range(10, 14)
_CLOSE = 14
_BLOCK = 500
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ListOps(Data):
  """Expressions such as [MAX 2 9 [MIN 4 7 ] 0 ] with their values (arXiv:1804.06028).

  Values are digits. The operators are minimum, maximum, median (rounded down) and sum modulo 10.
  The distribution and the default sizes are those of Long Range Arena (arXiv:2011.04006): a node is
  an operator with probability 1/4, and expressions of other lengths are rejected. No expression
  occurs twice. Example i depends on `data_seed` and i only. All examples are generated once.

  Attributes:
    train: The number of training examples.
    val: The number of validation examples.
    test: The number of test examples.
    min_length: Expressions have more tokens than this.
    max_length: Expressions have fewer tokens than this. It is the length of a sequence.
    max_depth: The depth of nesting. Nodes at this depth are digits.
    max_args: The largest number of arguments of an operator.
    data_seed: The seed of the expressions.
  """

  train: int = 96_000
  val: int = 2000
  test: int = 2000
  min_length: int = 500
  max_length: int = 2000
  max_depth: int = 10
  max_args: int = 10
  data_seed: int = 0

  def open(self, task: Any) -> RowDataset:
    del task
    folder = self._folder()
    if not folder.exists():
      self._generate(folder)
    tokens, starts, labels = (
      np.load(folder / f'{name}.npy', mmap_mode='r') for name in ('tokens', 'starts', 'labels')
    )
    first, parts = 0, {}
    for name in ('train', 'val', 'test'):
      if size := getattr(self, name):
        parts[name] = Rows(size, _Reader(tokens, starts, labels, first, self.max_length))
      first += size
    return RowDataset(parts, [str(digit) for digit in range(10)], self.batch, folder.name)

  def specs(self) -> dict[str, ArraySpec]:
    tokens = ArraySpec((self.batch, self.max_length), np.int32, 'BT')
    labels = ArraySpec((self.batch,), np.int32, 'B')
    return {'input_ids': tokens, 'attention_mask': tokens, 'labels': labels}

  def check(self) -> Iterator[str]:
    yield from super().check()
    for name, least in (('train', 1), ('val', 0), ('test', 0), ('max_depth', 2), ('max_args', 2)):
      if (value := getattr(self, name)) < least:
        yield f'{name}: is {value}. Expected {least} or more.'
    if not 0 <= self.min_length < self.max_length - 4:
      yield (
        f'min_length, max_length: are {self.min_length} and {self.max_length}. Expected '
        '0 <= min_length, and max_length at least 5 larger.'
      )

  def _folder(self) -> Path:
    """Return the cache folder of the examples. Its name is a hash of the fields."""
    fields = dataclasses.asdict(dataclasses.replace(self, batch=1, cache=''))
    name = hashlib.sha256(repr((_VERSION, sorted(fields.items()))).encode()).hexdigest()[:16]
    cache = Path(self.cache).expanduser() if self.cache else default_cache()
    return cache / f'listops-{name}'

  def _generate(self, folder: Path) -> None:
    total = self.train + self.val + self.test
    found: dict[bytes, int] = {}
    context = multiprocessing.get_context('spawn')
    workers = min(os.cpu_count() or 1, -(-total // _BLOCK))
    with (
      Progress('generating ListOps', total, of_bytes=False) as progress,
      concurrent.futures.ProcessPoolExecutor(workers, context) as pool,
    ):
      block, step = 0, workers * 4
      while len(found) < total:
        before = len(found)
        numbers = range(block, block + step)
        for examples in pool.map(block_of, [self] * step, numbers):
          found.update((tokens, value) for tokens, value in examples if tokens not in found)
        progress.advance(min(len(found), total) - before)
        block += step
    sequences = [np.frombuffer(tokens, np.uint8) for tokens in list(found)[:total]]
    labels = np.array(list(found.values())[:total], np.int32)
    with new_folder(folder) as half:
      np.save(half / 'tokens.npy', np.concatenate(sequences))
      np.save(half / 'starts.npy', np.cumsum([0, *map(len, sequences)]))
      np.save(half / 'labels.npy', labels)


@dataclasses.dataclass(frozen=True)
class _Reader:
  """Reads examples as padded sequences. `first` is the number of the split's first example."""

  tokens: NDArray[np.uint8]
  starts: NDArray[np.int64]
  labels: NDArray[np.int32]
  first: int
  length: int

  def __call__(self, index: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    start, end = self.starts[index + self.first], self.starts[index + self.first + 1]
    place = start[:, None] + np.arange(self.length)
    inside = place < end[:, None]
    tokens = self.tokens[np.where(inside, place, 0)].astype(np.int32) + 1
    return {
      'input_ids': np.where(inside, tokens, 0).astype(np.int32),
      'attention_mask': inside.astype(np.int32),
      'labels': np.asarray(self.labels[index + self.first], np.int32),
    }


def block_of(data: ListOps, block: int) -> list[tuple[bytes, int]]:
  """Return a block of expressions, as symbol numbers in bytes, with their values."""
  examples = []
  for i in range(block * _BLOCK, (block + 1) * _BLOCK):
    rng = random.Random(int(stateless_rng.mix(data.data_seed, stateless_rng.word('listops'), i)[0]))
    symbols: list[int] = []
    while not data.min_length < len(symbols) < data.max_length:
      symbols = []
      _grow(rng, data, 1, symbols)
    examples.append((bytes(symbols), value(symbols)))
  return examples


def _grow(rng: random.Random, data: ListOps, depth: int, out: list[int]) -> None:
  """Append a random expression to `out`. It may be cut off once it is too long."""
  if depth >= data.max_depth or rng.random() > 0.25:
    out.append(rng.randrange(10))
    return
  out.append(rng.choice(_OPERATORS))
  for _ in range(rng.randint(2, data.max_args)):
    _grow(rng, data, depth + 1, out)
    if len(out) >= data.max_length:
      return
  out.append(_CLOSE)


def value(symbols: list[int]) -> int:
  """Return the value of an expression.

  Args:
    symbols: Indices into `SYMBOLS`.

  Returns:
    A digit.

  Example:
    >>> value([SYMBOLS.index(s) for s in '[MED 1 2 4 [SM 7 8 ] ]'.split()])
    3
  """
  stack: list[list[int]] = [[]]
  for symbol in symbols:
    if symbol in _OPERATORS:
      stack.append([symbol])
    elif symbol == _CLOSE:
      operator, *args = stack.pop()
      stack[-1].append(_apply(operator, args))
    else:
      stack[-1].append(symbol)
  return stack[0][0]


def _apply(operator: int, args: list[int]) -> int:
  match SYMBOLS[operator]:
    case '[MIN':
      return min(args)
    case '[MAX':
      return max(args)
    case '[MED':
      ordered = sorted(args)
      return (ordered[(len(args) - 1) // 2] + ordered[len(args) // 2]) // 2
    case _:
      return sum(args) % 10
