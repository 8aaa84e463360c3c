"""Examples with inputs and labels as a dataset, such as token sequences with a class."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError, unknown
from tfm.data import stateless_rng
from tfm.data.dataset import Raw


class Rows(NamedTuple):
  """The examples of a split.

  Attributes:
    size: Their number.
    read: `read(index)` returns the arrays [n, ...] of examples, by name.
  """

  size: int
  read: Callable[[NDArray[np.int64]], dict[str, NDArray[Any]]]


@dataclasses.dataclass(frozen=True)
class RowDataset:
  """A dataset of independent examples, in a different order in each epoch.

  Attributes:
    parts: The splits by name.
    names: The class names of `labels`.
    batch_size: The size of the global training batch.
    fingerprint: A string that changes with any example.
  """

  parts: dict[str, Rows]
  names: Sequence[str]
  batch_size: int
  fingerprint: str

  @property
  def splits(self) -> tuple[str, ...]:
    return tuple(self.parts)

  @property
  def vocabulary(self) -> None:
    """None, because there is no text."""
    return

  def batch(self, split: str, seed: int, step: int, examples: slice | None = None) -> Raw:
    """Return a batch of an endless sequence of epochs.

    Args:
      split: Name of the split.
      seed: The seed of the order.
      step: The number of the batch.
      examples: The slice of the batch to return. Defaults to all.

    Returns:
      The raw batch.
    """
    part = self._part(split)
    at = np.arange(self.batch_size, dtype=np.int64)[examples or slice(None)]
    sample = at + step * self.batch_size
    index, _ = stateless_rng.shuffled(sample, part.size, seed, split)
    key = stateless_rng.example_keys(sample, seed, split)
    return part.read(index) | {'sample': sample, 'key': key}

  def eval_steps(self, split: str, batch: int) -> int:
    """Return the number of batches of `eval_batches` with `every=1`."""
    return -(-self._part(split).size // batch)

  def eval_batches(
    self, split: str, batch: int, examples: slice | None = None, every: int = 1
  ) -> Iterator[Raw]:
    """Yield each example once, in order. Padding of the last batch has weight 0.

    Args:
      split: Name of the split.
      batch: The size of the global batch.
      examples: The slice of each batch to yield. Defaults to all.
      every: Yield the first batch, and each `every`-th batch after it.

    Yields:
      Raw batches.
    """
    part = self._part(split)
    for step in range(0, self.eval_steps(split, batch), every):
      sample = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)[examples or slice(None)]
      inside = sample < part.size
      yield part.read(np.where(inside, sample, 0)) | {
        'weights': inside.astype(np.float32),
        'sample': sample,
        'key': stateless_rng.mix(stateless_rng.word(f'eval of {split}'), sample),
      }

  def _part(self, split: str) -> Rows:
    if split not in self.parts:
      raise UserError(f'data: {unknown("split", split, self.splits)}')
    return self.parts[split]
