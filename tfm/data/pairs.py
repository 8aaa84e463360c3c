"""Pairs of texts: the source that a model reads, and the target that it writes."""

from collections.abc import Iterator
import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data import pairfiles, stateless_rng
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec
from tfm.data.framing import Framing
from tfm.data.layout import Layout, Packing
from tfm.data.pair_layout import PairRows
from tfm.data.pairfiles import Pair
from tfm.data.paths import expand, file_stamp
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Vocabulary

_SIDES = ('files', 'target_files')


@dataclasses.dataclass(frozen=True)
class Pairs(TextData):
  """Pairs of texts, for `task=seq2seq`.

  Files have a pair in each line: tab-separated columns without quoting, JSON objects (`.jsonl`), or
  the lines of two parallel files. Pairs with an empty text are left out. One vocabulary is learnt
  from sources and targets. `length` counts the tokens of a source, with its special tokens.

  Attributes:
    files: A path, a glob, a folder (all files below it), or several of them with commas.
    target_files: The targets of parallel files, in the order of `files`.
    fields: The names of source and target in JSON lines, or their columns from 1. Defaults to
      `source,target`, or `1,2`.
    prefix: Text before each source, such as 'translate English to Spanish: ' (T5).
    val_files: The validation files.
    val_target_files: The targets of parallel validation files.
    val_every: Without `val_files`, one of this many groups is for validation. 0 holds out none.
    group: The field that decides the split: the source text, or another field such as a book.
      Equal texts are in the same split, so that no source is in both.
    target_length: Tokens of a target with its special tokens. Defaults to `length`.
    packing: 'none' puts one pair into a row, and 'best_fit' several, which cannot attend to each
      other.
    long: Whether texts that are too long are cut ('truncate'), or their pairs left out ('skip'). A
      warning has their number.
  """

  files: str = ''
  target_files: str = ''
  fields: tuple[str, ...] = ()
  prefix: str = ''
  val_files: str = ''
  val_target_files: str = ''
  val_every: int = 20
  group: str = 'source'
  target_length: int | None = None
  packing: Literal['auto', Packing] = 'none'
  long: Literal['truncate', 'skip'] = 'truncate'

  paired = True

  @property
  def windows(self) -> tuple[int, int]:
    """The tokens of a row of sources, and of a row of targets."""
    return self.length, self.length if self.target_length is None else self.target_length

  def pairs(self, split: str) -> Iterator[Pair]:
    """Yield the pairs of 'train' or 'val' in the order of the files, with the prefix.

    Raises:
      UserError: A file cannot be read, or a line has no pair.
    """
    empty = 0
    for path, target_path in self._files(split):
      for pair in pairfiles.pairs(path, target_path, self.fields, self.group):
        if not self.val_files and self._split_of(pair) != split:
          continue
        if pair.source and pair.target:
          yield pair._replace(source=self.prefix + pair.source)
        else:
          empty += 1
    if empty:
      _warn(f'data: {empty} pairs of {split} have an empty text and are left out.')

  def documents(self, split: str) -> Iterator[str]:
    """Yield source, target, source, target, ..."""
    for pair in self.pairs(split):
      yield pair.source
      yield pair.target

  def framing(self, vocabulary: Vocabulary) -> Framing:
    """Return no tokens: the task adds special tokens to sources and targets."""
    del vocabulary
    return Framing()

  def open(self, task: Any) -> 'PairCorpus':
    frames = getattr(task, 'frames', None)
    if frames is None:
      raise UserError('data: pairs need a task of pairs. Expected task=seq2seq.')
    plain = self.corpus(self.length, specials=task.specials(self.length))
    return PairCorpus(plain, frames(plain.vocabulary), self.windows, self.long)

  def specs(self) -> dict[str, ArraySpec]:
    source, target = (ArraySpec((self.batch, n), np.int32, 'BT') for n in self.windows)
    names = ('tokens', 'segments', 'positions')
    specs = dict.fromkeys(names, source)
    return specs | {f'target_{name}': target for name in names}

  def check_sources(self) -> None:
    self.identity()

  def identity(self) -> dict[str, Any]:
    fields = {name: getattr(self, name) for name in ('fields', 'prefix', 'group')}
    identity: dict[str, Any] = {'data': 'pairs', **fields}
    if not self.val_files:
      identity['val_every'] = self.val_every
    for split in self._splits():
      files = [file for pair in self._files(split) for file in pair if file is not None]
      identity[split] = [file_stamp(file) for file in files]
    return identity

  def total_bytes(self) -> int:
    files = {file for split in self._splits() for pair in self._files(split) for file in pair}
    return sum(file.stat().st_size for file in files if file is not None)

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.files:
      yield 'files: is empty. Expected a path, a glob, a folder, or several of them with commas.'
    for name in ('begin', 'end'):
      if (value := getattr(self, name)) != 'auto':
        yield f'{name}: is {value}, but the task adds special tokens to pairs. Expected auto.'
    if self.packed not in ('none', 'best_fit'):
      yield f'packing: is {self.packing}, but pairs are no stream. Expected none or best_fit.'
    if self.fields and len(self.fields) != 2:
      yield f'fields: is {self.fields}. Expected two names: source and target.'
    if self.val_files and bool(self.val_target_files) != bool(self.target_files):
      yield (
        'val_target_files: target_files and val_target_files must both be set, or none of them. '
        'Expected parallel files for both splits.'
      )
    if self.val_every == 1 or self.val_every < 0:
      yield f'val_every: is {self.val_every}. Expected 2 or more, or 0 for no validation.'
    if min(self.windows) < 2:
      yield f'target_length: is {self.target_length}. Expected 2 or more.'

  def _splits(self) -> tuple[str, ...]:
    return ('train', 'val') if self.val_files else ('train',)

  def _split_of(self, pair: Pair) -> str:
    held_out = self.val_every and stateless_rng.word(pair.group) % self.val_every == 0
    return 'val' if held_out else 'train'

  def _files(self, split: str) -> list[tuple[Path, Path | None]]:
    """Return the files of a split, each with its parallel file of targets or None."""
    start = 'val_' if split == 'val' and self.val_files else ''
    sources, targets = (self._paths(f'{start}{side}') for side in _SIDES)
    if not targets:
      return [(path, None) for path in sources]
    if len(sources) != len(targets):
      raise UserError(
        f'data.{start}target_files: {len(targets)} files for {len(sources)} source files. '
        'Expected a target file for each source file.'
      )
    return list(zip(sources, targets, strict=True))

  def _paths(self, name: str) -> list[Path]:
    return expand(getattr(self, name), f'data.{name}')


