"""A mixture of text sources, in fixed proportions and with one vocabulary."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import itertools
import math
from typing import Any

from tfm.core.errors import UserError
from tfm.data import joint_vocabulary
from tfm.data.corpus import Corpus
from tfm.data.dataset import ArraySpec
from tfm.data.mixed import MixedCorpus
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Tokenizer

#: The fields that the mixture sets for all its parts.
_SHARED = ('tokenizer', 'length', 'batch', 'packing', 'isolate', 'new_tokens', 'cache')


@dataclasses.dataclass(frozen=True)
class Mixture(TextData):
  """Several text sources, each with a share of the examples.

  The part of example n is a function of n alone, and every batch has the shares of the whole run,
  up to a few examples. One vocabulary is learnt from all parts, unless the tokenizer is published.

  Attributes:
    parts: The sources. `tokenizer`, `length`, `batch`, `packing` and `cache` are set on the
      mixture.
    names: The names of the parts in metrics and splits. Defaults to 0, 1, ...
    weights: The share of each part, in any unit. Without it, shares are proportional to the sizes
      of the parts.
    temperature: T of the shares size^(1/T) (T5, arXiv:1910.10683, section 3.5.2). 1 is
      proportional to size, and a large T gives all parts the same share.
    cap: The largest size that counts for the shares, in sequences. None is no limit.
    epochs: The most epochs of each part. A part that was read so often gets no more examples. None
      is no limit.
  """

  parts: tuple[TextData, ...] = ()
  names: tuple[str, ...] = ()
  weights: tuple[float, ...] = ()
  temperature: float = 1.0
  cap: int | None = None
  epochs: tuple[float | None, ...] = ()

  def part_names(self) -> tuple[str, ...]:
    """Return the name of each part."""
    return self.names or tuple(str(i) for i in range(len(self.parts)))

  def documents(self, split: str) -> Iterator[str]:
    return map(''.join, self.streams(split))

  def streams(self, split: str) -> Iterator[Iterable[str]]:
    return itertools.chain.from_iterable(part.streams(split) for part in self.parts)

  def identity(self) -> dict[str, Any]:
    return {'data': 'mixture', 'parts': [part.identity() for part in self.parts]}

  def separated(self) -> bool:
    return joint_vocabulary.any_separated(self.parts)

  def total_bytes(self) -> int | None:
    return joint_vocabulary.total_bytes(self.parts)

  def check_sources(self) -> None:
    for part in self.parts:
      part.check_sources()

  def specs(self) -> dict[str, ArraySpec]:
    return self._part(self.parts[0], self.tokenizer).specs() if self.parts else super().specs()

  def corpus(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> MixedCorpus:
    tokenizer = joint_vocabulary.joint_tokenizer(self.parts, self.tokenizer, self.cache)
    corpora: dict[str, Corpus] = {}
    for name, part in zip(self.part_names(), self.parts, strict=True):
      corpora[name] = self._part(part, tokenizer).corpus(window, overlap, specials)
    first = next(iter(corpora.values()))
    for name, corpus in corpora.items():
      if not corpus.vocabulary.same(first.vocabulary):
        raise UserError(
          f'data.parts: {name} needs other special tokens than the first part. Expected the same '
          'begin and end for all parts.'
        )
      if corpus.names != first.names:
        raise UserError(
          f'data.parts: {name} has the classes {", ".join(corpus.names)}. Expected '
          f'{", ".join(first.names)}, as in the first part.'
        )
      if corpus.size('train') < 1:
        raise UserError(
          f'data.length: a sequence needs {window} tokens, but the train split of {name} has '
          'fewer. Expected more text, or a smaller length.'
        )
    sizes = [corpus.size('train') for corpus in corpora.values()]
    return MixedCorpus(corpora, self._shares(sizes), self._limits(sizes))

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.parts:
      yield 'parts: is empty. Expected sources, as in parts=(text(files=a), text(files=b)).'
    for name in ('begin', 'end'):
      if getattr(self, name) != 'auto':
        yield f'{name}: is {getattr(self, name)}. Expected auto, and {name} of each part.'
    yield from self._check_parts()
    yield from self._check_names()
    yield from self._check_shares()

  def _check_parts(self) -> Iterator[str]:
    arrays = self.parts[0].specs().keys() if self.parts else ()
    for i, part in enumerate(self.parts):
      plain = type(part)()
      for name in _SHARED:
        if getattr(part, name) != getattr(plain, name):
          yield f'parts.{i}.{name}: is set for one part. Expected {name} of the mixture.'
      if part.specs().keys() != arrays:
        yield f'parts.{i}: has {", ".join(part.specs())}. Expected {", ".join(arrays)}.'

  def _check_names(self) -> Iterator[str]:
    if not self.names:
      return
    if len(self.names) != len(self.parts) or len(set(self.names)) != len(self.names):
      yield (
        f'names: are {", ".join(self.names)} for {len(self.parts)} parts. Expected a different '
        'name for each part.'
      )
    for name in self.names:
      if not name or set(name) & set(':/ '):
        yield f'names: has {name!r}. Expected a name without colons, slashes and spaces.'

  def _check_shares(self) -> Iterator[str]:
    for name in ('weights', 'epochs'):
      if (n := len(getattr(self, name))) and n != len(self.parts):
        yield f'{name}: has {n} values for {len(self.parts)} parts. Expected {len(self.parts)}.'
    if any(not 0 <= w < math.inf for w in self.weights):
      yield f'weights: are {self.weights}. Expected finite numbers of 0 or more.'
    elif self.weights and not any(self.weights):
      yield 'weights: are all 0. Expected a positive weight.'
    if any(e is not None and not e > 0 for e in self.epochs):
      yield f'epochs: are {self.epochs}. Expected positive numbers, or none for no limit.'
    if not self.temperature > 0:
      yield f'temperature: is {self.temperature}. Expected a positive number.'
    if self.cap is not None and self.cap < 1:
      yield f'cap: is {self.cap}. Expected 1 or more, or none.'
    if self.weights and (self.temperature != 1 or self.cap is not None):
      yield 'weights: are given, so temperature and cap have no effect. Expected one or the other.'

  def _part(self, part: TextData, tokenizer: Tokenizer) -> TextData:
    """Return a part with the fields of the mixture."""
    shared = {name: getattr(self, name) for name in _SHARED}
    return dataclasses.replace(part, **shared | {'tokenizer': tokenizer})

  def _shares(self, sizes: Sequence[int]) -> tuple[float, ...]:
    if self.weights:
      return self.weights
    most = math.inf if self.cap is None else self.cap
    return tuple(min(size, most) ** (1 / self.temperature) for size in sizes)

  def _limits(self, sizes: Sequence[int]) -> list[int | None]:
    epochs = self.epochs or (None,) * len(sizes)
    limits: list[int | None] = []
    for size, most in zip(sizes, epochs, strict=True):
      limits.append(None if most is None else max(1, round(most * size)))
    return limits
