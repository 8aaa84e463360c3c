"""Documents with a weight in the loss, such as a reward."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec
from tfm.data.layout import Layout
from tfm.data.layout import layout as layout_of
from tfm.data.records import read_records, record_paths
from tfm.data.store import Split
from tfm.data.text import file_stamp
from tfm.data.textdata import TextData


@dataclasses.dataclass(frozen=True)
class Weighted(TextData):
  """JSON lines `{"text": "...", "weight": 0.5}`. The weight defaults to 1.

  The loss of each token is multiplied by the weight of its document, and divided by the sum of all
  weights. Weights are 0 or more. So a reward of a sampled text can be its weight.

  Attributes:
    files: A path, a glob, or several of them with commas.
    val_files: The validation files, in the same form. Empty for no validation.
  """

  files: str = ''
  val_files: str = ''

  def documents(self, split: str) -> Iterator[str]:
    return (record['text'] for record in self._records(split))

  def weights(self, split: str) -> NDArray[np.float32]:
    """Return the weight of each document.

    Raises:
      UserError: A weight is no number, or less than 0.
    """
    found = [record.get('weight', 1.0) for record in self._records(split)]
    for number, weight in enumerate(found, 1):
      if not isinstance(weight, int | float) or not 0 <= weight < float('inf'):
        raise UserError(
          f'data.files: weight of document {number} is {weight!r}. Expected a number of 0 or more.'
        )
    return np.asarray(found, np.float32)

  def check_sources(self) -> None:
    self.identity()

  def identity(self) -> dict[str, Any]:
    identity: dict[str, Any] = {'data': 'weighted'}
    for name in ('files', 'val_files'):
      if value := getattr(self, name):
        identity[name] = [file_stamp(path) for path in record_paths(f'data.{name}', value)]
    return identity

  def specs(self) -> dict[str, ArraySpec]:
    return {**super().specs(), 'loss': ArraySpec((self.batch, self.length), np.float32, 'BT')}

  def corpus(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> 'WeightedCorpus':
    plain = super().corpus(window, overlap, specials)
    return WeightedCorpus(plain, {split: self.weights(split) for split in plain.splits})

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.files:
      yield 'files: is empty. Expected a path, a glob, or several of them with commas.'

  def _records(self, split: str) -> list[dict[str, Any]]:
    name = 'files' if split == 'train' else 'val_files'
    value = getattr(self, name)
    return read_records(f'data.{name}', value, ('text',)) if value else []


class WeightedCorpus(Corpus):
  """A corpus with `loss`, float32 [b, window]: the weight of the document of each token.

  Args:
    plain: The corpus without weights.
    weights: The weight of each document, by split.
  """

  def __init__(self, plain: Corpus, weights: dict[str, NDArray[np.float32]]):
    super().__init__(
      plain.store,
      plain.vocabulary,
      plain.window,
      plain.overlap,
      batch=plain.batch_size,
      packing=plain.packing,
    )
    self.weights = weights

  def _raw(
    self,
    layout: Layout,
    index: NDArray[np.int64],
    phase: NDArray[np.int64],
    sample: NDArray[np.int64],
    key: NDArray[np.uint64],
  ) -> RawBatch:
    split = next(name for name in self.splits if self._layout(name) is layout)
    document = self._documents(split).sequences(index, phase).tokens
    raw = super()._raw(layout, index, phase, sample, key)
    return raw | {'loss': self.weights[split][document]}

  @functools.cache
  def _documents(self, split: str) -> Layout:
    """Return the layout of a split in which each token is the number of its document."""
    known = self.store.splits[split]
    sizes = np.diff(known.starts)
    numbers = np.zeros(len(known.tokens), np.int32)
    numbers[known.starts[0] : known.starts[-1]] = np.repeat(np.arange(len(sizes)), sizes)
    return layout_of(self.packing, Split(numbers, known.starts, 0), self.window, self.overlap)
