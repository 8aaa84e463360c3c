"""The interface of an open dataset."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tfm.data.tokenizer.base import Vocabulary

#: The arrays of a raw batch by name. See `Dataset.batch`.
Raw = dict[str, NDArray[Any]]

#: The arrays of a raw batch that are neither inputs nor labels.
BATCH_INFO = ('sample', 'key', 'weights')


class ArraySpec(NamedTuple):
  """The description of an array that does not exist yet.

  Attributes:
    shape: Its shape.
    dtype: Its dtype.
    letters: One axis letter for each axis ('BT', 'BCHW'), which the mesh rules shard. A letter
      without a rule, or '-', is replicated.
  """

  shape: tuple[int, ...]
  dtype: DTypeLike
  letters: str


class Batches(Protocol):
  """Training batches as a pure function of (split, seed, step)."""

  def batch(self, split: str, seed: int, step: int, examples: slice | None = None) -> Raw:
    """Return the raw batch of a step. See `Dataset.batch`."""
    ...


class Dataset(Protocol):
  """Batches as a pure function of (split, seed, step). `Data.open` returns one.

  Attributes:
    splits: Names of the splits. 'train' is required, 'val' is evaluated during training.
    fingerprint: A string that changes with any example of any split.
    vocabulary: The vocabulary of text, or None.
    names: The class names of `labels`, in the order of the labels. Empty if there are none.
  """

  @property
  def splits(self) -> Sequence[str]: ...

  @property
  def fingerprint(self) -> str: ...

  @property
  def vocabulary(self) -> Vocabulary | None: ...

  @property
  def names(self) -> Sequence[str]: ...

  def batch(self, split: str, seed: int, step: int, examples: slice | None = None) -> Raw:
    """Return a batch of an endless sequence of epochs.

    Args:
      split: Name of the split.
      seed: The seed of the order.
      step: The number of the batch.
      examples: The slice of the batch to return. Defaults to all.

    Returns:
      Inputs and labels, with `sample` int64 [b], the number of each example in the sequence, and
      `key` uint64 [b], its random key. `weights` float32 [b] is optional: 0 marks padding.
    """
    ...

  def eval_batches(
    self, split: str, batch: int, examples: slice | None = None, every: int = 1
  ) -> Iterator[Raw]:
    """Yield each example of a split once, in order.

    Args:
      split: Name of the split.
      batch: The size of the global batch. The last batch is padded to it. Padding examples have
        weight 0 in the features of the task: array sources mark them in `weights`, text by
        segment 0.
      examples: The slice of each batch to yield. Defaults to all.
      every: Yield the first batch, and each `every`-th batch after it.

    Yields:
      Raw batches.
    """
    ...

  def eval_steps(self, split: str, batch: int) -> int:
    """Return the number of batches of `eval_batches` with `every=1`."""
    ...


@runtime_checkable
class Grouped(Protocol):
  """A dataset of several parts, with evaluation metrics for each of them."""

  def eval_parts(self, split: str, batch: int) -> Mapping[str, int]:
    """Return the number of evaluation batches of each part, by name.

    `eval_batches` yields all batches of the first part, then those of the second, and so on. With
    `every`, it starts again with the first batch of each part.
    """
    ...


def notes(dataset: Dataset) -> list[str]:
  """Return the lines that a run prints about a dataset at its start."""
  return list(getattr(dataset, 'notes', ()))


def example_range(
  dataset: Dataset, batch: int, split: str, seed: int, first: int, count: int
) -> Raw:
  """Return consecutive training examples, which may span batches.

  Args:
    dataset: The dataset.
    batch: The size of its batches.
    split: Name of the split.
    seed: The seed of the order.
    first: The number of the first example.
    count: The number of examples, at least 1.

  Returns:
    The raw examples.
  """
  pieces, stop = [], first + count
  while first < stop:
    step, start = divmod(first, batch)
    end = min(batch, start + stop - first)
    pieces.append(dataset.batch(split, seed, step, slice(start, end)))
    first += end - start
  if len(pieces) == 1:
    return pieces[0]
  joined: Raw = {}
  for name in pieces[0]:
    joined[name] = np.concatenate([piece[name] for piece in pieces])
  return joined
