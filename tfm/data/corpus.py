"""Token sequences as a dataset. Batches are pure functions of (seed, step)."""

from collections.abc import Iterator
import copy
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data import stateless_rng
from tfm.data.dataset import Raw
from tfm.data.framing import Framing, prompt_frame
from tfm.data.layout import Layout, Packing, layout
from tfm.data.store import Store
from tfm.data.tokenizer import Vocabulary

#: 'tokens', 'segments' and 'positions' are int32 [b, window]. 'sample' is int64 [b], and 'key' is
#: uint64 [b], the random key of each sequence.
RawBatch = Raw


class Corpus:
  """Sequences of `window` tokens from an open store. It has no state, so a run resumes at any step.

  Args:
    store: The tokenised text.
    vocabulary: The vocabulary of the text.
    window: Tokens of a sequence.
    overlap: Tokens that consecutive sequences of a stream share: 1 if the last token of a
      sequence is only a label.
    batch: The size of the global batch.
    packing: How documents fill sequences.
  """

  def __init__(
    self,
    store: Store,
    vocabulary: Vocabulary,
    window: int,
    overlap: int = 0,
    *,
    batch: int = 1,
    packing: Packing = 'stream',
  ):
    assert 0 <= overlap < window
    self.store, self.vocabulary = store, vocabulary
    self.window, self.overlap, self.batch_size, self.packing = window, overlap, batch, packing
    self.shifts = True

  def without_shifts(self) -> 'Corpus':
    """Return this corpus with the same sequences in every epoch.

    By default, windows of a stream start at other tokens in every epoch after the first.
    """
    fixed = copy.copy(self)
    fixed.shifts = False
    return fixed

  @property
  def isolate(self) -> bool:
    """Whether documents of a sequence cannot attend to each other."""
    return self.packing != 'stream'

  @property
  def packing_efficiency(self) -> float:
    """The share of the tokens of training sequences that are not padding."""
    return self._layout('train').filled

  @property
  def notes(self) -> list[str]:
    """A line about packing, for the start of a run."""
    if self.packing == 'stream':
      return []
    share = f'{self.packing_efficiency:.1%} of the tokens of its sequences are text'
    return [f'data: packing {self.packing}: {share}, the rest is padding.']

  @property
  def vocab(self) -> int:
    """The number of token ids, which is the least number of embedding rows."""
    return self.vocabulary.size

  @property
  def splits(self) -> tuple[str, ...]:
    return tuple(self.store.splits)

  @property
  def names(self) -> list[str]:
    """No class names, because sequences have no labels."""
    return []

  @property
  def fingerprint(self) -> str:
    """A string that changes with any token of any split."""
    return self.store.content

  @functools.cached_property
  def frame(self) -> Framing:
    """The special tokens around a sequence.

    A published tokenizer adds the special tokens of its prompts, others add 'cls' and 'eos'.
    """
    if self.vocabulary.published:
      return prompt_frame(self.vocabulary)
    return Framing((self.vocabulary.special('cls'),), (self.vocabulary.special('eos'),))

  @functools.cached_property
  def byte_lengths(self) -> NDArray[np.int32] | None:
    """Bytes of text of each token id, int32 [vocab], or None if they depend on the context."""
    return self.vocabulary.byte_lengths

  def bytes_of(self, labels: NDArray[Any], weights: NDArray[Any]) -> int | None:
    """Return the bytes of text of the labels with non-zero weight."""
    return None if self.byte_lengths is None else int(self.byte_lengths[labels[weights > 0]].sum())

  def size(self, split: str) -> int:
    """Return the number of sequences of a training epoch."""
    return self._layout(split).train_size

  def batch(self, split: str, seed: int, step: int, examples: slice | None = None) -> RawBatch:
    """Return a batch of an endless sequence of epochs.

    Each epoch is a different permutation of the sequences of `split`.

    Args:
      split: Name of the split.
      seed: The seed of the order.
      step: The number of the batch.
      examples: The slice of the batch to return. Defaults to all.

    Returns:
      The raw batch.

    Raises:
      UserError: The text is shorter than a sequence.
    """
    layout = self._layout(split)
    if (n := layout.train_size) < 1:
      raise UserError(
        f'data.length: a sequence needs {self.window} tokens, but the {split} split has only '
        f'{len(self.store.splits[split].tokens)}. Expected more text, or a smaller length.'
      )
    within = np.arange(self.batch_size, dtype=np.int64)[examples or slice(None)]
    sample = within + step * self.batch_size
    index, epoch_keys = stateless_rng.shuffled(sample, n, seed, split)
    moves = (sample >= n) & self.shifts
    phase = np.where(moves, epoch_keys % np.uint64(layout.phases), 0).astype(np.int64)
    return self._raw(layout, index, phase, sample, stateless_rng.example_keys(sample, seed, split))

  def eval_steps(self, split: str, batch: int) -> int:
    """Return the number of batches of `eval_batches` with `every=1`."""
    return -(-self._layout(split).eval_size // batch)

  def eval_batches(
    self, split: str, batch: int, examples: slice | None = None, every: int = 1
  ) -> Iterator[RawBatch]:
    """Yield each sequence of a split once, in order.

    The last batch is filled up with padding sequences (segment 0).

    Args:
      split: Name of the split.
      batch: The size of the global batch.
      examples: The slice of each batch to yield. Defaults to all.
      every: Yield the first batch, and each `every`-th batch after it.

    Yields:
      Raw batches.
    """
    layout = self._layout(split)
    for step in range(0, self.eval_steps(split, batch), every):
      sample = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)[examples or slice(None)]
      inside = sample < layout.eval_size
      index = np.where(inside, sample, 0)
      key = stateless_rng.mix(stateless_rng.word(f'eval of {split}'), sample)
      raw = self._raw(layout, index, np.zeros_like(index), sample, key)
      for name in ('tokens', 'segments', 'positions'):
        raw[name] = raw[name] * inside[:, None]
      yield raw

  def _raw(
    self,
    layout: Layout,
    index: NDArray[np.int64],
    phase: NDArray[np.int64],
    sample: NDArray[np.int64],
    key: NDArray[np.uint64],
  ) -> RawBatch:
    return {**layout.sequences(index, phase)._asdict(), 'sample': sample, 'key': key}

  @functools.cache
  def _layout(self, split: str) -> Layout:
    if split not in self.store.splits:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    return layout(self.packing, self.store.splits[split], self.window, self.overlap)
