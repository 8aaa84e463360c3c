"""Several sources in one batch, for a run with several tasks."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
from typing import Any

import numpy as np

from tfm.core.errors import UserError
from tfm.core.frozen import FrozenMap
from tfm.data import joint_vocabulary, stateless_rng
from tfm.data.base import Data
from tfm.data.corpus import Corpus
from tfm.data.dataset import ArraySpec, Dataset, Raw, notes
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Bpe, Tokenizer, Vocabulary


@dataclasses.dataclass(frozen=True)
class SeveralSources(Data):
  """A source for each task of `task=several`. Each has a fixed number of the rows of a batch.

  Attributes:
    parts: The sources, by the names of their tasks. `batch`, `cache` and, for text, `tokenizer`
      are set here.
    shares: The share of the batch of each source, in any unit. The default is 1.
    tokenizer: The tokenizer of all texts. One vocabulary is learnt from all of them, unless it is
      published.
  """

  parts: Mapping[str, Data] = FrozenMap()
  shares: Mapping[str, float] = FrozenMap()
  tokenizer: Tokenizer = dataclasses.field(default_factory=Bpe)

  def __post_init__(self) -> None:
    object.__setattr__(self, 'parts', FrozenMap(self.parts))
    object.__setattr__(self, 'shares', FrozenMap(self.shares))

  def rows(self, name: str) -> int:
    """Return the rows of a source in the global batch."""
    return round(self._exact_rows(name))

  def part(self, name: str) -> Data:
    """Return a source with its batch size, the common cache and the common tokenizer."""
    part = self.parts[name]
    shared: dict[str, Any] = {'batch': self.rows(name), 'cache': self.cache}
    if isinstance(part, TextData):
      shared['tokenizer'] = self.tokenizer
    return dataclasses.replace(part, **shared)

  def open(self, task: Any) -> 'SeveralDatasets':
    texts = [part for part in self.parts.values() if isinstance(part, TextData)]
    tokenizer = self.tokenizer
    if texts:
      tokenizer = joint_vocabulary.joint_tokenizer(texts, self.tokenizer, self.cache)
    specials: dict[str, None] = {}
    for name, part in self.parts.items():
      if isinstance(part, TextData):
        specials |= dict.fromkeys(task.parts[name].specials(part.length))
    datasets: dict[str, Dataset] = {}
    for name in self.parts:
      part, of_part = self.part(name), task.parts[name]
      if isinstance(part, TextData):
        part = dataclasses.replace(part, tokenizer=tokenizer)
        of_part = _WithSpecials(of_part, tuple(specials))
      datasets[name] = part.open(of_part)
    _share_vocabulary(datasets)
    return SeveralDatasets(datasets, {name: self.rows(name) for name in self.parts})

  def specs(self) -> dict[str, ArraySpec]:
    specs = {}
    for name in self.parts:
      for array, spec in self.part(name).specs().items():
        specs[f'{name}/{array}'] = spec
    return specs

  def check_sources(self) -> None:
    for part in self.parts.values():
      part.check_sources()

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.parts:
      yield 'parts: is empty. Expected sources, as in parts={lm: text(files=a)}.'
    for name, part in self.parts.items():
      for field in ('batch', 'cache', 'tokenizer'):
        given = getattr(part, field, None)
        if given != getattr(type(part)(), field, None):
          yield f'parts.{name}.{field}: is set for one part. Expected {field} of data=several.'
      if not name or '/' in name:
        yield f'parts: has {name!r}. Expected a name without slashes.'
    for name, share in self.shares.items():
      if name not in self.parts:
        yield f'shares: {name} is no part. Expected {", ".join(self.parts)}.'
      if not share > 0:
        yield f'shares: {name} is {share}. Expected a positive number.'
        return
    for name in self.parts:
      exact = self._exact_rows(name)
      if exact < 0.5 or abs(exact - round(exact)) > 1e-6:
        yield (
          f'batch: {self.batch} gives {name} {exact:.6g} rows. Expected a batch that the shares '
          'divide.'
        )

  def _exact_rows(self, name: str) -> float:
    total = sum(self.shares.get(part, 1.0) for part in self.parts)
    return self.batch * self.shares.get(name, 1.0) / total


class SeveralDatasets:
  """Open sources with joint batches. Their arrays have prefixes, as in `lm/tokens`.

  Args:
    datasets: The open sources by name.
    rows: The rows of each source in a batch.
  """

  def __init__(self, datasets: Mapping[str, Dataset], rows: Mapping[str, int]):
    self.datasets, self.rows = datasets, rows
    self.batch_size = sum(rows.values())
    self.names: list[str] = []

  @property
  def splits(self) -> Sequence[str]:
    """The splits that every source has."""
    splits = [dataset.splits for dataset in self.datasets.values()]
    common = set(splits[0]).intersection(*splits)
    return [split for split in splits[0] if split in common]

  @property
  def fingerprint(self) -> str:
    parts = ' '.join(dataset.fingerprint for dataset in self.datasets.values())
    return hashlib.sha256(parts.encode()).hexdigest()

  @property
  def vocabulary(self) -> Vocabulary | None:
    """The vocabulary of all texts, or None without text."""
    found = (dataset.vocabulary for dataset in self.datasets.values())
    return next((vocabulary for vocabulary in found if vocabulary is not None), None)

  @property
  def notes(self) -> list[str]:
    """Lines about all sources, for the start of a run."""
    lines = []
    for name, dataset in self.datasets.items():
      lines += [f'{name}: {line}' for line in notes(dataset)]
    return lines

  def batch(self, split: str, seed: int, step: int, examples: slice | None = None) -> Raw:
    """Return the batches of all sources.

    Args:
      split: Name of the split.
      seed: The seed of the order of each source.
      step: The number of the batch.
      examples: The slice of the batch to return. Each source returns the same share of its rows.

    Returns:
      The raw batch.
    """
    out: Raw = {}
    for name, dataset in self.datasets.items():
      within = self._scaled(examples, self.rows[name], self.batch_size)
      out |= _prefixed(name, dataset.batch(split, seed, step, within))
    sample = np.arange(self.batch_size, dtype=np.int64)[examples or slice(None)]
    sample += step * self.batch_size
    return out | {'sample': sample, 'key': stateless_rng.example_keys(sample, seed, split)}

  def eval_steps(self, split: str, batch: int) -> int:
    return max(d.eval_steps(split, self._part(batch, n)) for n, d in self.datasets.items())

  def eval_batches(
    self, split: str, batch: int, examples: slice | None = None, every: int = 1
  ) -> Iterator[Raw]:
    """Yield each example of each source once. Sources that are at their end yield padding.

    Args:
      split: Name of the split.
      batch: The size of the global batch.
      examples: The slice of each batch to yield. Defaults to all.
      every: Yield the first batch, and each `every`-th batch after it.

    Yields:
      Raw batches.
    """
    running: dict[str, Iterator[Raw]] = {}
    last: dict[str, Raw] = {}
    for name, dataset in self.datasets.items():
      size = self._part(batch, name)
      within = self._scaled(examples, size, batch)
      running[name] = dataset.eval_batches(split, size, within, every)
    for step in range(0, self.eval_steps(split, batch), every):
      out: Raw = {}
      for name, batches in running.items():
        if (raw := next(batches, None)) is None:
          # Zeros are padding: of text in segment 0, of arrays in weights.
          raw = {array: np.zeros_like(values) for array, values in last[name].items()}
        last[name] = raw
        out |= _prefixed(name, raw)
      sample = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
      yield out | {'sample': sample[examples or slice(None)]}

  def _part(self, batch: int, name: str) -> int:
    """Return the rows of a source in a batch of any size."""
    return batch * self.rows[name] // self.batch_size

  @staticmethod
  def _scaled(examples: slice | None, rows: int, batch: int) -> slice:
    """Return the slice of the rows of a source for a slice of the whole batch."""
    start, stop, _ = (examples or slice(None)).indices(batch)
    if start * rows % batch or stop * rows % batch:
      raise UserError(
        f'data.shares: examples {start} to {stop} of {batch} split {rows} rows. Expected shares '
        'that give each host whole rows.'
      )
    return slice(start * rows // batch, stop * rows // batch)


@dataclasses.dataclass(frozen=True)
class _WithSpecials:
  """A task with the special tokens of all tasks, so that their vocabularies are equal."""

  task: Any
  names: tuple[str, ...]

  def specials(self, length: int) -> tuple[str, ...]:
    del length
    return self.names

  def __getattr__(self, name: str) -> Any:
    return getattr(self.task, name)


def _share_vocabulary(datasets: Mapping[str, Dataset]) -> None:
  """Give all texts the vocabulary with the most special tokens.

  A published tokenizer that frames texts gets no special tokens from its task.

  Raises:
    UserError: The ids of texts differ.
  """
  texts = {name: d for name, d in datasets.items() if isinstance(d, Corpus)}
  if not texts:
    return
  joint = max((d.vocabulary for d in texts.values()), key=lambda v: v.size)
  for name, corpus in texts.items():
    if not corpus.vocabulary.with_specials(tuple(joint.specials)).same(joint):
      raise UserError(
        f'data.parts.{name}: has other special tokens than the other texts. Expected the same '
        'begin and end for all texts.'
      )
    corpus.vocabulary = joint


def _prefixed(name: str, raw: Raw) -> Raw:
  return {f'{name}/{array}': values for array, values in raw.items()}
