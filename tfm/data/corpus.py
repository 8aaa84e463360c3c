"""Batches as a pure function of (seed, step)."""

from collections.abc import Iterator
import functools

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data import stateless_rng
from tfm.data.dataset import Raw
from tfm.data.framing import Framing, prompt_frame
from tfm.data.layout import Layout, Packed, Stream
from tfm.data.store import Store
from tfm.data.tokenizer import Vocabulary

#: 'tokens', 'segments', 'positions': int32 [b, window]; 'sample': int64 [b]; 'key': uint64 [b], a
#: row's own randomness.
RawBatch = Raw


class Corpus:
  """Rows of `window` tokens of an open store; no state, so a run resumes at any step by asking for
  it.

  Rows of a stream that follow one another share `overlap` tokens: 1 where a row's last token is
  only predicted."""

  def __init__(
    self,
    store: Store,
    vocabulary: Vocabulary,
    window: int,
    overlap: int = 0,
    *,
    batch: int = 1,
    isolate: bool = False,
  ):
    assert 0 <= overlap < window
    self.store, self.vocabulary = store, vocabulary
    self.window, self.overlap, self.batch_size, self.isolate = window, overlap, batch, isolate

  @property
  def vocab(self) -> int:
    """Ids are below it; a model needs at least as many rows of embeddings."""
    return self.vocabulary.size

  @property
  def splits(self) -> tuple[str, ...]:
    return tuple(self.store.splits)

  @property
  def names(self) -> list[str]:
    """Class names: none, as the rows have no labels."""
    return []

  @property
  def fingerprint(self) -> str:
    """Changes with any token of any split."""
    return self.store.content

  @functools.cached_property
  def frame(self) -> Framing:
    """The special tokens around a row: those of a published tokenizer's prompts, else 'cls' and
    'eos'.
    """
    if self.vocabulary.published:
      return prompt_frame(self.vocabulary)
    return Framing((self.vocabulary.special('cls'),), (self.vocabulary.special('eos'),))

  @functools.cached_property
  def byte_lengths(self) -> NDArray[np.int32] | None:
    """int32 [vocab]: bytes of text that an id stands for; None if that is not knowable an id at a
    time.
    """
    return self.vocabulary.byte_lengths

  def bytes_of(self, labels: NDArray, weights: NDArray) -> int | None:
    """Bytes of text that the labels of non-zero weight stand for."""
    return None if self.byte_lengths is None else int(self.byte_lengths[labels[weights > 0]].sum())

  def rows(self, split: str) -> int:
    """Rows of an epoch."""
    return self._layout(split).train_rows

  def batch(self, split: str, seed: int, step: int, rows: slice | None = None) -> RawBatch:
    """Batch number `step` (its `rows` only) of endless epochs, each its own permutation of the rows
    of `split`.
    """
    layout = self._layout(split)
    if (n := layout.train_rows) < 1:
      raise UserError(
        f'data.length: a row needs {self.window} tokens, and the {split} split has only '
        f'{len(self.store.splits[split].tokens)}. Give more text or a smaller length.'
      )
    sample = (
      np.arange(self.batch_size, dtype=np.int64)[rows or slice(None)] + step * self.batch_size
    )
    index, epoch_keys = stateless_rng.shuffled(sample, n, seed, split)
    phase = np.where(sample < n, 0, epoch_keys % np.uint64(layout.phases)).astype(np.int64)
    return self._raw(layout, index, phase, sample, stateless_rng.row_keys(sample, seed, split))

  def eval_steps(self, split: str, batch: int) -> int:
    """Batches that `eval_batches` yields."""
    return -(-self._layout(split).eval_rows // batch)

  def eval_batches(
    self, split: str, batch: int, rows: slice | None = None, every: int = 1
  ) -> Iterator[RawBatch]:
    """Every row of `split` once, in order; the last batch is filled up with rows of padding
    (segment 0).

    Of these batches the first and each `every`-th after it.
    """
    layout = self._layout(split)
    for step in range(0, self.eval_steps(split, batch), every):
      sample = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)[rows or slice(None)]
      inside = sample < layout.eval_rows
      index = np.where(inside, sample, 0)
      raw = self._raw(
        layout,
        index,
        np.zeros_like(index),
        sample,
        stateless_rng.mix(stateless_rng.word(f'eval of {split}'), sample),
      )
      for name in ('tokens', 'segments', 'positions'):
        raw[name] = raw[name] * inside[:, None]
      yield raw

  def _raw(self, layout: Layout, index, phase, sample, key) -> RawBatch:
    return {**layout.rows(index, phase)._asdict(), 'sample': sample, 'key': key}

  @functools.cache
  def _layout(self, split: str) -> Layout:
    if split not in self.store.splits:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    kind = Packed if self.isolate else Stream
    return kind(self.store.splits[split], self.window, self.overlap)
