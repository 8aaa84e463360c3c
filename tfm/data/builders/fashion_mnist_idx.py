"""Fashion-MNIST (arXiv:1708.07747), from its gzipped IDX files."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
import tensorflow_datasets as tfds

from tfm.data.arrayfiles import read_array
from tfm.data.builders import manual

SOURCE = 'the Debian package dataset-fashion-mnist'
NAMES = [
  'T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag',
  'Ankle boot',
]  # fmt: skip


class FashionMnistIdx(tfds.core.GeneratorBasedBuilder):
  """Images of 28 x 28 gray levels in ten classes, with the original split.

  The image is an array of bytes [28, 28], because an image feature of TFDS needs TensorFlow.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'manual_dir has the four .gz files of {SOURCE}.'

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Fashion-MNIST.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Tensor(shape=(28, 28), dtype=np.uint8),
          'label': tfds.features.ClassLabel(names=NAMES),
        }
      ),
      supervised_keys=('image', 'label'),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    def read(name: str) -> NDArray[Any]:
      return read_array(str(manual.find_one(dl_manager, name, SOURCE)), 'data.manual_dir')

    return {
      split: self._generate_examples(
        read(f'{name}-images-idx3-ubyte*'), read(f'{name}-labels-idx1-ubyte*')
      )
      for split, name in (('train', 'train'), ('test', 't10k'))
    }

  def _generate_examples(
    self, images: NDArray[Any], labels: NDArray[Any]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
      yield number, {'image': image, 'label': int(label)}