class PairCorpus(Corpus):
  """Rows of pairs. Raw batches also have `target_tokens`, `target_segments`, `target_positions`.

  All six arrays are int32 [b, tokens of a row]. Special tokens are included. Segments are the
  numbers of packed pairs from 1, and 0 is padding.

  Args:
    plain: The corpus of sources and targets as documents.
    frames: The special tokens around sources and around targets.
    windows: Tokens of a row of sources, and of a row of targets.
    long: 'truncate' or 'skip' texts that do not fit a row.
  """

  def __init__(
    self,
    plain: Corpus,
    frames: tuple[Framing, Framing],
    windows: tuple[int, int],
    long: Literal['truncate', 'skip'],
  ):
    super().__init__(
      plain.store, plain.vocabulary, windows[0], batch=plain.batch_size, packing=plain.packing
    )
    for frame, window, field in zip(frames, windows, ('length', 'target_length'), strict=True):
      if (needed := len(frame.begin) + len(frame.end) + 1) > window:
        raise UserError(
          f'data.{field}: {window} tokens do not fit text and the special tokens '
          f'{[*frame.begin, *frame.end]}. Expected {needed} or more.'
        )
    self.frames, self.windows, self.long = frames, windows, long

  def eval_batches(
    self, split: str, batch: int, examples: slice | None = None, every: int = 1
  ) -> Iterator[RawBatch]:
    for raw in super().eval_batches(split, batch, examples, every):
      inside = raw['segments'].any(1, keepdims=True)
      for name in ('tokens', 'segments', 'positions'):
        raw[f'target_{name}'] = raw[f'target_{name}'] * inside
      yield raw

  def too_long(self, split: str) -> tuple[int, int]:
    """Return the number of pairs with a text that does not fit its row, and of all pairs."""
    layout = self._layout(split)
    assert isinstance(layout, PairRows)
    return layout.too_long, layout.total

  def _raw(
    self,
    layout: Layout,
    index: NDArray[np.int64],
    phase: NDArray[np.int64],
    sample: NDArray[np.int64],
    key: NDArray[np.uint64],
  ) -> RawBatch:
    assert isinstance(layout, PairRows)
    targets = layout.target.sequences(layout.rows(index))
    named = {f'target_{name}': array for name, array in targets._asdict().items()}
    return super()._raw(layout, index, phase, sample, key) | named

  @functools.cache
  def _layout(self, split: str) -> Layout:
    if split not in self.store.splits:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    layout = PairRows(
      self.store.splits[split], self.frames, self.windows, self.long, self.packing == 'best_fit'
    )
    if layout.too_long:
      done = 'truncated' if self.long == 'truncate' else 'skipped'
      _warn(
        f'data: {layout.too_long} of {layout.total} pairs of {split} exceed {self.windows[0]} '
        f'source tokens or {self.windows[1]} target tokens and are {done}.'
      )
    if not layout.train_size:
      raise UserError(
        f'data.length: all {layout.total} pairs of {split} are too long. Expected a larger length '
        'and target_length, or long=truncate.'
      )
    return layout


@functools.lru_cache(maxsize=64)
def _warn(message: str) -> None:
  """Log a warning once, although data are read several times."""
  logging.getLogger(__name__).warning('%s', message)
