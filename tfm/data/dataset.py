"""The contract of an open dataset, and the description of an array before it exists."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import DTypeLike, NDArray

from tfm.data.tokenizer.base import Vocabulary

#: The arrays of a batch by name, as a dataset reads them. See `Dataset.batch`.
Raw = dict[str, NDArray[Any]]

#: Arrays of a raw batch that describe its rows and are neither inputs nor labels.
BATCH_INFO = ('sample', 'key', 'weights')


class ArraySpec(NamedTuple):
  """Shape, dtype and axis letters of an array that does not exist yet.

  `letters` has one letter per axis ('BT', 'BCHW'). The mesh rules decide how each letter is
  sharded; a letter without a rule, or '-', stays whole."""

  shape: tuple[int, ...]
  dtype: DTypeLike
  letters: str


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

  def batch(self, split: str, seed: int, step: int, rows: slice | None = None) -> Raw:
    """Return batch number `step` of an endless sequence of epochs, or its `rows` only.

    Besides inputs and labels, a raw batch has `sample` int64 [b], the number of each example in the
    sequence, and `key` uint64 [b], the seed of each row's randomness. `weights` float32 [b] is
    optional: 0 marks a row of padding."""
    ...

  def eval_batches(
    self, split: str, batch: int, rows: slice | None = None, every: int = 1
  ) -> Iterator[Raw]:
    """Yield each row of `split` once, in order.

    Args:
      split: Name of the split.
      batch: Rows of each batch. The last batch is padded to this size. Padding rows have weight 0
        in the features of the task: sources of arrays mark them in `weights`, text has no segment
        there.
      rows: The rows of each batch to read, all by default.
      every: Yield the first batch and each `every`-th after it.
    """
    ...

  def eval_steps(self, split: str, batch: int) -> int:
    """Return the number of batches of `eval_batches` with `every=1`."""
    ...
