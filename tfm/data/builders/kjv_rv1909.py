"""Verses of the Bible in English (King James) and Spanish (Reina-Valera 1909)."""

from collections.abc import Iterator
from pathlib import Path
import re
import struct
from typing import Any, NamedTuple
import zlib

import numpy as np
import tensorflow_datasets as tfds

from tfm.data.builders import manual

SOURCE = 'the Debian packages sword-text-kjv and sword-text-sparv'
MODULES = {'english': 'engKJV2006eb', 'spanish': 'spaRV1909eb'}
_TESTAMENTS = ('ot', 'nt')
#: Every eleventh book is for testing: 6 of 66.
_TEST_EVERY = 11
# Notes and headings are no text of the verse. Headings of psalms are, and say so.
_NO_TEXT = re.compile(r'<note\b.*?</note>|<title\b(?![^>]*canonical="true").*?</title>', re.DOTALL)
_TAG = re.compile(r'<[^>]*>')


class Verse(NamedTuple):
  """An entry of a module.

  Attributes:
    book: The testament and the number of the block, which holds a book.
    text: The text without markup. Empty for headings.
  """

  book: tuple[str, int]
  text: str


class KjvRv1909(tfds.core.GeneratorBasedBuilder):
  """Verse pairs, in the order of the Bible. Whole books are for testing."""

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'manual_dir has the modules of {SOURCE}.'

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    book = tfds.features.Scalar(np.int64)
    return tfds.core.DatasetInfo(
      builder=self,
      description='Verses of the King James Bible and the Reina-Valera Bible of 1909.',
      features=tfds.features.FeaturesDict({'english': text, 'spanish': text, 'book': book}),
      supervised_keys=('english', 'spanish'),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    columns = []
    for module in MODULES.values():
      verses: list[Verse] = []
      for testament in _TESTAMENTS:
        path = manual.find_one(dl_manager, f'{module}/{testament}.bzv', SOURCE)
        verses += read_verses(path)
      columns.append(verses)
    pairs = list(_pairs(*columns))
    return {
      'train': self._generate_examples(pairs, test=False),
      'test': self._generate_examples(pairs, test=True),
    }

  def _generate_examples(
    self, pairs: list[dict[str, Any]], test: bool
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, pair in enumerate(pairs):
      if (pair['book'] % _TEST_EVERY == _TEST_EVERY - 1) == test:
        yield number, pair


def _pairs(english: list[Verse], spanish: list[Verse]) -> Iterator[dict[str, Any]]:
  """Yield the pairs with text in both languages. Both modules have the same entries."""
  books: dict[tuple[str, int], int] = {}
  for a, b in zip(english, spanish, strict=True):
    if a.text and b.text:
      book = books.setdefault(a.book, len(books))
      yield {'english': a.text, 'spanish': b.text, 'book': book}


def read_verses(path: Path) -> list[Verse]:
  """Return the entries of one testament of a SWORD module of type zText.

  `.bzv` has the block, offset and size of each entry, `.bzs` the offset and sizes of each
  compressed block, and `.bzz` the blocks. All numbers are little-endian.

  Args:
    path: The `.bzv` file.

  Raises:
    UserError: A file has another format.
  """
  try:
    entries = struct.iter_unpack('<IIH', path.read_bytes())
    sizes = list(struct.iter_unpack('<III', path.with_suffix('.bzs').read_bytes()))
    packed = path.with_suffix('.bzz').read_bytes()
    blocks = [zlib.decompress(packed[at : at + size]) for at, size, _ in sizes]
    verses = []
    for block, at, size in entries:
      # An entry without text has the block 0.
      text = blocks[block][at : at + size].decode('utf-8') if size else ''
      verses.append(Verse((path.stem, block), _plain(text)))
  except (OSError, IndexError, zlib.error, struct.error, UnicodeDecodeError) as error:
    raise manual.damaged(path, f'is damaged ({error})') from error
  return verses


def _plain(text: str) -> str:
  """Return a verse without OSIS markup and paragraph marks."""
  text = _TAG.sub('', _NO_TEXT.sub('', text)).replace('¶', ' ')
  return ' '.join(text.split())
