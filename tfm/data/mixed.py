"""Several datasets as one. Batches are pure functions of (seed, step)."""

from collections.abc import Iterator, Sequence
import copy
import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data import stateless_rng
from tfm.data.corpus import Corpus
from tfm.data.dataset import Raw, example_range
from tfm.data.interleave import Interleaving


class MixedCorpus(Corpus):
  """Sequences from several corpora, in fixed proportions.

  Every corpus has its own endless sequence of shuffled epochs, and the batches interleave them. A
  split has the parts `SPLIT:NAME`, as in 'val:web'.

  Args:
    corpora: The corpora by name, with one vocabulary, window and batch size.
    weights: The share of each corpus, in any unit.
    limits: The most training examples of each corpus. None is no limit.
  """

  def __init__(
    self, corpora: dict[str, Corpus], weights: Sequence[float], limits: Sequence[int | None]
  ):
    first = next(iter(corpora.values()))
    super().__init__(
      first.store,
      first.vocabulary,
      first.window,
      first.overlap,
      batch=first.batch_size,
      packing=first.packing,
    )
    self.corpora, self.weights = corpora, weights
    self.interleaving = Interleaving(weights, limits)

  def without_shifts(self) -> 'MixedCorpus':
    fixed = copy.copy(self)
    fixed.corpora = {name: corpus.without_shifts() for name, corpus in self.corpora.items()}
    return fixed

  @property
  def splits(self) -> tuple[str, ...]:
    of_parts = {s: None for corpus in self.corpora.values() for s in corpus.splits}
    named = (f'{s}:{name}' for s in of_parts for name in self._parts(s))
    return (*of_parts, *named)

  @property
  def names(self) -> list[str]:
    return next(iter(self.corpora.values())).names

  @functools.cached_property
  def byte_lengths(self) -> NDArray[np.int32] | None:
    """Bytes of text of each token id, int32 [vocab], or None if they are unknown."""
    return next(iter(self.corpora.values())).byte_lengths

  @functools.cached_property
  def fingerprint(self) -> str:
    parts = ' '.join(corpus.fingerprint for corpus in self.corpora.values())
    return hashlib.sha256(parts.encode()).hexdigest()

  @property
  def packing_efficiency(self) -> float:
    """The share of the tokens of training sequences that are not padding."""
    filled = [corpus.packing_efficiency for corpus in self.corpora.values()]
    return float(np.average(filled, weights=self.weights))

  @property
  def notes(self) -> list[str]:
    """Lines about packing and proportions, for the start of a run."""
    total, lines = sum(self.weights), super().notes
    for (name, corpus), weight in zip(self.corpora.items(), self.weights, strict=True):
      lines.append(
        f'data: {weight / total:.2%} of the examples are from {name}, which has '
        f'{corpus.size("train"):,} sequences.'
      )
    return lines

  def size(self, split: str) -> int:
    """Return the number of sequences of an epoch of every corpus."""
    return sum(corpus.size(_base(split)) for corpus in self._parts(split).values())

  def batch(self, split: str, seed: int, step: int, examples: slice | None = None) -> Raw:
    """Return a batch of the endless interleaved sequence.

    Args:
      split: Name of the split.
      seed: The seed of the order of each corpus.
      step: The number of the batch.
      examples: The slice of the batch to return, of consecutive examples. Defaults to all.

    Returns:
      The raw batch. `sample` is the number of the example in the interleaved sequence.

    Raises:
      UserError: A text is shorter than a sequence, or the limits leave no example.
    """
    if split not in ('train', 'val'):
      raise UserError(f'data: {unknown("split", split, ("train", "val"))}')
    within = range(self.batch_size)[examples or slice(None)]
    first, end = step * self.batch_size + within.start, self.interleaving.end
    if end is not None and first + len(within) > end:
      raise UserError(
        f'data.epochs: all parts are used up after {end} examples, in step '
        f'{end // self.batch_size + 1}. Expected fewer steps, or a part without a limit.'
      )
    part, index = self.interleaving.assign(first, len(within))
    out: Raw = {}
    for number, corpus in enumerate(self.corpora.values()):
      rows = np.flatnonzero(part == number)
      if not rows.size:
        continue
      order = int(stateless_rng.mix(seed, stateless_rng.word('part'), number)[0])
      start = int(index[rows[0]])
      raw = example_range(corpus, self.batch_size, split, order, start, len(rows))
      for name, values in raw.items():
        out.setdefault(name, np.empty((len(within), *values.shape[1:]), values.dtype))
        out[name][rows] = values
    sample = first + np.arange(len(within), dtype=np.int64)
    return out | {'sample': sample, 'key': stateless_rng.example_keys(sample, seed, split)}

  def eval_parts(self, split: str, batch: int) -> dict[str, int]:
    """Return the number of evaluation batches of each corpus that has the split, by name."""
    base = _base(split)
    return {name: c.eval_steps(base, batch) for name, c in self._parts(split).items()}

  def eval_steps(self, split: str, batch: int) -> int:
    return sum(self.eval_parts(split, batch).values())

  def eval_batches(
    self, split: str, batch: int, examples: slice | None = None, every: int = 1
  ) -> Iterator[Raw]:
    """Yield each sequence of each corpus once, one corpus after the other.

    The last batch of each corpus is filled up with padding sequences.

    Args:
      split: Name of the split.
      batch: The size of the global batch.
      examples: The slice of each batch to yield. Defaults to all.
      every: Yield the first batch of each corpus, and each `every`-th batch of it after that.

    Yields:
      Raw batches.
    """
    for corpus in self._parts(split).values():
      yield from corpus.eval_batches(_base(split), batch, examples, every)

  def _parts(self, split: str) -> dict[str, Corpus]:
    """Return the corpora of a split, or of a part of it."""
    base, _, wanted = split.partition(':')
    found = {name: c for name, c in self.corpora.items() if base in c.splits}
    if wanted:
      found = {name: c for name, c in found.items() if name == wanted}
    if not found:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    return found


def _base(split: str) -> str:
  return split.partition(':')[0]
