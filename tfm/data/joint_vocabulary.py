"""One vocabulary for several text sources."""

from collections.abc import Iterable, Iterator, Sequence
import itertools
from pathlib import Path

from tfm.data.fixed_vocabulary import FixedVocabulary
from tfm.data.framing import Framing
from tfm.data.store import default_cache, open_store
from tfm.data.store_writer import write_store
from tfm.data.textdata import TextData
from tfm.data.tokenizer import Tokenizer


def joint_tokenizer(parts: Sequence[TextData], tokenizer: Tokenizer, cache: str) -> Tokenizer:
  """Return the tokenizer of all parts: a published one, or a vocabulary learnt from all of them.

  Args:
    parts: The sources. Their own tokenizers are ignored.
    tokenizer: Learns the vocabulary, or reads a published one.
    cache: The folder that keeps the vocabulary. Empty is the default folder.

  Returns:
    The tokenizer. If it is learnt and any source separates documents, it has an end token.
  """
  known = tokenizer.fixed()
  if known is not None and known.published:
    return tokenizer
  separated = any_separated(parts)

  def streams(split: str) -> Iterator[Iterable[str]]:
    return itertools.chain.from_iterable(part.streams(split) for part in parts)

  def write(folder: Path) -> None:
    vocabulary = tokenizer.learn(streams, total_bytes(parts))
    vocabulary = vocabulary.with_specials(('eos',)) if separated else vocabulary
    write_store(folder, vocabulary, lambda split: (), Framing())

  identity = {
    'vocabulary of': [part.identity() for part in parts],
    'tokenizer': tokenizer.identity(),
    'separated': separated,
  }
  folder = Path(cache).expanduser() if cache else default_cache()
  return FixedVocabulary(open_store(folder, identity, write).vocabulary)


def any_separated(parts: Sequence[TextData]) -> bool:
  """Return whether any source ends its documents with an end token."""
  separated = lambda part: part.separated() if part.end == 'auto' else part.end == 'always'
  return any(map(separated, parts))


def total_bytes(parts: Sequence[TextData]) -> int | None:
  """Return the approximate size of all texts in bytes, or None if it is expensive to find."""
  sizes = [part.total_bytes() for part in parts]
  known = [size for size in sizes if size is not None]
  return sum(known) if len(known) == len(sizes) else None
